//! What a stranger sends to a TLS listener: no panic, no handshake, and bounded answers.
//! Input: one byte that says how it is cut, then bytes.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use ringmain_transport::tls::{
    CertificateFiles, KEEP_BYTES_MAX, Tls, TlsConfig, TlsContext, load,
};

const NOW_S: u64 = 1_767_225_600;

fn context() -> &'static Arc<TlsContext> {
    static CONTEXT: OnceLock<Arc<TlsContext>> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../transport/tests/fixtures/");
        let files = CertificateFiles {
            certificate_file: format!("{folder}ec_certificate.pem").into(),
            key_file: format!("{folder}ec_pkcs8.pem").into(),
            names: Vec::new(),
        };
        let config = TlsConfig { certificates: vec![files], ..TlsConfig::default() };
        load::load(&config, NOW_S).expect("the fixtures are good")
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let mut tls = Tls::new(context()).expect("starts");
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(usize::from(choice) * 4 + 1) {
        kept.extend_from_slice(piece);
        let Ok(progress) = tls.read(NOW_S, &mut kept, &mut out) else { break };
        assert!(progress.plain == 0 && !progress.opened && progress.keep <= KEEP_BYTES_MAX);
        kept.drain(..kept.len() - progress.keep);
        assert!(tls.write(&[b"too early"], &mut out).is_err());
    }
    assert!(out.len() < 8_192, "{} bytes for a stranger", out.len());
    tls.close(&mut out);
    assert!(tls.handshake().is_none());
});

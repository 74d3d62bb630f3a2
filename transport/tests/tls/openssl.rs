//! OpenSSL's own client, over a socket: TLS by people who did not write rustls.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ringmain_transport::tls::{ClientAuth, ClientVerification, Tls, TlsContext, Version};

use crate::support::{Ca, NOW_S, World, client_params, fixture_key};

fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: openssl is not installed (Debian: apt install openssl)");
    }
    found
}

/// Serves one connection: echoes what comes, in upper case, until the client closes.
fn serve(listener: &TcpListener, context: &Arc<TlsContext>) -> Result<Tls, String> {
    let (mut socket, _) = listener.accept().map_err(|error| error.to_string())?;
    let mut tls = Tls::new(context).map_err(|failure| failure.sentence)?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut kept = Vec::new();
    loop {
        let mut buffer = [0; 700];
        let len = socket.read(&mut buffer).map_err(|error| error.to_string())?;
        if len == 0 {
            return Ok(tls);
        }
        kept.extend_from_slice(&buffer[..len]);
        let mut out = Vec::new();
        let result = tls.read(NOW_S, &mut kept, &mut out);
        if let Ok(progress) = &result {
            let answer = kept[..progress.plain].to_ascii_uppercase();
            kept.drain(..kept.len() - progress.keep);
            if !answer.is_empty() {
                tls.write(&[&answer], &mut out).map_err(|failure| failure.sentence)?;
            }
            if progress.peer_closed {
                tls.close(&mut out);
            }
        }
        let sent = send(&mut socket, &out);
        let progress = result.map_err(|failure| failure.sentence)?;
        if progress.peer_closed {
            return Ok(tls);
        }
        sent?;
    }
}

fn send(socket: &mut TcpStream, out: &[u8]) -> Result<(), String> {
    socket.write_all(out).map_err(|error| error.to_string())
}

/// `openssl s_client` with these arguments.
fn client(address: &str, arguments: &[&str]) -> Child {
    Command::new("openssl")
        .args(["s_client", "-connect", address, "-servername", "localhost"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl starts")
}

/// Reads until the text is there, or to the end.
fn wait_for(from: &mut impl Read, text: &str) -> Vec<u8> {
    let (mut printed, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&printed).contains(text) {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            len => printed.extend_from_slice(&buffer[..len]),
        }
    }
    printed
}

/// What the client printed, and how the server ended.
fn talk(
    context: &Arc<TlsContext>,
    arguments: &[&str],
    says: &str,
) -> (String, Result<Tls, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let context = Arc::clone(context);
    let server = std::thread::spawn(move || serve(&listener, &context));
    let mut child = client(&address, arguments);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(says.as_bytes()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = Vec::new();
    if says.ends_with("Q\n") || says.is_empty() {
        drop(stdin);
        stdout.read_to_end(&mut printed).unwrap();
    } else {
        printed = wait_for(&mut stdout, &says.lines().last().unwrap().to_ascii_uppercase());
        drop(stdin);
        stdout.read_to_end(&mut printed).unwrap();
    }
    child.wait().unwrap();
    (String::from_utf8_lossy(&printed).into_owned(), server.join().unwrap())
}

// T02
#[test]
fn openssl_talks_both_versions_and_both_kinds_of_keys() {
    if !has_openssl() {
        return;
    }
    for key in [rcgen::KeyPair::generate().unwrap(), fixture_key("rsa_pkcs8.pem")] {
        let world = World::with_key(&key);
        let context = world.load();
        for (flag, version) in [("-tls1_2", Version::V12), ("-tls1_3", Version::V13)] {
            let (printed, tls) = talk(&context, &[flag, "-alpn", "mqtt"], "hello ringmain\n");
            assert!(printed.contains("HELLO RINGMAIN"), "{flag}: {printed}");
            let handshake = tls.expect("an orderly end").handshake().unwrap();
            assert_eq!(handshake.version, version);
            assert_eq!(handshake.alpn.as_deref(), Some(&b"mqtt"[..]));
        }
    }
}

#[test]
fn openssl_is_refused_renegotiation() {
    if !has_openssl() {
        return;
    }
    let context = World::new().load();
    // "R" asks for renegotiation.
    let (printed, tls) = talk(&context, &["-tls1_2"], "R\n");
    assert!(!printed.contains("HELLO"));
    assert!(tls.is_err() || !tls.unwrap().is_open(), "the client gives up");
}

// T03
#[test]
fn openssl_shows_its_certificate() {
    if !has_openssl() {
        return;
    }
    let mut world = World::new();
    let ca = Ca::new("Client CA");
    let ca_file = Some(world.folder.write("clients.pem", &ca.pem));
    let verification = ClientVerification::Required;
    world.config.client = ClientAuth { verification, ca_file, ..ClientAuth::default() };
    let leaf = ca.sign(&client_params("device"));
    let cert = world.folder.write("client.pem", &leaf.pem);
    let key = world.folder.write("client.key", &leaf.key_pem);
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let context = world.load();
    let (printed, tls) = talk(&context, &["-cert", cert, "-key", key], "it is me\n");
    assert!(printed.contains("IT IS ME"), "{printed}");
    let identity = tls.unwrap().peer_identity().unwrap().unwrap();
    assert_eq!(identity.common_name.as_deref(), Some("device"));
    let (_, tls) = talk(&context, &[], "");
    assert!(tls.err().unwrap().contains("sent no certificate"));
}

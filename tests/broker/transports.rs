//! Listeners of all kinds, with clients that nobody here wrote: `mosquitto_pub` and `mosquitto_sub`, where they are
//! installed (`cargo xtask tools` says how), and a client of rustls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::support::{Broker, Folder, NO_METRICS, PATIENCE, has, ringmain};

/// CONNECT of version 3.1.1, clean, with keep alive 60 and client id "abcd".
const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd";
const CONNACK: &[u8] = b"\x20\x02\0\0";
const PINGREQ: &[u8] = b"\xc0\0";
const PINGRESP: &[u8] = b"\xd0\0";

/// A CA, and files of certificates that it signs.
struct Certificates<'a> {
    folder: &'a Folder,
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
}

impl<'a> Certificates<'a> {
    fn new(folder: &'a Folder) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(folder.0.join("ca.pem"), &pem).expect("writes");
        let ca = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        Self { folder, issuer: Issuer::new(params, key), ca }
    }

    fn path(&self, name: &str) -> String {
        self.folder.0.join(name).display().to_string()
    }

    /// Writes NAME.pem and NAME.key, for these hosts or for a client of this name.
    fn write(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |name: String, text: String| {
            // As tools do it: nobody reads half a file.
            let new = format!("{name}.new");
            std::fs::write(self.path(&new), text).expect("writes");
            std::fs::rename(self.path(&new), self.path(&name)).expect("renames");
        };
        write(format!("{name}.key"), key.serialize_pem());
        write(format!("{name}.pem"), certificate.pem());
        certificate.der().clone()
    }

    /// A TLS client that has this CA.
    fn client(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).expect("a CA");
        // Named, since there are two in this program.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        StreamOwned::new(tls, stream(address))
    }
}

fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A broker with two shards and these listeners.
fn serve(folder: &Folder, listen: &[&str]) -> Broker {
    let mut command = ringmain();
    command.args(["--shards", "2", "--set", NO_METRICS, "--set", "node.pin_cores=false"]);
    listen.iter().for_each(|url| {
        command.args(["--listen", url]);
    });
    Broker::start_by(command, folder)
}

fn exchange(stream: &mut (impl Read + Write), send: &[u8], expect: &[u8]) {
    stream.write_all(send).expect("sends");
    let mut got = vec![0; expect.len()];
    stream.read_exact(&mut got).expect("an answer");
    assert_eq!(got, expect);
}

/// Whether the clients of mosquitto are here; CI installs them with the interop tests.
fn has_mosquitto() -> bool {
    let found = Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: mosquitto_pub is not installed (apt install mosquitto-clients)");
    }
    found
}

fn publish(place: &[&str], payload: &str) -> Output {
    let mut command = Command::new("mosquitto_pub");
    command.args(place).args(["-r", "-t", "a/b", "-q", "1", "-m", payload]).output().expect("runs")
}

/// A retained message from one to the other.
fn deliver(from: &[&str], to: &[&str]) {
    let payload = format!("from {from:?} to {to:?}");
    let published = publish(from, &payload);
    assert!(published.status.success(), "{published:?}");
    let mut command = Command::new("mosquitto_sub");
    command.args(to).args(["-t", "a/#", "-q", "1", "-C", "1", "-W", "60"]);
    let output = command.output().expect("runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains(&payload), "{output:?}");
}

// T02, T03, T01
#[test]
fn mosquitto_clients_speak_over_tls_and_unix_sockets() {
    if !has_mosquitto() {
        return;
    }
    let folder = Folder::new("transports");
    let certificates = Certificates::new(&folder);
    certificates.write("own", &["localhost"]);
    certificates.write("device", &[]);
    let (own, key, ca) =
        (certificates.path("own.pem"), certificates.path("own.key"), certificates.path("ca.pem"));
    let socket = folder.0.join("mqtt.sock");
    let broker = serve(
        &folder,
        &[
            &format!("tls://127.0.0.1:0?cert={own}&key={key}"),
            &format!("tls://127.0.0.1:0?cert={own}&key={key}&client_auth=required&ca={ca}&name=m"),
            &format!("unix://{}?mode=0604", socket.display()),
        ],
    );
    let mode = std::fs::metadata(&socket).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o604);
    let [tls, mutual, _] = addresses(&broker).try_into().expect("three listeners");
    let (tls_port, mutual_port) = (port(&tls), port(&mutual));
    let tls = ["-h", "localhost", "-p", &tls_port, "--cafile", &ca];
    let (device, device_key) = (certificates.path("device.pem"), certificates.path("device.key"));
    let mutual = ["-h", "localhost", "-p", &mutual_port, "--cafile", &ca];
    let known = [&mutual[..], &["--cert", &device, "--key", &device_key]].concat();
    let socket_text = socket.display().to_string();
    let unix = ["--unix", &socket_text];
    deliver(&tls, &tls);
    deliver(&known, &unix);
    deliver(&unix, &known);
    deliver(&unix, &tls);
    let stranger = publish(&mutual, "no certificate");
    assert!(!stranger.status.success(), "{stranger:?}");
    let nobody = publish(&["-h", "localhost", "-p", &tls_port], "no TLS");
    assert!(!nobody.status.success(), "{nobody:?}");
    let (code, said) = broker.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no certificate") && said.contains("MQTT without TLS"), "{said}");
    assert!(!socket.exists(), "the socket goes with the broker");
}

/// What it says that it listens on, in order.
fn addresses(broker: &Broker) -> Vec<String> {
    let said = broker.started.iter().filter_map(|line| line.split_once("address="));
    said.map(|(_, rest)| rest.trim_matches('"').to_owned()).collect()
}

fn port(address: &str) -> String {
    address.rsplit(':').next().expect("a port").to_owned()
}

// T07
#[test]
fn a_new_certificate_is_taken_while_a_client_stays_connected() {
    let folder = Folder::new("reload");
    let certificates = Certificates::new(&folder);
    let first = certificates.write("own", &["localhost"]);
    let (own, key) = (certificates.path("own.pem"), certificates.path("own.key"));
    let broker = serve(&folder, &[&format!("tls://127.0.0.1:0?cert={own}&key={key}")]);
    let shown = || {
        let mut client = certificates.client(broker.address());
        exchange(&mut client, CONNECT, CONNACK);
        client.conn.peer_certificates().expect("a certificate")[0].clone().into_owned()
    };
    let mut staying = certificates.client(broker.address());
    let other_id = [&CONNECT[..14], b"stay"].concat();
    exchange(&mut staying, &other_id, CONNACK);
    assert_eq!(shown(), first);

    let second = certificates.write("own", &["localhost"]);
    let until = Instant::now() + PATIENCE;
    while shown() != second {
        assert!(Instant::now() < until, "the new certificate is not used");
        std::thread::sleep(Duration::from_millis(50));
    }
    exchange(&mut staying, PINGREQ, PINGRESP);

    std::fs::write(&own, "no certificate").expect("writes");
    broker.lines_until("go on with the certificates from before");
    assert_eq!(shown(), second);
    broker.signal(libc::SIGHUP);
    broker.lines_until("go on with the certificates from before");
    let third = certificates.write("own", &["localhost"]);
    broker.lines_until("certificates were read again");
    assert_eq!(shown(), third);
    exchange(&mut staying, PINGREQ, PINGRESP);
}

// T11, W19
#[test]
fn mqtt_is_spoken_over_wss_and_ends_with_a_close_frame() {
    let folder = Folder::new("wss");
    let certificates = Certificates::new(&folder);
    certificates.write("own", &["localhost"]);
    let (own, key) = (certificates.path("own.pem"), certificates.path("own.key"));
    let broker = serve(&folder, &[&format!("wss://127.0.0.1:0/here?cert={own}&key={key}")]);
    let mut client = certificates.client(broker.address());
    let request = "GET /here HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    // A client that does not wait for the answer.
    client.write_all(request.as_bytes()).expect("sends");
    client.write_all(&frame(CONNECT)).expect("sends");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    exchange(&mut client, b"", &[&[0x82, 4], CONNACK].concat());
    exchange(&mut client, &frame(PINGREQ), &[&[0x82, 2], PINGRESP].concat());
    broker.signal(libc::SIGTERM);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"\x88\x02\x03\xe9", "going away: 1001");
}

/// A masked binary frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x82, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

// T12
#[test]
fn a_client_behind_a_proxy_is_known_by_its_own_address() {
    let folder = Folder::new("proxy");
    let broker = serve(&folder, &["tcp://127.0.0.1:0?proxy=127.0.0.0/8&max_connections_per_ip=1"]);
    let header = |client: u8| format!("PROXY TCP4 203.0.113.{client} 10.0.0.1 4711 1883\r\n");
    // It has begun to say who it is.
    let begin = |client: u8| {
        let mut stream = stream(broker.address());
        stream.write_all(&header(client).as_bytes()[..9]).expect("sends");
        stream
    };
    let end = |mut stream: TcpStream, client: u8| {
        let id = [&CONNECT[..14], format!("id-{client}").as_bytes()].concat();
        let _ = stream.write_all(&[&header(client).as_bytes()[9..], &id].concat());
        let mut answer = [0; 4];
        let came = stream.read_exact(&mut answer).is_ok();
        (stream, came && answer == CONNACK)
    };
    let come = |client: u8| end(begin(client), client);
    let begun = [11, 12, 13].map(|client| (begin(client), client));
    std::thread::sleep(std::time::Duration::from_millis(100));
    let all = begun.map(|(stream, client)| end(stream, client));
    assert!(all.iter().all(|(_, came)| *came), "nobody counts for the proxy's address: {all:?}");
    let (one, came) = come(1);
    assert!(came);
    let (_two, came) = come(2);
    assert!(came, "another client of the same proxy");
    assert!(!come(1).1, "one from each address");
    drop(one);
    let until = Instant::now() + PATIENCE;
    while !come(1).1 {
        assert!(Instant::now() < until, "its place is free again");
    }
    let mut without = stream(broker.address());
    without.write_all(CONNECT).expect("sends");
    assert_eq!(without.read(&mut [0; 8]).unwrap_or(0), 0, "no header");
    assert!(has(&broker.lines_until("PROXY header"), "switch it on there"));
}

#[test]
fn what_is_wrong_with_a_listener_is_said_with_its_key_and_the_nearest_that_is_right() {
    let folder = Folder::new("wrong");
    let certificates = Certificates::new(&folder);
    certificates.write("own", &["localhost"]);
    certificates.write("other", &["localhost"]);
    let (own, key) = (certificates.path("own.pem"), certificates.path("own.key"));
    let (missing, foreign) = (certificates.path("own.ke"), certificates.path("other.key"));
    let table = [
        ("tsl://127.0.0.1".to_owned(), "nearest: tls://"),
        ("tls://127.0.0.1".to_owned(), "?cert=FILE&key=FILE"),
        (format!("tls://127.0.0.1?cert={own}&key={missing}"), "nearest: own.key"),
        (format!("tls://127.0.0.1?cert={own}&key={foreign}"), "does not belong"),
        (format!("tls://127.0.0.1?certt={own}&key={key}"), "nearest valid key: cert"),
        (format!("tls://127.0.0.1?cert={own}"), "1 certificates and 0 keys"),
        (format!("tcp://127.0.0.1?cert={own}"), "for tls:// and wss://"),
        ("tcp://127.0.0.1?proxy=10.0.0.1/8".to_owned(), "has bits set"),
        ("unix:///run/x?mode=rw".to_owned(), "permissions such as"),
        (
            format!("tls://127.0.0.1?cert={own}&key={key}&tls_cipher_suites=AES"),
            "there is no cipher suite \"AES\"",
        ),
        (
            format!("tls://127.0.0.1?cert={own}&key={key}&client_auth=required"),
            "tls_client_ca_file",
        ),
    ];
    for (url, sentence) in table {
        let output = ringmain().args(["check-config", "--listen", &url]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains(sentence), "{url}: {said}");
    }
    let url = format!("wss://127.0.0.1:0/here?cert={own}&key={key}&tls_versions=1.3");
    let output = ringmain().args(["check-config", "--listen", &url]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("url = \"wss://127.0.0.1:0/here\""),
        "{output:?}"
    );
}

#[test]
fn the_certificate_of_a_listener_is_a_metric() {
    // T07
    let folder = Folder::new("expiry");
    let certificates = Certificates::new(&folder);
    certificates.write("own", &["localhost"]);
    let (own, key) = (certificates.path("own.pem"), certificates.path("own.key"));
    let listen = format!("tls://127.0.0.1:0?cert={own}&key={key}&name=front");
    let broker = serve(&folder, &[&listen]);
    let mut client = certificates.client(broker.address());
    exchange(&mut client, CONNECT, CONNACK);
    let socket: PathBuf = folder.data().join("admin.sock");
    let mut admin = std::os::unix::net::UnixStream::connect(socket).expect("an admin socket");
    admin
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .expect("asks");
    let mut text = String::new();
    admin.read_to_string(&mut text).expect("an answer");
    let line = format!(
        "ringmain_tls_certificate_expiry_timestamp_seconds{{listener=\"front\",file=\"{own}\",subject="
    );
    assert!(text.contains(&line), "{text}");
    let full = text.lines().filter(|l| l.starts_with("ringmain_ring_tls_full_total"));
    let sum: u64 = full.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(sum, 1, "{text}");
}

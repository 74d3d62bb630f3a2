use ringmain_mqtt::ReasonCode;

use super::*;
use crate::Request;
use crate::fixture::{self, ask};
use crate::users::Editor;

const METHOD: &str = "SCRAM-SHA-256";

/// RFC 7677 3, and the same with SHA-512 as Python's hashlib and hmac compute it (user, password, salt, nonces
/// and rounds are those of the RFC).
const VECTORS: &[(Method, &str, &str)] = &[
    (
        Method::Sha256,
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    (
        Method::Sha512,
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
        "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    ),
];
const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn keys(method: Method) -> StoredKeys {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    StoredKeys::with_salt(method, "pencil", &salt, 4096).expect("keys")
}

// AU11: RFC 7677 3
#[test]
fn the_vectors_of_the_rfc_are_met_byte_for_byte() {
    for (method, proof, signature) in VECTORS {
        let first = ClientFirst::parse(FIRST.as_bytes()).expect("a first message");
        let (data, state) = begin(&first, SERVER_NONCE, keys(*method), None, 0);
        assert_eq!(std::str::from_utf8(&data), Ok(SERVER_FIRST));
        let last = format!("{FINAL},p={proof}");
        let last = ClientFinal::parse(last.as_bytes()).expect("a last message");
        let data = finish(&state, &last).expect("the proof fits");
        assert_eq!(std::str::from_utf8(&data), Ok(format!("v={signature}").as_str()));
    }
}

#[test]
fn any_changed_part_of_the_last_message_is_refused() {
    let (_, proof, _) = VECTORS.first().expect("a vector");
    let first = ClientFirst::parse(FIRST.as_bytes()).expect("a first message");
    let (_, state) = begin(&first, SERVER_NONCE, keys(Method::Sha256), None, 0);
    let refused = |text: String| {
        let last = ClientFinal::parse(text.as_bytes()).expect("a last message");
        finish(&state, &last).expect_err(&text).reason
    };
    let wrong = proof.replacen('d', "e", 1);
    assert_eq!(refused(format!("{FINAL},p={wrong}")), ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(refused(format!("{FINAL},p=AAAA")), ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(refused(format!("{FINAL}x,p={proof}")), ReasonCode::NOT_AUTHORIZED);
    let other_header = FINAL.replace("c=biws", "c=eSws");
    assert_eq!(refused(format!("{other_header},p={proof}")), ReasonCode::NOT_AUTHORIZED);
    assert_eq!(refused(format!("{FINAL},x=1,p={proof}")), ReasonCode::BAD_USER_NAME_OR_PASSWORD);
}

#[test]
fn first_messages_are_read_as_the_rfc_says() {
    let parsed = |text: &str| ClientFirst::parse(text.as_bytes()).map(|first| first.username);
    assert_eq!(parsed("n,,n=a=2Cb=3Dc,r=x").as_deref(), Ok("a,b=c"));
    assert_eq!(parsed("y,a=user,n=user,r=x,e=later").as_deref(), Ok("user"));
    // SASLprep: soft hyphen goes, the ligature is written out (RFC 4013 3).
    assert_eq!(parsed("n,,n=I\u{ad}X,r=x").as_deref(), Ok("IX"));
    assert_eq!(parsed("n,,n=\u{2168},r=x").as_deref(), Ok("IX"));
    for (text, says) in [
        ("", "no header"),
        ("p=tls-unique,,n=user,r=x", "channel binding"),
        ("z,,n=user,r=x", "neither n nor y"),
        ("n,n=user,r=x", "n= is missing"),
        ("n,b=user,n=user,r=x", "something else than a="),
        ("n,a=admin,n=user,r=x", "somebody else"),
        ("n,,m=1,n=user,r=x", "mandatory (m=)"),
        ("n,,n=user", "r= is missing"),
        ("n,,n=user,r=", "nonce"),
        ("n,,n=user,r=a b", "nonce"),
        ("n,,n=user,r=a,m=x", "mandatory"),
        ("n,,n=us=er,r=a", "2C or 3D"),
        ("n,,n=,r=a", "the name is empty"),
        ("n,,n=\u{7},r=a", "SASLprep"),
        ("n,,n=a\0,r=a", "contains a 0"),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
    assert!(ClientFirst::parse(&[b'n'; MESSAGE_BYTES_MAX + 1]).is_err());
    assert!(ClientFirst::parse(b"n,,n=\xff,r=a").is_err());
}

#[test]
fn stored_keys_read_back_as_they_are() {
    for method in [Method::Sha256, Method::Sha512] {
        let keys = keys(method);
        assert_eq!(keys.to_string().parse(), Ok(keys));
    }
    for text in [
        "",
        "SCRAM-SHA-1$1:AA==$AA==:AA==",
        "SCRAM-SHA-256$0:AA==$AA==:AA==",
        "SCRAM-SHA-256$1:AA==$AA==:AA==",
    ] {
        assert!(text.parse::<StoredKeys>().is_err(), "{text}");
    }
}

/// A client by the book, to talk to the source.
struct Client {
    bare: String,
    password: &'static str,
}

impl Client {
    fn first(name: &str, password: &'static str) -> (Self, Request) {
        let bare = format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL");
        let mut request = fixture::client("c", "", "");
        request.method = Some(METHOD.into());
        request.data = Some(format!("n,,{bare}").into_bytes().into());
        (Self { bare, password }, request)
    }

    fn last(&self, request: &mut Request, server_first: &[u8], exchange: Box<Exchange>) {
        answer(request, &self.bare, self.password, server_first, exchange);
    }
}

/// Puts the client's last message into a request.
pub(crate) fn answer(
    request: &mut Request,
    bare: &str,
    password: &str,
    server_first: &[u8],
    exchange: Box<Exchange>,
) {
    let text = std::str::from_utf8(server_first).expect("UTF-8");
    let field = |name: &str| {
        let mut parts = text.split(',');
        parts.find_map(|part| part.strip_prefix(name)).expect(name).to_owned()
    };
    let salt = STANDARD.decode(field("s=")).expect("base64");
    let rounds = field("i=").parse().expect("a number");
    let mac = Method::Sha256.mac();
    let salted = mac.pbkdf2(password.as_bytes(), &salt, rounds, 32);
    let key = mac.code(&salted, &[b"Client Key"]);
    let stored = mac.digest().digest(&[&key]);
    let without = format!("c=biws,r={}", field("r="));
    let said = format!("{bare},{text},{without}");
    let signature = mac.code(&stored, &[said.as_bytes()]);
    let proof: Vec<u8> = key.iter().zip(&*signature).map(|(a, b)| a ^ b).collect();
    request.data = Some(format!("{without},p={}", STANDARD.encode(proof)).into_bytes().into());
    request.phase = Phase::Continue(exchange);
}

fn source(folder: &tempfile::TempDir) -> Arc<dyn Source> {
    let file = folder.path().join("users");
    let mut user = Record::new(By::Username, "user");
    user.scram = vec![StoredKeys::make(Method::Sha256, "pencil", 4096).expect("keys")];
    user.superuser = true;
    let mut editor = Editor::open(&file).expect("a new file");
    editor.put(&user).expect("fits");
    editor.put(&Record::new(By::Username, "keyless")).expect("fits");
    editor.save().expect("written");
    let (method, iterations, reload_interval_s) = (Method::Sha256, 4096, 1);
    let config = Config { file, method, iterations, reload_interval_s };
    config.build(&fixture::context()).expect("a source")
}

fn challenge(source: &dyn Source, request: &Request) -> (Box<[u8]>, Box<Exchange>) {
    match fixture::run(source.decide(ask(request))) {
        Decision::Challenge { data, exchange } => (data, exchange),
        other => panic!("{other:?}"),
    }
}

fn login(source: &dyn Source, name: &str, password: &'static str) -> Decision {
    let (client, mut request) = Client::first(name, password);
    let (data, exchange) = challenge(source, &request);
    client.last(&mut request, &data, exchange);
    fixture::run(source.decide(ask(&request)))
}

// AU11
#[test]
fn a_user_logs_in_and_hears_that_the_server_knows_the_password_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source(&folder);
    let Decision::Allow(identity) = login(&*source, "user", "pencil") else { panic!("refused") };
    assert_eq!(identity.username.as_deref(), Some("user"));
    assert!(identity.superuser && identity.data.expect("data").starts_with(b"v="));
    for (name, password) in [("user", "pencil2"), ("nobody", "pencil"), ("keyless", "pencil")] {
        let decision = login(&*source, name, password);
        let Decision::Deny(denial) = decision else { panic!("{name}: {decision:?}") };
        assert_eq!(denial.reason, ReasonCode::BAD_USER_NAME_OR_PASSWORD, "{name}");
    }
}

// AU16
#[test]
fn who_does_not_exist_gets_a_salt_like_everybody_and_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    let salt = |source: &dyn Source, name: &str| {
        let data = challenge(source, &Client::first(name, "x").1).0;
        let text = String::from_utf8(data.into()).expect("UTF-8");
        text.split(",s=").nth(1).expect("a salt").to_owned()
    };
    let first = source(&folder);
    let (nobody, other) = (salt(&*first, "nobody"), salt(&*first, "other"));
    assert_ne!(nobody, other);
    assert_eq!(nobody.len(), salt(&*first, "user").len());
    // A restart reads the secret from the file, so nothing changes for anybody.
    let again = Config { file, method: Method::Sha256, iterations: 4096, reload_interval_s: 1 };
    let again = again.build(&fixture::context()).expect("a source");
    assert_eq!(salt(&*again, "nobody"), nobody);
}

#[test]
fn an_exchange_that_takes_too_long_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source(&folder);
    let (client, mut request) = Client::first("user", "pencil");
    let (data, exchange) = challenge(&*source, &request);
    client.last(&mut request, &data, exchange);
    let late = Ask { now_s: ask(&request).now_s + EXCHANGE_S, ..ask(&request) };
    assert!(matches!(fixture::run(source.decide(late)), Decision::Deny(_)));
}

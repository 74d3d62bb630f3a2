use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::thread;

use base64::Engine;
use ringmain_acl::{CLIENT_RULES_MAX, ClientRules, NoMatch, QosSet, Verb};
use ringmain_mqtt::{QoS, ReasonCode};
use serde_json::json;

use super::*;
use crate::Identity;
use crate::fixture::{self, ask};

/// See fixtures/README.md.
const TOKENS: &str = include_str!("../../../fixtures/tokens.json");
const JWKS: &str = include_str!("../../../fixtures/jwks.json");
const SECRET: &str = "a secret that is longer than thirty-two bytes";

fn token(name: &str) -> String {
    let tokens: Map<String, Value> = serde_json::from_str(TOKENS).expect("JSON");
    tokens.get(name).and_then(Value::as_str).expect(name).to_owned()
}

fn fixture_path(name: &str) -> String {
    format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn source(text: &str) -> Jwt {
    Jwt::new(toml::from_str(text).expect(text)).expect(text)
}

fn file(key: &str, name: &str) -> Jwt {
    source(&format!("{key} = \"{}\"", fixture_path(name)))
}

fn decide(source: &Jwt, token: &str) -> Decision {
    fixture::run_real(source.decide(ask(&fixture::client("dev1", "alice", token))))
}

fn is_allowed(decision: &Decision) -> bool {
    matches!(decision, Decision::Allow(_))
}

/// A token with this header and these claims, by the secret. (RFC 7515 3.1)
fn sealed(header: &Value, claims: &Value) -> String {
    let encoded = |part: &[u8]| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(part);
    let [header, claims] = [header, claims].map(|part| encoded(part.to_string().as_bytes()));
    let message = format!("{header}.{claims}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encoded(tag.as_ref()))
}

/// A token with these claims, by the secret.
fn signed(claims: &Value) -> String {
    sealed(&json!({"alg": "HS256"}), claims)
}

fn with_secret(more: &str) -> Jwt {
    source(&format!("secret = \"{SECRET}\"\n{more}"))
}

// AU09: tokens made by PyJWT
#[test]
fn a_key_of_each_type_verifies_its_tokens_and_no_others() {
    let set = file("jwks_file", "jwks.json");
    for name in ["rs256", "ps256", "es256", "es384", "eddsa"] {
        assert!(is_allowed(&decide(&set, &token(name))), "{name}");
    }
    for (key, good) in
        [("rsa.pem", &["rs256", "ps256"][..]), ("ec.pem", &["es256"]), ("ed.pem", &["eddsa"])]
    {
        let source = file("public_key_file", key);
        for name in ["hs256", "rs256", "ps256", "es256", "es384", "eddsa", "confused", "none"] {
            let decision = decide(&source, &token(name));
            assert_eq!(is_allowed(&decision), good.contains(&name), "{key} {name}: {decision:?}");
        }
    }
    assert!(is_allowed(&decide(&with_secret(""), &token("hs256"))));
}

// AU09: RFC 8725 2.1
#[test]
fn neither_none_nor_a_public_key_as_a_secret_admits() {
    let sources =
        [file("jwks_file", "jwks.json"), file("public_key_file", "rsa.pem"), with_secret("")];
    for source in &sources {
        for name in ["none", "confused"] {
            let decision = decide(source, &token(name));
            assert!(matches!(decision, Decision::Deny(_)), "{name}: {decision:?}");
        }
    }
    let pem = std::fs::read_to_string(fixture_path("rsa.pem")).expect("a key");
    let error = KeySet::secret(pem.as_bytes()).expect_err("a key is no secret");
    assert!(error.contains("public_key_file"), "{error}");
}

#[test]
fn a_changed_token_is_refused_and_what_is_no_token_is_ignored() {
    let source = with_secret("");
    let good = token("hs256");
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let mut other = signature.to_owned();
    other.replace_range(..1, if signature.starts_with('A') { "B" } else { "A" });
    assert!(matches!(decide(&source, &format!("{head}.{other}")), Decision::Deny(_)));
    assert!(matches!(decide(&source, &format!("{head}.")), Decision::Deny(_)));
    assert!(matches!(decide(&source, &"a.".repeat(2).repeat(20_000)), Decision::Ignore));
    assert!(matches!(decide(&source, &format!("a.b.{}", "c".repeat(20_000))), Decision::Deny(_)));
    assert!(matches!(decide(&source, "a password"), Decision::Ignore));
    assert!(matches!(decide(&source, ""), Decision::Ignore));
    // A key set that does not have the key leaves the token to others.
    assert!(matches!(
        decide(&file("jwks_file", "jwks.json"), &signed_by("other")),
        Decision::Ignore
    ));
}

fn signed_by(kid: &str) -> String {
    sealed(&json!({"alg": "HS256", "kid": kid}), &json!({"exp": 2_000_000_000}))
}

/// The tests' now is 1,700,000,100.
const NOW: u64 = 1_700_000_100;

// AU09
#[test]
fn times_are_held_with_leeway_and_the_connection_ends_with_the_token() {
    let source = with_secret("leeway_s = 10");
    let at = |claims: Value| decide(&source, &signed(&claims));
    let Decision::Allow(identity) = at(json!({"exp": NOW + 60})) else { panic!("refused") };
    assert_eq!(identity.expires_at, Some(NOW + 70));
    assert!(is_allowed(&at(json!({"exp": NOW - 9}))));
    assert!(is_allowed(&at(json!({"exp": NOW + 60, "nbf": NOW + 10, "iat": NOW as f64 + 9.5}))));
    for claims in [
        json!({}),
        json!({"exp": NOW - 10}),
        json!({"exp": "soon"}),
        json!({"exp": -1}),
        json!({"exp": NOW + 60, "nbf": NOW + 11}),
        json!({"exp": NOW + 60, "iat": NOW + 11}),
    ] {
        let decision = at(claims.clone());
        assert!(matches!(decision, Decision::Deny(_)), "{claims}: {decision:?}");
    }
    let forever = with_secret("require_exp = false");
    assert!(is_allowed(&decide(&forever, &signed(&json!({})))));
}

// AU09
#[test]
fn claims_are_held_against_the_client() {
    let source = with_secret(
        "verify_claims = { sub = \"${clientid}\", aud = \"mqtt\", user = \"${username}\" }\nrequire_exp = false",
    );
    let good = json!({"sub": "dev1", "aud": ["x", "mqtt"], "user": "alice"});
    assert!(is_allowed(&decide(&source, &signed(&good))));
    for (claim, value) in
        [("sub", json!("dev2")), ("aud", json!(["x"])), ("user", Value::Null), ("sub", json!({}))]
    {
        let mut bad = good.clone();
        bad[claim] = value;
        assert!(matches!(decide(&source, &signed(&bad)), Decision::Deny(_)), "{bad}");
    }
    assert!(
        source.inputs().has(Inputs::CLIENT_ID),
        "another client must not use its cached decision"
    );
}

fn identity(source: &Jwt, claims: &Value) -> Identity {
    match decide(source, &signed(claims)) {
        Decision::Allow(identity) => *identity,
        other => panic!("{claims}: {other:?}"),
    }
}

// AU09 AU17
#[test]
fn a_token_makes_nobody_a_superuser_unless_told_so() {
    let claims = json!({"is_superuser": true, "name": "bob", "t": 7});
    let plain = with_secret("require_exp = false");
    assert!(!identity(&plain, &claims).superuser);
    let told = with_secret(
        "require_exp = false\nsuperuser_claim = \"is_superuser\"\nusername_claim = \"name\"\nattributes = { tenant = \"t\" }",
    );
    let bob = identity(&told, &claims);
    assert!(bob.superuser);
    assert_eq!((bob.username.as_deref(), bob.attribute("tenant")), (Some("bob"), Some("7")));
    assert!(!identity(&told, &json!({"is_superuser": "true", "name": "bob"})).superuser);
    assert!(matches!(decide(&told, &signed(&json!({}))), Decision::Deny(_)));
}

// AU09
#[test]
fn both_forms_of_the_acl_claim_are_read() {
    let source = with_secret("require_exp = false");
    let read = |claim: &Value| {
        let rules = super::acl::written(claim).expect("valid");
        let compiled = ClientRules::new(&rules, NoMatch::Next).expect("valid");
        assert_eq!(identity(&source, &json!({"acl": claim})).rules, Some(compiled));
        rules
    };
    let rules = read(&json!({"pub": ["a/${clientid}"], "sub": ["eq b/#"], "all": ["c"]}));
    let seen: Vec<_> = rules.iter().map(|r| (r.allow, r.action, &*r.topic, r.eq)).collect();
    let expected = [
        (true, Verb::Publish, "a/${clientid}", false),
        (true, Verb::Subscribe, "b/#", true),
        (true, Verb::All, "c", false),
    ];
    assert_eq!(seen, expected);
    let rules = read(&json!([
        {"permission": "allow", "action": "publish", "topic": "a", "qos": [0, 2], "retain": false},
        {"permission": "deny", "action": "all", "topics": ["x", "eq #"], "qos": 1, "retain": "all"},
    ]));
    assert_eq!(rules.len(), 3);
    let first = rules.first().expect("a rule");
    let both = QosSet::NONE.with(QoS::AtMostOnce).with(QoS::ExactlyOnce);
    assert_eq!((first.qos, first.retain), (Some(both), Some(false)));
    let last = rules.last().expect("a rule");
    assert_eq!((last.allow, &*last.topic, last.eq, last.retain), (false, "#", true, None));
    for bad in [
        json!("all"),
        json!({"publish": ["a"]}),
        json!({"pub": ["a/#/b"]}),
        json!({"pub": ["a/${nobody}"]}),
        json!([{"permission": "allow", "action": "publish"}]),
        json!([{"permission": "allow", "action": "read", "topic": "a"}]),
        json!([{"permission": "allow", "action": "all", "topic": "a", "qos": 3}]),
        json!([{"permission": "allow", "action": "all", "topic": "a", "qos": []}]),
        json!([{"permission": "allow", "action": "all", "topic": "a", "clientid": "x"}]),
        json!({"pub": vec!["a"; CLIENT_RULES_MAX + 1]}),
    ] {
        let decision = decide(&source, &signed(&json!({"acl": bad})));
        assert!(matches!(decision, Decision::Deny(_)), "{bad}: {decision:?}");
    }
}

#[test]
fn a_token_in_the_user_name_is_replaced_by_a_claim() {
    let text = "from = \"username\"\nrequire_exp = false\n";
    let named = with_secret(&format!("{text}username_claim = \"name\""));
    let mut request = fixture::client("dev1", &signed(&json!({"name": "bob"})), "");
    let Decision::Allow(bob) = fixture::run(named.decide(ask(&request))) else { panic!("refused") };
    assert_eq!(bob.username.as_deref(), Some("bob"));
    request.username = Some(signed(&json!({})).into());
    assert!(matches!(fixture::run(with_secret(text).decide(ask(&request))), Decision::Deny(_)));
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let ec = fixture_path("jwks.json");
    for (text, says) in [
        ("", "exactly one of secret"),
        ("secret = \"short\"", "32 or more"),
        (&format!("secret = \"{SECRET}\"\njwks_url = \"http://x\""), "exactly one of"),
        ("jwks_url = \"ftp://x\"", "neither http:// nor https://"),
        ("jwks_url = \"http://x\"\nca_file = \"/x\"", "ca_file is for https://"),
        (&format!("public_key_file = \"{ec}\""), "not a public key"),
        ("jwks_file = \"/nonexistent\"", "/nonexistent: No such file"),
    ] {
        let error = Jwt::new(toml::from_str(text).expect(text)).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
    let secret = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}).to_string();
    assert!(KeySet::parse(secret.as_bytes(), keys::Origin::Network).is_err(), "everybody knows it");
}

/// A server that answers each request with what it is given.
fn server(answers: impl Fn(usize) -> Vec<u8> + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or_default();
            let text =
                String::from_utf8_lossy(request.get(..read).unwrap_or_default()).into_owned();
            assert!(text.starts_with("GET /keys HTTP/1.1\r\nhost: 127.0.0.1:"), "{text}");
            let number = counted.fetch_add(1, Relaxed);
            let _ = stream.write_all(&answers(number));
        }
    });
    (url, count)
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The key set without one key.
fn without(kid: &str) -> String {
    let mut set: Value = serde_json::from_str(JWKS).expect("JSON");
    let keys = set.get_mut("keys").and_then(Value::as_array_mut).expect("keys");
    keys.retain(|key| key.get("kid").and_then(Value::as_str) != Some(kid));
    set.to_string()
}

fn at<'a>(request: &'a crate::Request, now_s: u64) -> Ask<'a> {
    Ask { now_s, ..ask(request) }
}

// AU09: key rotation without a restart
#[test]
fn an_unknown_key_is_looked_for_but_not_for_everybody_who_makes_one_up() {
    let (url, count) = server(|n| ok(&if n == 0 { without("e1") } else { JWKS.to_owned() }));
    let source = source(&format!("jwks_url = \"{url}\""));
    let (old, new) =
        (fixture::client("c", "", &token("rs256")), fixture::client("c", "", &token("es256")));
    let made_up = fixture::client("c", "", &signed_by("made-up"));
    fixture::run_real(async {
        source.upkeep(NOW).await.expect("keys");
        assert!(is_allowed(&source.decide(at(&old, NOW)).await));
        assert!(
            matches!(source.decide(at(&new, NOW + 1)).await, Decision::Ignore),
            "asked a second ago"
        );
        assert_eq!(count.load(Relaxed), 1);
        let generation = source.generation();
        assert!(is_allowed(&source.decide(at(&new, NOW + UNKNOWN_KEY_S)).await), "rotated");
        assert_ne!(source.generation(), generation);
        assert_eq!(count.load(Relaxed), 2);
        for n in 0..50 {
            let decision = source.decide(at(&made_up, NOW + UNKNOWN_KEY_S + n % 9)).await;
            assert!(matches!(decision, Decision::Ignore));
        }
        assert_eq!(count.load(Relaxed), 2);
    });
}

// AU09
#[test]
fn the_last_good_keys_stay_when_the_server_fails() {
    let (url, _) = server(|n| match n {
        0 => ok(JWKS),
        1 => b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec(),
        2 => ok("{\"keys\": []}"),
        3 => b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
            .to_vec(),
        4 => ok(&"x".repeat(fetch::BODY_BYTES_MAX + 1)),
        _ => Vec::new(),
    });
    let source = source(&format!("jwks_url = \"{url}\""));
    let request = fixture::client("c", "", &token("rs256"));
    fixture::run_real(async {
        source.upkeep(NOW).await.expect("keys");
        for says in ["500", "no key that can", "302", "limit", "connection"] {
            let error = source.upkeep(NOW).await.expect_err(says);
            assert!(error.contains(says) && error.contains(&url), "{says}: {error}");
            assert!(is_allowed(&source.decide(at(&request, NOW)).await), "{says}");
        }
        assert_eq!(source.generation(), 2);
    });
}

#[test]
fn without_any_keys_it_says_that_it_cannot_tell() {
    let (url, _) = server(|_| b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n".to_vec());
    let source = source(&format!("jwks_url = \"{url}\""));
    let decision = decide(&source, &token("rs256"));
    assert!(matches!(&decision, Decision::Failed(text) if text.contains("503")), "{decision:?}");
}

// AU09: over TLS, with a certificate of an authority of our own
#[test]
fn https_is_used_with_the_authority_that_is_given_and_no_other() {
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).expect("written");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    fixture::run_real(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&ok(JWKS)).await;
                let _ = stream.shutdown().await;
            }
        });
        let url = format!("https://localhost:{port}/keys");
        let trusting = Fetcher::new(&url, Some(&ca_file)).expect("a fetcher");
        assert_eq!(trusting.get().await.as_deref(), Ok(JWKS.as_bytes()));
        let other =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&ca_file, other.cert.pem()).expect("written");
        let wary = Fetcher::new(&url, Some(&ca_file)).expect("a fetcher");
        let error = wary.get().await.expect_err("not its authority");
        assert!(error.contains("certificate"), "{error}");
    });
}

#[test]
fn a_denial_says_bad_credentials_or_not_authorized() {
    let source = with_secret("");
    let reason = |token: &str| match decide(&source, token) {
        Decision::Deny(denial) => denial.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&token("none")), ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(reason(&signed(&json!({"exp": 1}))), ReasonCode::NOT_AUTHORIZED);
}

// AU18
#[test]
fn made_up_keys_do_not_take_the_room_of_clients_whose_key_is_known() {
    let source = file("jwks_file", "jwks.json");
    let source = Jwt {
        fetcher: Some(Fetcher::new("http://127.0.0.1:1/", None).expect("a fetcher")),
        ..source
    };
    let made_up = fixture::client("c", "", &signed_by("made-up"));
    let known = fixture::client("c", "", &token("rs256"));
    fixture::run(async {
        // Somebody reads the keys, and is not done.
        let _reading = source.asked_s.lock().await;
        let mut waiting: Vec<_> =
            (0..UNKNOWN_KEY_WAITING_MAX).map(|_| source.decide(ask(&made_up))).collect();
        for decision in &mut waiting {
            std::future::poll_fn(|context| {
                assert!(decision.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        assert!(matches!(source.decide(ask(&made_up)).await, Decision::Busy));
        assert!(is_allowed(&source.decide(ask(&known)).await));
    });
}

// RFC 7517 4.4: what the key says of its algorithm binds
#[test]
fn a_key_for_one_algorithm_verifies_no_other() {
    let mut set: Value = serde_json::from_str(JWKS).expect("JSON");
    let keys = set.get_mut("keys").and_then(Value::as_array_mut).expect("keys");
    for key in keys.iter_mut().filter(|key| key["kid"] == "r1") {
        key["alg"] = json!("RS256");
    }
    let set = KeySet::parse(set.to_string().as_bytes(), keys::Origin::Network).expect("keys");
    let source = file("jwks_file", "jwks.json");
    source.keys.store(Arc::new(set));
    assert!(is_allowed(&decide(&source, &token("rs256"))));
    assert!(matches!(decide(&source, &token("ps256")), Decision::Deny(_)));
}

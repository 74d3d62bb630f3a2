use ringmain_acl::ClientCertificate;

use super::*;
use crate::fixture::{self, ask};

fn source(text: &str) -> Arc<dyn Source> {
    let config: Config = toml::from_str(text).expect(text);
    config.build(&fixture::context()).expect(text)
}

fn decide(text: &str, request: &Request) -> Decision {
    fixture::run(source(text).decide(ask(request)))
}

// AU14
#[test]
fn the_first_rule_that_holds_and_decides_does() {
    let text = r#"
        rules = [
            { when = { username = "eve" }, then = "deny" },
            { when = { client_id = { regex = "^dev-[0-9]+$" }, peer = { cidr = "192.0.2.0/24" } }, then = "allow" },
            { when = { client_id = { prefix = "x" } }, then = "ignore" },
            { when = { client_id = ["x1", "a", "b"] }, then = "allow" },
            { when = { username = { present = false }, client_id = { not = { prefix = "z" } } }, then = "deny" },
        ]"#;
    let kind = |id: &str, user: &str| match decide(text, &fixture::client(id, user, "")) {
        Decision::Allow(_) => "allow",
        Decision::Deny(_) => "deny",
        _ => "ignore",
    };
    for (id, user, expected) in [
        ("dev-7", "bob", "allow"),
        ("dev-7", "eve", "deny"),
        ("dev-7x", "bob", "ignore"),
        ("x1", "bob", "ignore"),
        ("b", "bob", "allow"),
        ("c", "", "deny"),
        ("zc", "", "ignore"),
    ] {
        assert_eq!(kind(id, user), expected, "{id} {user}");
    }
    let mut elsewhere = fixture::client("dev-7", "bob", "");
    elsewhere.peer = [198, 51, 100, 1].into();
    assert!(matches!(decide(text, &elsewhere), Decision::Add(_)));
    elsewhere.peer = "::ffff:192.0.2.9".parse().expect("an address");
    assert!(matches!(decide(text, &elsewhere), Decision::Allow(_)));
}

// AU14 AU17
#[test]
fn attributes_are_set_from_the_certificate_and_seen_by_later_rules() {
    let text = r#"
        rules = [
            { set = { tenant = "${cert_common_name}", none = "${cert_subject}x${client_attrs.absent}" } },
            { when = { "client_attrs.tenant" = "acme" }, then = "allow", set = { tier = "gold-${client_attrs.tenant}" } },
        ]"#;
    let mut request = fixture::client("c", "", "");
    let certificate =
        |name: &str| ClientCertificate { common_name: Some(name.into()), ..Default::default() };
    request.certificate = Some(Arc::new(certificate("acme")));
    let Decision::Allow(identity) = decide(text, &request) else { panic!("refused") };
    assert_eq!(identity.attribute("tenant"), Some("acme"));
    assert_eq!(identity.attribute("tier"), Some("gold-acme"));
    assert_eq!(identity.attribute("none"), None);
    request.certificate = Some(Arc::new(certificate("other")));
    let Decision::Add(identity) = decide(text, &request) else { panic!("decided") };
    assert_eq!(identity.attribute("tier"), None);
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused() {
    for (text, says) in [
        ("rules = [{ when = { user = \"a\" } }]", "nearest: \"username\""),
        ("rules = [{ when = { username = { regexp = \"a\" } } }]", "nearest: \"regex\""),
        ("rules = [{ when = { username = { regex = \"(\" } } }]", "username: regex"),
        ("rules = [{ when = { username = { cidr = \"10.0.0.0/8\" } } }]", "peer only"),
        ("rules = [{ when = { peer = { cidr = \"10.0.0.0/99\" } } }]", "not a network"),
        ("rules = [{ wen = { peer = \"a\" } }]", "wen"),
        ("rules = [{ then = \"alow\" }]", "alow"),
    ] {
        let error = toml::from_str::<Config>(text).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

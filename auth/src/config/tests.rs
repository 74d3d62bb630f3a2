use super::*;

fn error(text: &str) -> String {
    let errors = Config::parse(text).expect_err(text);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_valid_one() {
    for (text, says) in [
        ("[authh]\n", "authh: unknown key; nearest valid key: auth"),
        ("[auth]\nallow_anon = true\n", "auth.allow_anon: unknown key; nearest valid key: auth.allow_anonymous"),
        (
            "[auth.cache]\nttl = 3\n",
            "auth.cache.ttl: unknown key; nearest valid key: auth.cache.ttl_s",
        ),
        (
            "[[authentication]]\ntype = \"users\"\nfil = \"x\"\n",
            "authentication[0].fil: unknown key; nearest valid key: authentication[0].file",
        ),
        (
            "[[authentication]]\ntype = \"users\"\nfile = \"x\"\ntimeout = 5\n",
            "authentication[0].timeout: unknown key; nearest valid key: authentication[0].timeout_ms",
        ),
        ("[[authentication]]\ntype = \"user\"\n", "\"user\" is not an authenticator; nearest: \"users\""),
        ("[[authentication]]\nfile = \"x\"\n", "authentication[0].type: is missing: one of users"),
        ("[[authentication]]\ntype = \"users\"\n", "authentication[0].file: is missing"),
        (
            "[[authentication]]\ntype = \"users\"\nfile = \"x\"\nby = \"clientid\"\n",
            "nearest: \"client_id\"",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(says), "{text}\n{error}\n{says}");
    }
}

#[test]
fn all_errors_are_said_at_once() {
    let text = "[auth]\nx = 1\n[[authentication]]\ntype = \"a\"\n[[authentication]]\ntype = \"b\"\n";
    assert_eq!(error(text).lines().count(), 3);
}

#[test]
fn bounds_and_names_are_checked() {
    for (text, says) in [
        ("[auth.hashing]\nworkers = 0\n", "auth.hashing.workers: 0 is not between 1 and 64"),
        (
            "[[authentication]]\ntype = \"users\"\nfile = \"x\"\ntimeout_ms = 0\n",
            "authentication[0].timeout_ms",
        ),
        (
            "[[authentication]]\ntype = \"users\"\nfile = \"x\"\n[[authentication]]\ntype = \"users\"\nfile = \"y\"\n",
            "authentication[1].name: another authenticator is called \"users\" too",
        ),
        ("authentication = 1\n", "authentication: must be a list of tables"),
    ] {
        let error = error(text);
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn an_absent_configuration_admits_nobody() {
    let config = Config::parse("").expect("empty");
    assert!(!config.chain.allow_anonymous && config.chain.entries.is_empty());
}

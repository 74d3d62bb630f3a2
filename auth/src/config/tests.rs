use super::*;

fn error(text: &str) -> String {
    let errors = Config::parse(text).expect_err(text);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_valid_one() {
    for (text, says) in [
        ("[authh]\n", "authh: unknown key; nearest valid key: auth"),
        (
            "[auth]\nallow_anon = true\n",
            "auth.allow_anon: unknown key; nearest valid key: auth.allow_anonymous",
        ),
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
        (
            "[[authentication]]\ntype = \"user\"\n",
            "\"user\" is not an authenticator; nearest: \"users\"",
        ),
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
    let text =
        "[auth]\nx = 1\n[[authentication]]\ntype = \"a\"\n[[authentication]]\ntype = \"b\"\n";
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

const PAGE: &str = include_str!("../../../docs/user/authentication.md");

/// The examples of a page in one language.
fn examples(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    let blocks: Vec<&str> = PAGE.split(&*fence).skip(1).collect();
    blocks.into_iter().filter_map(|block| block.split("```").next())
}

#[test]
fn every_example_of_the_page_is_valid() {
    let tables: Vec<_> = examples("toml").collect();
    assert!(tables.len() >= 11, "there are {}", tables.len());
    for text in tables {
        assert!(Config::parse(text).is_ok(), "{text}\n{:?}", Config::parse(text).err());
    }
    for line in examples("json").flat_map(str::lines) {
        let record = crate::users::Record::parse(line).expect(line);
        let password: &[u8] = if &*record.name == "alice" { b"secret" } else { b"correct horse" };
        assert!(record.hash.expect("a hash").verify(password), "{line}");
    }
}

#[test]
fn every_key_is_on_the_page() {
    use crate::sources::{certificate, client_ids, expression, jwt, scram, users};
    let keys = [
        read::keys::<Common>(),
        read::keys::<Settings>(),
        read::keys::<Cache>(),
        read::keys::<Lockout>(),
        read::keys::<Hashing>(),
        read::keys::<users::Config>(),
        read::keys::<client_ids::Config>(),
        read::keys::<jwt::Config>(),
        read::keys::<certificate::Config>(),
        read::keys::<scram::Config>(),
        read::keys::<expression::Config>(),
        read::keys::<expression::Rule>(),
    ];
    for keys in keys {
        assert!(!keys.is_empty());
        for key in keys {
            let named = [format!("`{key}`"), format!("{key} = "), format!("auth.{key}")];
            assert!(
                named.iter().any(|name| PAGE.contains(name)),
                "docs/user/authentication.md lacks {key}"
            );
        }
    }
}

#[test]
fn the_defaults_on_the_page_are_those_of_the_program() {
    let Common { timeout_ms, max_in_flight, .. } = Common::default();
    assert!(PAGE.contains(&format!("| `timeout_ms` | {timeout_ms} |")));
    assert!(PAGE.contains(&format!("| `max_in_flight` | {max_in_flight} |")));
    let shown = examples("toml")
        .filter(|text| text.contains("[auth.cache]") || text.contains("[auth.lockout]"));
    for config in shown.map(|text| Config::parse(text).expect(text)) {
        let (mut lockout, cache) = (config.settings.lockout, config.settings.cache);
        lockout.exempt.clear();
        assert_eq!(lockout, Lockout::default());
        assert_eq!(format!("{cache:?}"), format!("{:?}", Cache::default()));
    }
}

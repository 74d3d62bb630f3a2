use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::{Config, Sources};

/// A folder with a configuration and files of rules; goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-rules-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).expect("a folder");
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("writes");
    }

    fn load(&self) -> Result<Config, Vec<String>> {
        let file = Some(self.0.join("ringmain.toml"));
        let loaded = Sources { file, ..Sources::default() }.load();
        let place = format!("{}/", self.0.display());
        loaded
            .map_err(|errors| errors.0.iter().map(|e| e.to_string().replace(&place, "")).collect())
    }

    fn errors(&self) -> Vec<String> {
        self.load().expect_err("is wrong")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ALLOW: &str = "[[rule]]\neffect = 'allow'\n";

fn naming(files: &str) -> String {
    format!("[authorization]\nfiles = [{files}]\n")
}

#[test]
fn files_are_read_beside_the_configuration_in_their_order_and_by_their_form() {
    // AZ01 AZ02
    let both = naming("'b.conf', 'a.toml'");
    let folder = Folder::new(&[
        ("ringmain.toml", &both),
        ("a.toml", ALLOW),
        ("b.conf", "{deny, all, subscribe, [\"#\"]}.\n{allow, all}."),
    ]);
    let config = folder.load().expect("valid");
    let sources: Vec<(String, usize)> = config
        .authorization
        .rules
        .sources()
        .map(|source| (source.name().to_owned(), source.rule_count()))
        .collect();
    let path = |name: &str| folder.0.join(name).display().to_string();
    assert_eq!(sources, [(path("b.conf"), 2), (path("a.toml"), 1)]);
}

#[test]
fn a_wrong_file_is_an_error_with_its_name_and_line() {
    let wrong = "[[rule]]\neffect = 'allow'\nwho = { user = 'joe' }\n[[rule]]\neffect = 'deny'\ntopic = ['b']\n";
    let folder = Folder::new(&[
        ("ringmain.toml", &naming("'a.toml', 'b.conf', 'c.toml'")),
        ("a.toml", wrong),
        ("b.conf", "{allow, all}.\n{allow, every}."),
    ]);
    let errors = folder.errors();
    assert_eq!(errors.len(), 4, "{errors:#?}");
    let at = |start: &str| errors.iter().any(|error| error.starts_with(start));
    assert!(at("a.toml:3: rule 1: who: unknown condition \"user\"; nearest valid: username"));
    assert!(at("a.toml:6: rule 2: unknown key \"topic\"; nearest valid: topics"));
    assert!(at("b.conf:2: "), "{errors:#?}");
    assert!(at("ringmain.toml:2: authorization.files: cannot read c.toml: No such file"));
}

#[test]
fn what_is_no_file_of_rules_is_refused_and_not_read() {
    let folder = Folder::new(&[("ringmain.toml", &naming("'rules', 'a.json', 5"))]);
    let errors = folder.errors();
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for error in errors {
        assert!(error.contains("expected a path that ends in .toml or .conf"), "{error}");
    }
    folder.write("ringmain.toml", &naming("'folder.toml'"));
    std::fs::create_dir(folder.0.join("folder.toml")).expect("a folder");
    assert!(folder.errors()[0].ends_with("cannot read folder.toml: it is not a file"));
    folder.write("ringmain.toml", &naming("'a.toml'"));
    std::fs::write(folder.0.join("a.toml"), [0xFF, b'\n']).expect("writes");
    assert!(folder.errors()[0].ends_with("cannot read a.toml: it is not UTF-8"));
    folder.write("ringmain.toml", &naming("'a.toml', 'a.toml'"));
    assert!(folder.errors()[0].contains("is listed twice"));
}

#[test]
fn files_rules_and_bytes_have_their_limits() {
    let names: Vec<String> = (0..=FILES_MAX).map(|at| format!("'{at}.toml'")).collect();
    let folder = Folder::new(&[("ringmain.toml", &naming(&names.join(", ")))]);
    let error = "ringmain.toml:2: authorization.files: 11 files; at most 10";
    assert_eq!(folder.errors(), [error]);
    // Each may have as many as all together.
    folder.write("ringmain.toml", &naming("'a.conf', 'b.conf'"));
    let half = "{deny, all}.\n".repeat(RULES_MAX / 2);
    folder.write("a.conf", &half);
    folder.write("b.conf", &half);
    folder.load().expect("as many as there may be");
    folder.write("b.conf", &format!("{half}{{deny, all}}.\n"));
    let error =
        "ringmain.toml:2: authorization.files: 10001 rules in 2 files; at most 10000 together";
    assert_eq!(folder.errors(), [error]);
    folder.write("b.conf", &" ".repeat(SOURCE_BYTES_MAX));
    folder.load().expect("as long as it may be");
    folder.write("b.conf", &" ".repeat(SOURCE_BYTES_MAX + 1));
    assert!(folder.errors()[0].contains("b.conf: it has more than 4194304 bytes"));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    let folder =
        Folder::new(&[("ringmain.toml", "[authorization]\nnomatch = 'deny'\nfile = []\n")]);
    let errors = folder.errors();
    let ends = |at: usize, end: &str| assert!(errors[at].ends_with(end), "{errors:#?}");
    ends(0, "nearest valid key: authorization.no_match");
    ends(1, "nearest valid key: authorization.files");
}

#[test]
fn a_file_that_says_something_else_is_a_change_and_one_that_was_only_written_again_is_none() {
    // AZ06
    let folder = Folder::new(&[("ringmain.toml", &naming("'a.toml'")), ("a.toml", ALLOW)]);
    let before = folder.load().expect("valid");
    folder.write("a.toml", ALLOW);
    let same = folder.load().expect("valid");
    assert_eq!(Config::diff_live(&before, &same).map(|changes| changes.is_empty()), Ok(true));
    folder.write("a.toml", &format!("{ALLOW}{ALLOW}"));
    let other = folder.load().expect("valid");
    let changes = Config::diff_live(&before, &other).expect("live");
    let [change] = changes.keys.as_slice() else { panic!("{changes:?}") };
    assert_eq!(change.key, format!("authorization.files: {}", folder.0.join("a.toml").display()));
    assert_eq!((&*change.old, &*change.new), ("1 rule", "2 rules, not the same"));
    assert!(changes.touches("authorization"));
}

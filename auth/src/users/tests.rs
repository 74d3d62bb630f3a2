use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::password::Scheme;
use crate::sources::scram::{Method, StoredKeys};
use import::{Algorithm, DigestName, Format, Options};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn user(name: &str, password: &str) -> Record {
    let mut record = Record::new(By::Username, name);
    record.hash = Some(Hash::make(Scheme::Sha256, password.as_bytes()).expect("a hash"));
    record
}

fn write(file: &Path, users: &[Record]) {
    let mut editor = Editor::open(file).expect("a file");
    for user in users {
        editor.put(user).expect("fits");
    }
    editor.save().expect("written");
}

// AU03
#[test]
fn users_read_back_as_they_were_written() {
    let (folder, mut full) = (folder(), user("ali\"ce\n\u{1f600}", "a"));
    let file = folder.path().join("users");
    full.superuser = true;
    full.attributes = [("tenant".into(), "a b".into())].into();
    full.scram = vec![StoredKeys::make(Method::Sha512, "pencil", 4096).expect("keys")];
    let mut device = user("dev-1", "b");
    device.by = By::ClientId;
    write(&file, &[full.clone(), device.clone()]);
    let users = Database::open(&file).expect("readable").users();
    assert_eq!(users.len(), 2);
    assert_eq!(users.get(By::Username, &full.name), Some(full));
    assert_eq!(users.get(By::ClientId, "dev-1"), Some(device));
    assert_eq!(users.get(By::Username, "dev-1"), None);
    assert_eq!(users.get(By::Username, ""), None);
}

#[test]
fn a_file_is_for_its_owner_only_and_keeps_comments_and_order() {
    let folder = folder();
    let file = folder.path().join("users");
    fs::write(&file, "# ours\n{\"username\":\"b\"}\n\n{\"username\":\"a\"}\n").expect("written");
    let mut editor = Editor::open(&file).expect("readable");
    assert!(editor.remove(By::Username, "b") && !editor.remove(By::Username, "b"));
    editor.put(&Record::new(By::Username, "c")).expect("fits");
    editor.save().expect("written");
    let text = fs::read_to_string(&file).expect("readable");
    let rest: Vec<&str> = text.lines().skip(1).collect();
    assert!(text.starts_with("{\"ringmain_users\":1,\"secret\":\""));
    assert_eq!(rest, ["# ours", "", "{\"username\":\"a\"}", "{\"username\":\"c\"}"]);
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!folder.path().join("users.new").exists());
}

#[test]
fn a_wrong_line_is_an_error_that_says_which() {
    for (text, says) in [
        ("{\"username\":\"a\"}\n{\"username\":\"a\"}\n", "f:2: \"a\" is on line 1 already"),
        ("\n{\"user\":\"a\"}\n", "f:2: unknown field `user`"),
        ("{\"username\":\"a\",\"client_id\":\"b\"}", "f:1: needs username or client_id"),
        ("{\"username\":\"\"}", "f:1: a name has 1 to"),
        ("{\"username\":\"a\",\"hash\":\"$sha256$\"}", "f:1: $sha256$: expected prefix"),
        ("{\"username\":\"a\",\"scram\":[\"x\"]}", "f:1: scram: expected"),
        ("a:b\n", "f:1: expected an object"),
        ("{\"ringmain_users\":2,\"secret\":\"\"}", "f:1: version 2 is newer"),
        ("{\"ringmain_users\":1,\"secret\":\"AA\"}", "f:1: the secret is not"),
    ] {
        let error = Snapshot::parse(text.into(), "f").expect_err(text);
        assert!(error.starts_with(says), "{text}: {error}");
    }
    let error = Database::open(Path::new("/nonexistent/users")).expect_err("absent");
    assert!(error.contains("ringmain user add --file /nonexistent/users"), "{error}");
}

// AU03
#[test]
fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
    let folder = folder();
    let file = folder.path().join("users");
    write(&file, &[user("a", "x")]);
    let database = Database::open(&file).expect("readable");
    assert_eq!(database.refresh(), Ok(false));
    let before = database.users();
    write(&file, &[user("b", "y")]);
    assert_eq!(database.refresh(), Ok(true));
    assert_eq!((database.users().len(), database.generation()), (2, 2));
    assert_eq!(before.len(), 1, "who reads while it changes sees what was");
    assert_eq!(before.secret(), database.users().secret());
    fs::write(&file, "broken\n").expect("written");
    assert!(database.refresh().is_err());
    assert_eq!((database.users().len(), database.generation()), (2, 2));
}

// Found by the fuzz target.
#[test]
fn a_line_that_is_indented_is_found_and_a_list_is_no_user() {
    let users =
        Snapshot::parse("\u{c}\u{a0} {\"username\":\"a\"} \r\n".into(), "f").expect("a user");
    assert!(users.get(By::Username, "a").is_some());
    assert!(Snapshot::parse("[\"a\"]".into(), "f").is_err());
}

#[test]
fn a_file_without_a_secret_keeps_the_one_that_it_was_given() {
    let folder = folder();
    let file = folder.path().join("users");
    fs::write(&file, "{\"username\":\"a\"}\n").expect("written");
    let database = Database::open(&file).expect("readable");
    let secret = *database.users().secret();
    fs::write(&file, "{\"username\":\"longer\"}\n").expect("written");
    assert_eq!(database.refresh(), Ok(true));
    assert_eq!(*database.users().secret(), secret);
}

#[test]
fn two_editors_wait_for_each_other() {
    let folder = folder();
    let file = folder.path().join("users");
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let file = file.clone();
            std::thread::spawn(move || write(&file, &[user(&n.to_string(), "x")]))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(Database::open(&file).expect("readable").users().len(), 8);
}

fn options(algorithm: Algorithm) -> Options {
    Options { by: By::Username, algorithm, scheme: Scheme::Sha256 }
}

fn sha256(salt_first: bool) -> Options {
    options(Algorithm::Digest { kind: DigestName::Sha256, salt_first })
}

fn accepts(record: &Record, password: &str) -> bool {
    record.hash.as_ref().is_some_and(|hash| hash.verify(password.as_bytes()))
}

// AU03: made by mosquitto_passwd, see fixtures/README.md
#[test]
fn users_of_mosquitto_keep_their_passwords() {
    let text = include_str!("../../fixtures/mosquitto.passwd");
    let users = import::parse(Format::Mosquitto, text, &sha256(true)).expect("readable");
    let [alice, bob] = users.as_slice() else { panic!("{users:?}") };
    assert!(accepts(alice, "correct horse") && !accepts(alice, "pässword:x"));
    assert!(accepts(bob, "pässword:x") && !accepts(bob, "correct horse"));
    let argon = "# 2.1\ncarol:$argon2id$v=19$m=256,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrxLvSh/SRTUPoEiB6ytkbCs\n";
    let users = import::parse(Format::Mosquitto, argon, &sha256(true)).expect("readable");
    assert!(accepts(users.first().expect("carol"), "correct horse"));
    let errors = import::parse(Format::Mosquitto, "a:plain\nb\n:$6$x$y\n", &sha256(true));
    let errors = errors.expect_err("wrong");
    assert_eq!(errors.len(), 3);
    assert!(
        errors.first().expect("one").contains("line 1: the password is not hashed"),
        "{errors:?}"
    );
}

/// `hashlib.sha256(b"somesalt" + b"correct horse").hexdigest()`; suffix the other way round.
const PREFIX: &str = "bb6c1ad7b7c388b06f8259d793228b1a09540aa0f36f34bd3caa5721c0fa9211";
const SUFFIX: &str = "94e7fe1b9e2605a8a59b8afd4c5ab75d88d4bc2f3e788cb12dbcf2b7bd4f4334";

// AU03 AU05
#[test]
fn users_of_emqx_keep_their_passwords() {
    let csv = |hash: &str| {
        format!(
            "user_id,password_hash,salt,is_superuser\na,{hash},somesalt,true\nb,{hash},other,0\n"
        )
    };
    for (hash, first) in [(PREFIX, true), (SUFFIX, false)] {
        let users = import::parse(Format::EmqxCsv, &csv(hash), &sha256(first)).expect("readable");
        let [a, b] = users.as_slice() else { panic!("{users:?}") };
        assert!(accepts(a, "correct horse") && a.superuser);
        assert!(!accepts(b, "correct horse") && !b.superuser);
    }
    let json = format!(
        "[{{\"user_id\":\"a\",\"password_hash\":\"{PREFIX}\",\"salt\":\"somesalt\",\"is_superuser\":true}}]"
    );
    let users = import::parse(Format::EmqxJson, &json, &sha256(true)).expect("readable");
    assert!(accepts(users.first().expect("a"), "correct horse"));
    let pbkdf2 = Algorithm::named("pbkdf2-sha256", true, 1000).expect("known");
    let csv = "user_id,password_hash,salt\na,dd45cb1d1d9db0102b7ea1f0ba486b7543bd8097dcd41be632ad063ddf6c3fa1,somesalt\n";
    let users = import::parse(Format::EmqxCsv, csv, &options(pbkdf2)).expect("readable");
    assert!(accepts(users.first().expect("a"), "correct horse"));
    let bcrypt = "user_id,password_hash,salt,is_superuser\n\
                  a,$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e,,false\n";
    let users =
        import::parse(Format::EmqxCsv, bcrypt, &options(Algorithm::Bcrypt)).expect("readable");
    assert!(accepts(users.first().expect("a"), "correct horse"));
    let plain = "\u{feff}user_id,password,is_superuser\na,\"cor,rect\",1\n";
    let users = import::parse(Format::EmqxCsv, plain, &sha256(true)).expect("readable");
    let a = users.first().expect("a");
    assert!(accepts(a, "cor,rect") && a.superuser && !a.to_string().contains("cor,rect"));
}

#[test]
fn an_import_with_a_wrong_user_imports_nobody_and_says_why() {
    for (format, text, says) in [
        (Format::EmqxCsv, "user_id,password_hash\na,zz\n", "not hexadecimal"),
        (Format::EmqxCsv, "user_id,password_hash\na,00\n", "1 bytes, not 32"),
        (Format::EmqxCsv, "user,password\na,b\n", "user_id"),
        (Format::EmqxCsv, "user_id,password,is_superuser\na,b,maybe\n", "maybe"),
        (Format::EmqxJson, "{}", "not a list of users"),
        (Format::EmqxJson, "[{\"user_id\":\"a\"}]", "needs password_hash or password"),
        (Format::EmqxJson, "[{\"user_id\":\"\",\"password\":\"b\"}]", "a name has 1 to"),
    ] {
        let errors = import::parse(format, text, &sha256(true)).expect_err(text);
        assert!(errors.iter().any(|error| error.contains(says)), "{text}: {errors:?}");
    }
    let many = "x\n".repeat(100);
    let errors = import::parse(Format::Mosquitto, &many, &sha256(true)).expect_err("wrong");
    assert_eq!(errors.len(), import::ERRORS_MAX + 1);
    assert!(
        Algorithm::named("sha265", true, 1).expect_err("unknown").contains("nearest: \"sha256\"")
    );
}

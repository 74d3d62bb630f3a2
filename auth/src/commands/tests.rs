use super::*;
use crate::users::import::{Algorithm, DigestName};

fn secrets() -> Secrets {
    Secrets { scheme: Some(Scheme::Sha256), scram: vec![Method::Sha256] }
}

fn run(command: impl FnOnce(&mut dyn Write) -> Result<(), String>) -> String {
    let mut out = Vec::new();
    command(&mut out).expect("it works");
    String::from_utf8(out).expect("UTF-8")
}

fn alice() -> Record {
    let mut record = Record::new(By::Username, "alice");
    record.superuser = true;
    record.attributes = [("tenant".into(), "t1".into())].into();
    record
}

// AU03
#[test]
fn a_user_is_added_changed_listed_and_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    assert_eq!(run(|out| add(&file, alice(), b"one", &secrets(), out)), "added \"alice\"\n");
    let line = run(|out| list(&file, out));
    assert_eq!(line, "username\talice\tsha256,SCRAM-SHA-256\tsuperuser\ttenant=t1\n");
    let twice =
        add(&file, alice(), b"two", &secrets(), &mut Vec::new()).expect_err("there already");
    assert!(twice.contains("ringmain user passwd"), "{twice}");
    run(|out| passwd(&file, (By::Username, "alice"), b"two", &secrets(), out));
    let users = Database::open(&file).expect("readable").users();
    let changed = users.get(By::Username, "alice").expect("there");
    let hash = changed.hash.expect("a hash");
    assert!(hash.verify(b"two") && !hash.verify(b"one"));
    assert!(changed.superuser && !changed.attributes.is_empty());
    let error = del(&file, (By::Username, "alise"), &mut Vec::new()).expect_err("absent");
    assert_eq!(error, "there is no \"alise\"; nearest: \"alice\"");
    assert_eq!(run(|out| del(&file, (By::Username, "alice"), out)), "deleted \"alice\"\n");
    assert_eq!(run(|out| list(&file, out)), "");
}

#[test]
fn a_user_who_could_not_log_in_is_not_added() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    let none = Secrets::default();
    assert!(add(&file, alice(), b"one", &none, &mut Vec::new()).is_err());
    assert!(add(&file, alice(), b"", &secrets(), &mut Vec::new()).is_err());
    assert!(add(&file, alice(), b"\xff", &secrets(), &mut Vec::new()).is_err());
    assert!(add(&file, Record::new(By::Username, ""), b"x", &secrets(), &mut Vec::new()).is_err());
    assert!(!file.exists());
    assert!(list(&file, &mut Vec::new()).is_err());
}

#[test]
fn a_name_with_a_line_end_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    run(|out| add(&file, Record::new(By::ClientId, "a\nusername\troot"), b"x", &secrets(), out));
    assert_eq!(run(|out| list(&file, out)).lines().count(), 1);
}

// AU03
#[test]
fn an_import_takes_all_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, from) = (folder.path().join("users"), folder.path().join("import"));
    let algorithm = Algorithm::Digest { kind: DigestName::Sha256, salt_first: true };
    let options = Options { by: By::Username, algorithm, scheme: Scheme::Sha256 };
    let go = |replace| {
        let mut out = Vec::new();
        let done = import(&file, &from, Format::EmqxCsv, &options, replace, &mut out);
        done.map(|()| String::from_utf8(out).expect("UTF-8"))
    };
    std::fs::write(&from, "user_id,password\na,x\nb,y\n").expect("written");
    assert_eq!(go(false).as_deref(), Ok("imported 2 users: 2 new, 0 replaced\n"));
    std::fs::write(&from, "user_id,password\nc,x\nb,z\n").expect("written");
    assert_eq!(
        go(false),
        Err(vec!["\"b\" is there already: add --replace to overwrite users".to_owned()])
    );
    assert_eq!(Database::open(&file).expect("readable").users().len(), 2);
    assert_eq!(go(true).as_deref(), Ok("imported 2 users: 1 new, 1 replaced\n"));
    std::fs::write(&from, "user_id,password\nd\n").expect("written");
    let errors = go(true).expect_err("a column is missing");
    assert!(
        errors.first().is_some_and(|error| error.starts_with(&from.display().to_string())),
        "{errors:?}"
    );
}

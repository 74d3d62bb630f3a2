use super::*;
use crate::fixture::{self, ask};
use crate::password::Scheme;
use crate::users::Editor;

fn source(by: By, users: &[(&str, Scheme)]) -> (tempfile::TempDir, Arc<dyn Source>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    let mut editor = Editor::open(&file).expect("a new file");
    for (name, scheme) in users {
        let mut record = Record::new(by, name);
        record.hash = Some(Hash::make(*scheme, b"secret").expect("a hash"));
        record.superuser = *name == "root";
        record.attributes = [("tenant".into(), "t1".into())].into();
        editor.put(&record).expect("fits");
    }
    editor.save().expect("written");
    let config = Config { file, by, reload_interval_s: 1 };
    (folder, config.build(&fixture::context()).expect("a source"))
}

fn decide(source: &dyn Source, id: &str, user: &str, password: &str) -> Decision {
    fixture::run_real(source.decide(ask(&fixture::client(id, user, password))))
}

// AU03 AU17
#[test]
fn the_right_password_admits_and_the_wrong_one_does_not() {
    for scheme in [Scheme::Sha256, Scheme::Bcrypt] {
        let (_folder, source) = source(By::Username, &[("alice", scheme), ("root", scheme)]);
        let Decision::Allow(alice) = decide(&*source, "c", "alice", "secret") else {
            panic!("refused")
        };
        assert!(!alice.superuser);
        assert_eq!(alice.attribute("tenant"), Some("t1"));
        let Decision::Allow(root) = decide(&*source, "c", "root", "secret") else {
            panic!("refused")
        };
        assert!(root.superuser);
        for password in ["wrong", ""] {
            assert!(matches!(decide(&*source, "c", "alice", password), Decision::Deny(_)));
        }
        assert!(matches!(decide(&*source, "alice", "bob", "secret"), Decision::Ignore));
        assert!(matches!(decide(&*source, "alice", "", "secret"), Decision::Ignore));
    }
}

// AU03
#[test]
fn users_can_be_known_by_client_identifier() {
    let (_folder, source) = source(By::ClientId, &[("dev-1", Scheme::Sha256)]);
    assert!(matches!(decide(&*source, "dev-1", "whoever", "secret"), Decision::Allow(_)));
    assert!(matches!(decide(&*source, "dev-2", "dev-1", "secret"), Decision::Ignore));
}

// AU16
#[test]
fn an_unknown_user_is_as_much_work_as_a_wrong_password() {
    let (folder, _) = source(By::Username, &[("alice", Scheme::Bcrypt)]);
    let users = Arc::new(Database::open(&folder.path().join("users")).expect("readable"));
    for name in ["alice", "nobody"] {
        // Nobody takes the job: whoever has work for a worker waits.
        let nobody = crate::config::Hashing { workers: 0, queue_max: 1 };
        let hashers = Arc::new(Hashers::start(&nobody).expect("no threads"));
        let source = Users { users: Arc::clone(&users), by: By::Username, every_s: 1, hashers };
        let request = fixture::client("c", name, "wrong");
        let waits = fixture::run(async {
            let decision = source.decide(ask(&request));
            tokio::time::timeout(std::time::Duration::from_secs(1), decision).await.is_err()
        });
        assert!(waits, "{name}");
    }
}

// AU03
#[test]
fn upkeep_reads_a_changed_file() {
    let (folder, source) = source(By::Username, &[("alice", Scheme::Sha256)]);
    let file = folder.path().join("users");
    let mut editor = Editor::open(&file).expect("readable");
    editor.remove(By::Username, "alice");
    editor.save().expect("written");
    assert!(matches!(decide(&*source, "c", "alice", "secret"), Decision::Allow(_)));
    let before = source.generation();
    fixture::run_real(source.upkeep(0)).expect("readable");
    assert_ne!(source.generation(), before);
    assert!(matches!(decide(&*source, "c", "alice", "secret"), Decision::Ignore));
}

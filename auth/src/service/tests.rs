use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::config::Chain;
use crate::fixture;
use crate::password::Scheme;
use crate::sources::scram::{Method, StoredKeys};
use crate::users::{By, Editor, Record};

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    service: Service,
    answers: Receiver<Answer>,
    now_ms: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users");
        let mut editor = Editor::open(&file).expect("a new file");
        for name in ["alice", "bob"] {
            let mut user = Record::new(By::Username, name);
            user.hash =
                Some(crate::password::Hash::make(Scheme::Sha256, b"secret").expect("a hash"));
            user.scram = vec![StoredKeys::make(Method::Sha256, "secret", 4096).expect("keys")];
            editor.put(&user).expect("fits");
        }
        editor.save().expect("written");
        let config = Self::config(&folder, config);
        let now_ms = Arc::new(AtomicU64::new(1_700_000_100_000));
        let clock = Arc::clone(&now_ms);
        let (told, answers) = flume::unbounded();
        let service = Service::start(
            &config,
            Arc::new(move || clock.load(Relaxed)),
            Arc::new(move |answer| told.send(answer).expect("somebody listens")),
        );
        Self { service: service.expect("it starts"), answers, now_ms, folder }
    }

    fn config(folder: &tempfile::TempDir, text: &str) -> Config {
        let file = folder.path().join("users").display().to_string();
        Config::parse(&text.replace("USERS", &file)).expect(text)
    }

    fn ask(&self, mut request: Request, token: u128) -> Verdict {
        request.token = token;
        self.service.handle().try_send(request).expect("there is room");
        let answer = self.answers.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(answer.token, token);
        answer.verdict
    }
}

const USERS: &str = "[[authentication]]\ntype = \"users\"\nfile = \"USERS\"\n";

fn reason(verdict: &Verdict) -> Option<ReasonCode> {
    match verdict {
        Verdict::Deny(denial) => Some(denial.reason),
        _ => None,
    }
}

// AU01 AU03
#[test]
fn a_client_is_asked_about_and_answered() {
    let node = Node::start(USERS);
    let verdict = node.ask(fixture::client("c", "alice", "secret"), 7);
    assert!(
        matches!(verdict, Verdict::Allow(identity) if identity.username.as_deref() == Some("alice"))
    );
    let verdict = node.ask(fixture::client("c", "alice", "wrong"), 8);
    assert_eq!(reason(&verdict), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
    let stats = node.service.handle().stats();
    assert_eq!((stats.allowed, stats.denied, stats.cached, stats.waiting), (1, 1, 2, 0));
    assert_eq!(node.service.drain_cache(), 2);
    node.service.stop();
}

// AU16
#[test]
fn who_guesses_is_locked_out_for_a_while_with_the_right_password_too() {
    let node = Node::start(&format!("[auth.lockout]\nfailures_per_user = 3\n{USERS}"));
    for n in 0..3 {
        node.ask(fixture::client("c", "alice", &format!("guess{n}")), n);
    }
    let verdict = node.ask(fixture::client("c", "alice", "secret"), 9);
    assert_eq!(reason(&verdict), Some(ReasonCode::BANNED));
    assert!(matches!(node.ask(fixture::client("c", "bob", "secret"), 10), Verdict::Allow(_)));
    node.now_ms.fetch_add(60_000, Relaxed);
    assert!(matches!(node.ask(fixture::client("c", "alice", "secret"), 11), Verdict::Allow(_)));
    assert_eq!(node.service.handle().stats().locked, 1);
}

// AU18
#[test]
fn a_full_queue_gives_the_request_back() {
    let (requests, held) = flume::bounded(1);
    let handle = Handle { requests, stats: Arc::default() };
    assert!(handle.try_send(fixture::client("a", "", "")).is_ok());
    let back = handle.try_send(fixture::client("b", "", "")).expect_err("full");
    assert_eq!((&*back.client_id, handle.stats().refused, handle.stats().waiting), ("b", 1, 1));
    drop(held);
    assert!(handle.try_send(fixture::client("c", "", "")).is_err());
}

// AU01 AU02
#[test]
fn a_listener_has_a_chain_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(USERS);
    let mut config = Node::config(&node.folder, USERS);
    let none = toml::Value::Array(Vec::new());
    config
        .listeners
        .insert(5, Chain::read(&none, "listeners[5].authentication", true).expect("empty"));
    node.service.reload(config).expect("it is valid");
    let mut request = fixture::client("c", "", "");
    assert_eq!(reason(&node.ask(request.clone(), 1)), Some(ReasonCode::NOT_AUTHORIZED));
    request.listener = 5;
    assert!(matches!(node.ask(request, 2), Verdict::Allow(_)));
    drop(folder);
}

#[test]
fn a_reload_that_is_wrong_changes_nothing_and_a_right_one_takes_effect() {
    let node = Node::start(USERS);
    let missing = Node::config(
        &node.folder,
        "[[authentication]]\ntype = \"users\"\nfile = \"/nonexistent/u\"\n",
    );
    let errors = node.service.reload(missing).expect_err("there is no such file");
    let text = errors.first().expect("an error").to_string();
    assert!(
        text.starts_with("authentication[0] (users): /nonexistent/u: there is no such file"),
        "{text}"
    );
    assert!(matches!(node.ask(fixture::client("c", "alice", "secret"), 1), Verdict::Allow(_)));
    let rules = "[[auth.after]]\nset = { tenant = \"t-${username}\" }\n\
                 [[auth.after]]\nwhen = { username = \"bob\" }\nthen = \"deny\"\n";
    node.service.reload(Node::config(&node.folder, &format!("{rules}{USERS}"))).expect("valid");
    // AU17
    let Verdict::Allow(alice) = node.ask(fixture::client("c", "alice", "secret"), 2) else {
        panic!("refused")
    };
    assert_eq!(alice.attribute("tenant"), Some("t-alice"));
    let bob = node.ask(fixture::client("c", "bob", "secret"), 3);
    assert_eq!(reason(&bob), Some(ReasonCode::NOT_AUTHORIZED));
}

// AU03: without an order to do so
#[test]
fn a_new_user_can_log_in_soon_after() {
    let node = Node::start(&format!(
        "{USERS}reload_interval_s = 1\n[auth.lockout]\nfailures_per_user = 0\nfailures_per_address = 0\n"
    ));
    let mut editor = Editor::open(&node.folder.path().join("users")).expect("readable");
    let mut carol = Record::new(By::Username, "carol");
    carol.hash = Some(crate::password::Hash::make(Scheme::Sha256, b"secret").expect("a hash"));
    editor.put(&carol).expect("fits");
    editor.save().expect("written");
    let begun = std::time::Instant::now();
    while !matches!(node.ask(fixture::client("c", "carol", "secret"), 1), Verdict::Allow(_)) {
        assert!(begun.elapsed() < PATIENCE, "the file is not read again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// AU11 S-95
#[test]
fn scram_goes_through_the_service_and_re_authenticates() {
    let node =
        Node::start("[[authentication]]\ntype = \"scram\"\nfile = \"USERS\"\niterations = 4096\n");
    let mut request = fixture::client("c", "", "");
    request.method = Some("SCRAM-SHA-256".into());
    for (phase, token) in
        [(Phase::Connect, 1), (Phase::Reauthenticate { username: Some("alice".into()) }, 3)]
    {
        request.phase = phase;
        let (bare, verdict) = first(&node, &mut request, "alice", token);
        let Verdict::Challenge { data, exchange } = verdict else { panic!("{verdict:?}") };
        let mut other = request.clone();
        other.method = Some("SCRAM-SHA-512".into());
        other.phase = Phase::Continue(exchange.clone());
        // [MQTT-4.12.0-5]; while re-authenticating everything is 0x87.
        let expected =
            if token == 1 { ReasonCode::PROTOCOL_ERROR } else { ReasonCode::NOT_AUTHORIZED };
        assert_eq!(reason(&node.ask(other, 9)), Some(expected));
        crate::sources::scram::answer(&mut request, &bare, "secret", &data, exchange);
        let Verdict::Allow(identity) = node.ask(request.clone(), token + 1) else {
            panic!("refused")
        };
        assert_eq!(identity.username.as_deref(), Some("alice"));
        assert!(identity.data.is_some());
    }
    request.phase = Phase::Reauthenticate { username: Some("alice".into()) };
    let (bare, verdict) = first(&node, &mut request, "bob", 5);
    let Verdict::Challenge { data, exchange } = verdict else { panic!("{verdict:?}") };
    crate::sources::scram::answer(&mut request, &bare, "secret", &data, exchange);
    assert_eq!(
        reason(&node.ask(request.clone(), 6)),
        Some(ReasonCode::NOT_AUTHORIZED),
        "is not alice"
    );
}

fn first(node: &Node, request: &mut Request, name: &str, token: u128) -> (String, Verdict) {
    let bare = format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL");
    request.data = Some(format!("n,,{bare}").into_bytes().into());
    let verdict = node.ask(request.clone(), token);
    (bare, verdict)
}

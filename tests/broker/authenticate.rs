//! Who may connect: users of a file that `ringmain user` made, tokens, lock-out, and a key server that is slow, with
//! clients that nobody here wrote.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use ringmain_mqtt::{Connect, ReasonCode, Version};

use super::support::{
    Broker, Client, Folder, NO_METRICS, PATIENCE, V5, V311, connect, ringmain, set,
};

/// What PyJWT signed with the keys of the same folder.
const TOKENS: &str = include_str!("../../auth/fixtures/tokens.json");
const SECRET: &str = "a secret that is longer than thirty-two bytes";
const BAD: ReasonCode = ReasonCode::BAD_USER_NAME_OR_PASSWORD;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("auth/fixtures").join(name)
}

fn token(name: &str) -> String {
    let tokens: serde_json::Value = serde_json::from_str(TOKENS).expect("JSON");
    tokens[name].as_str().expect(name).to_owned()
}

/// A broker with one listener, and its files.
struct Guarded {
    folder: Folder,
    broker: Option<Broker>,
}

impl Guarded {
    /// In the configuration, `USERS` is the file of users.
    fn new(name: &str) -> Self {
        Self { folder: Folder::new(name), broker: None }
    }

    fn users(&self) -> PathBuf {
        self.folder.0.join("users")
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.folder.0.join("ringmain.toml");
        let listener = "[[listeners]]\nurl = 'tcp://127.0.0.1:0'\n";
        let text = text.replace("USERS", &self.users().display().to_string());
        std::fs::write(&file, format!("{listener}{text}")).expect("writes");
        file
    }

    fn start(&mut self, shards: usize, text: &str) {
        let mut command = ringmain();
        command.arg("--config").arg(self.write(text)).args(["--shards", &shards.to_string()]);
        command.args(set(&[NO_METRICS, "node.pin_cores=false"]));
        self.broker = Some(Broker::start_by(command, &self.folder));
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("was started")
    }

    /// Writes another configuration, and waits until the broker has it.
    fn reload(&self, text: &str) -> Vec<String> {
        self.write(text);
        self.broker().signal(libc::SIGHUP);
        self.broker().lines_until("anged")
    }

    /// `ringmain user …`, with the password on standard input.
    fn user(&self, command: &str, arguments: &[&str], password: &str) -> Output {
        let mut child = ringmain()
            .args(["user", command, "--file"])
            .arg(self.users())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // Commands that want no password do not read it.
        let _ = writeln!(stdin, "{password}");
        drop(stdin);
        child.wait_with_output().expect("runs")
    }

    /// A user whose password is hashed in no time.
    fn add(&self, name: &str, password: &str) {
        let output = self.user("add", &["--hash", "sha256", name], password);
        assert!(output.status.success(), "{output:?}");
    }

    fn login(
        &self,
        version: Version,
        id: &str,
        name: &str,
        password: &str,
    ) -> (Client, ReasonCode) {
        let password = Some(password.as_bytes());
        let c = Connect { username: Some(name), password, ..connect(version, id) };
        self.broker().connect(&c)
    }

    fn code(&self, name: &str, password: &str) -> ReasonCode {
        self.login(V5, "c", name, password).1
    }

    /// A client of mosquitto's.
    fn mosquitto(&self, program: &str, arguments: &[&str]) -> Command {
        let port = self.broker().address().port().to_string();
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

const USERS_ONLY: &str = "[[authentication]]\ntype = 'users'\nfile = 'USERS'\n";

// AU03, AU05
#[test]
fn users_that_the_command_line_made_log_in_with_clients_of_mosquitto_and_others_do_not() {
    let mut node = Guarded::new("auth-users");
    let added = node.user("add", &["alice"], "secret");
    assert_eq!(String::from_utf8_lossy(&added.stdout), "added \"alice\"\n", "{added:?}");
    let mode = std::fs::metadata(node.users()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.start(2, USERS_ONLY);
    let run = |program, arguments: &[&str]| {
        node.mosquitto(program, arguments).output().expect("apt-get install mosquitto-clients")
    };
    for version in ["mqttv31", "311", "5"] {
        let who = ["-V", version, "-u", "alice", "-P", "secret", "-t", "t", "-q", "1"];
        let sent = run("mosquitto_pub", &[&who[..], &["-m", version, "-r"]].concat());
        assert!(sent.status.success(), "{version}: {sent:?}");
        let got = run("mosquitto_sub", &[&who[..], &["-C", "1"]].concat());
        let text = String::from_utf8_lossy(&got.stdout);
        assert_eq!(text.trim(), version, "{got:?}");
        for (credentials, says) in [
            (&["-u", "alice", "-P", "wrong"][..], "bad user name or password"),
            (&["-u", "mallory", "-P", "secret"], "bad user name or password"),
            (&[], "not authorised"),
        ] {
            let refused = run(
                "mosquitto_pub",
                &[&["-V", version, "-t", "t", "-m", "x"], credentials].concat(),
            );
            let error = String::from_utf8_lossy(&refused.stderr).to_lowercase();
            assert!(!refused.status.success() && error.contains(&says[..3]), "{version}: {error}");
        }
    }
    let (code, said) = node.broker.take().expect("runs").stop();
    assert_eq!(code, Some(0));
    assert!(said.contains("refused: users: the password is wrong"), "{said}");
    assert!(!said.contains("secret") && !said.contains("username=\"wrong\""), "{said}");
}

// AU03, AU01: nobody is disconnected.
#[test]
fn users_and_authenticators_change_while_clients_are_connected() {
    let mut node = Guarded::new("auth-reload");
    node.add("alice", "one");
    node.start(2, USERS_ONLY);
    let (mut alice, code) = node.login(V5, "alice", "alice", "one");
    assert_eq!(code, ReasonCode::SUCCESS);
    assert_eq!(alice.subscribe(&["t"]), [1]);
    assert_eq!(node.code("bob", "two"), BAD);
    node.add("bob", "two");
    // No key has changed, but a file has.
    node.broker().signal(libc::SIGHUP);
    let until = Instant::now() + PATIENCE;
    while node.code("bob", "two") != ReasonCode::SUCCESS {
        assert!(Instant::now() < until, "the file is not read again");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Another chain: tokens before users.
    assert_eq!(node.code("whoever", &token("hs256")), BAD);
    let jwt = format!("[[authentication]]\ntype = 'jwt'\nsecret = '{SECRET}'\n");
    let said = node.reload(&(jwt.clone() + USERS_ONLY)).join("\n");
    assert!(said.contains("key=\"authentication\"") && !said.contains(SECRET), "{said}");
    let until = Instant::now() + PATIENCE;
    while node.code("whoever", &token("hs256")) != ReasonCode::SUCCESS {
        assert!(Instant::now() < until, "the token is not known");
    }
    assert_eq!(node.code("alice", "one"), ReasonCode::SUCCESS);
    // What is wrong changes nothing.
    let said =
        node.reload("[[authentication]]\ntype = 'users'\nfile = '/nowhere/users'\n").join("\n");
    assert!(said.contains("ringmain.toml:3: authentication[0] (users): "), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(node.code("bob", "two"), ReasonCode::SUCCESS);
    assert_eq!(node.code("bob", "one"), BAD);
    // Nobody is asked any more.
    node.reload("");
    let until = Instant::now() + PATIENCE;
    while node.broker().connect(&connect(V5, "anybody")).1 != ReasonCode::SUCCESS {
        assert!(Instant::now() < until, "authentication is still on");
    }
    alice.publish("t", 9);
    assert_eq!(alice.subscribe(&["u"]), [1], "she was never disconnected");
}

// AU01, AU02
#[test]
fn listeners_have_chains_of_their_own() {
    let node = Guarded::new("auth-listeners");
    node.add("alice", "one");
    let file = node.write("");
    let users = node.users();
    let text = format!(
        "[[listeners]]\nurl = 'tcp://127.0.0.1:0'\nname = 'global'\n\
         [[listeners]]\nurl = 'tcp://127.0.0.1:0'\nname = 'open'\nallow_anonymous = true\n\
         [[listeners]]\nurl = 'tcp://127.0.0.1:0'\nname = 'tokens'\n\
         [[listeners.authentication]]\ntype = 'jwt'\nsecret = '{SECRET}'\n\
         [[authentication]]\ntype = 'users'\nfile = '{}'\n",
        users.display()
    );
    std::fs::write(&file, text).expect("writes");
    let mut command = ringmain();
    command.arg("--config").arg(&file).args(["--shards", "2"]);
    command.args(set(&[NO_METRICS, "node.pin_cores=false"]));
    let broker = Broker::start_by(command, &node.folder);
    let addresses: Vec<std::net::SocketAddr> = broker
        .started
        .iter()
        .filter_map(|line| {
            line.split_once("listening address=")?.1.split_whitespace().next()?.parse().ok()
        })
        .collect();
    let [global, open, tokens] = addresses[..] else { panic!("{:#?}", broker.started) };
    let code = |address, name: &str, password: &str| {
        let mut client = Client::open(address, V5);
        let password = Some(password.as_bytes());
        let username = (!name.is_empty()).then_some(name);
        let c = Connect { username, password, ..connect(V5, "c") };
        client.send(|out| c.encode(out));
        client.next(|p| match p {
            ringmain_mqtt::Packet::ConnAck(ack) => Some(ack.code),
            _ => None,
        })
    };
    let good = ReasonCode::SUCCESS;
    let token = token("hs256");
    for (name, password, expected) in [
        ("alice", "one", [good, good, BAD]),
        ("alice", "bad", [BAD, BAD, BAD]),
        ("nobody", "x", [BAD, good, BAD]),
        ("alice", token.as_str(), [BAD, BAD, good]),
    ] {
        let codes = [global, open, tokens].map(|address| code(address, name, password));
        assert_eq!(codes, expected, "{name} {password}");
    }
}

// AU09
#[test]
fn tokens_of_each_kind_of_key_log_in_as_password_and_as_user_name() {
    for (key, names) in [
        (format!("secret = '{SECRET}'"), &["hs256"][..]),
        (format!("public_key_file = '{}'", fixture("ed.pem").display()), &["eddsa"]),
        (format!("public_key_file = '{}'", fixture("ec.pem").display()), &["es256"]),
        (format!("jwks_file = '{}'", fixture("jwks.json").display()), &["es256", "eddsa", "rs256"]),
    ] {
        let mut node = Guarded::new("auth-jwt");
        node.start(2, &format!("[[authentication]]\ntype = 'jwt'\n{key}\n"));
        for name in ["hs256", "eddsa", "es256", "rs256", "none", "confused"] {
            let (_, code) = node.login(V311, "dev1", "alice", &token(name));
            assert_eq!(
                code == ReasonCode::SUCCESS,
                names.contains(&name),
                "{key} {name}: {code:?}"
            );
        }
        let mut node = Guarded::new("auth-jwt-name");
        let from = "from = 'username'\nusername_claim = 'username'";
        node.start(1, &format!("[[authentication]]\ntype = 'jwt'\n{key}\n{from}\n"));
        let (_, code) = node.login(V5, "dev1", &token(names[0]), "");
        assert_eq!(code, ReasonCode::SUCCESS, "{key}");
    }
}

// AU18: a key server that does not answer.
#[test]
fn a_slow_authenticator_holds_up_nobody_else() {
    let server = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let url = format!("http://{}/keys", server.local_addr().expect("an address"));
    let (asked, hears) = channel();
    let (answer, may) = channel::<()>();
    std::thread::spawn(move || {
        // The keys are asked for at the start, and nobody gets an answer before it is time.
        let mut streams = Vec::new();
        let (mut stream, _) = server.accept().expect("accepts");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = asked.send(());
        streams.push(stream);
        let _ = may.recv();
        let keys = std::fs::read(fixture("jwks.json")).expect("reads");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
        for mut stream in streams {
            let _ = stream.write_all(&[head.as_bytes(), &keys].concat());
        }
    });
    let mut node = Guarded::new("auth-slow");
    node.add("alice", "one");
    let jwt = format!("[[authentication]]\ntype = 'jwt'\njwks_url = '{url}'\ntimeout_ms = 60000\n");
    node.start(2, &format!("{jwt}{USERS_ONLY}[mqtt]\nconnect_timeout_ms = 60000\n"));
    hears.recv_timeout(PATIENCE).expect("keys are asked for");
    let mut slow = Client::open(node.broker().address(), V5);
    let password = token("es256");
    let password = Some(password.as_bytes());
    slow.send(|out| {
        Connect { username: Some("alice"), password, ..connect(V5, "slow") }.encode(out);
    });
    for n in 0..50 {
        let (mut other, code) = node.login(V5, &format!("c{n}"), "alice", "one");
        assert_eq!(code, ReasonCode::SUCCESS);
        other.publish("t", 1);
    }
    slow.stream.set_nonblocking(true).expect("a TCP socket");
    let early = slow.stream.read(&mut [0; 1]).expect_err("it still waits");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    slow.stream.set_nonblocking(false).expect("a TCP socket");
    answer.send(()).expect("the server waits");
    let code = slow.next(|p| match p {
        ringmain_mqtt::Packet::ConnAck(ack) => Some(ack.code),
        _ => None,
    });
    assert_eq!(code, ReasonCode::SUCCESS);
}

// AU16
#[test]
fn who_guesses_has_to_wait_and_the_right_password_does_not_help() {
    let mut node = Guarded::new("auth-lockout");
    node.add("alice", "one");
    node.add("bob", "two");
    node.start(2, &format!("[auth.lockout]\nfailures_per_user = 5\nlock_s = 3600\n{USERS_ONLY}"));
    for n in 0..5 {
        assert_eq!(node.code("alice", &format!("guess {n}")), BAD);
    }
    assert_eq!(node.code("alice", "one"), ReasonCode::BANNED);
    assert_eq!(node.login(V311, "c", "alice", "one").1, ReasonCode::NOT_AUTHORIZED);
    assert_eq!(node.code("bob", "two"), ReasonCode::SUCCESS, "others are not locked out");
    node.broker().lines_until("locked out");
}

// AU01
#[test]
fn check_config_reads_the_files_and_says_where_what_is_wrong_was_written() {
    let node = Guarded::new("auth-check");
    std::fs::write(node.users(), "{\"username\":\"a\",\"hash\":\"$plain$eA\"}\n{\"user\":\"b\"}\n")
        .expect("writes");
    let check = |text: &str| {
        let file = node.write(text);
        let output = ringmain().arg("check-config").arg(file).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (text, says) in [
        (USERS_ONLY, &["ringmain.toml:3: authentication[0] (users): ", "users:2: "][..]),
        (
            "[auth]\nallow_anonymus = true\n",
            &[
                "ringmain.toml:4: auth.allow_anonymus: unknown key; nearest valid key: auth.allow_anonymous",
            ],
        ),
        (
            "[[authentication]]\ntype = 'jwt'\njwks_file = '/nowhere'\n",
            &["ringmain.toml:3: authentication[0] (jwt): ", "/nowhere"],
        ),
        (
            "[[authentication]]\ntype = 'users'\nfil = 'x'\n",
            &["ringmain.toml:5: authentication[0].fil: unknown key"],
        ),
        (
            "[[listeners.authentication]]\ntype = 'usrs'\n",
            &[
                "ringmain.toml:4: listeners[0].authentication[0].type: \"usrs\" is not an authenticator; nearest: \"users\"",
            ],
        ),
        (
            "allow_anonymous = 1\n",
            &["ringmain.toml:3: listeners[0].allow_anonymous: expected true or false"],
        ),
    ] {
        let (code, error) = check(text);
        assert_eq!(code, Some(2), "{text}");
        for says in says {
            assert!(error.contains(says), "{text}\n{error}\n{says}");
        }
    }
    let secret = format!("[[authentication]]\ntype = 'jwt'\nsecret = '{SECRET}'\n");
    let output = ringmain().arg("check-config").arg(node.write(&secret)).output().expect("runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("type = \"jwt\""), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
}

// AU03
#[test]
fn users_are_changed_listed_imported_and_deleted_by_the_command_line() {
    let mut node = Guarded::new("auth-command");
    node.add("carol", "one");
    assert!(node.user("passwd", &["--hash", "sha256", "carol"], "two").status.success());
    let twice = node.user("add", &["carol"], "x");
    assert_eq!(twice.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("is there already"), "{twice:?}");
    let from = fixture("mosquitto.passwd");
    let import = node.user("import", &["--format", "mosquitto", from.to_str().expect("UTF-8")], "");
    assert!(import.status.success(), "{import:?}");
    let list = node.user("list", &[], "").stdout;
    let list = String::from_utf8_lossy(&list);
    assert!(list.contains("username\tcarol\tsha256\t-"), "{list}");
    assert!(list.lines().count() > 1, "{list}");
    node.start(1, USERS_ONLY);
    assert_eq!((node.code("carol", "one"), node.code("carol", "two")), (BAD, ReasonCode::SUCCESS));
    assert!(node.user("del", &["carol"], "").status.success());
    let until = Instant::now() + PATIENCE;
    while node.code("carol", "two") != BAD {
        assert!(Instant::now() < until, "she is still known");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

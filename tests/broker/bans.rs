//! Bans: the file that the broker follows, and `ringmain ban`. (L03)

use std::process::Output;
use std::time::Instant;

use ringmain_mqtt::{Packet, ReasonCode};

use super::support::{Broker, Folder, PATIENCE, V5, connect, ringmain};

fn ban(folder: &Folder, words: &[&str]) -> Output {
    let mut command = ringmain();
    command.arg("ban").args(["--data-dir", folder.data().to_str().expect("UTF-8")]).args(words);
    command.output().expect("runs")
}

#[test]
fn who_is_banned_while_the_broker_runs_goes_and_comes_back_when_the_ban_ends() {
    let folder = Folder::new("bans");
    let broker = Broker::start(&folder, 2, &[]);
    let mut lamp = broker.client(V5, "lamp");
    let mut door = broker.client(V5, "door");
    let output = ban(&folder, &["add", "client_id", "lamp", "--reason", "floods"]);
    assert!(output.status.success(), "{output:?}");
    let reason = lamp.next(|packet| match packet {
        Packet::Disconnect(d) => Some(d.reason),
        _ => None,
    });
    assert_eq!(reason, ReasonCode::ADMINISTRATIVE_ACTION);
    let (_, code) = broker.connect(&connect(V5, "lamp"));
    assert_eq!(code, ReasonCode::BANNED);
    door.subscribe(&["t"]);
    let listed = String::from_utf8(ban(&folder, &["list"]).stdout).expect("UTF-8");
    assert_eq!(listed, "client_id,lamp,,floods\n");
    assert!(ban(&folder, &["del", "client_id", "lamp"]).status.success());
    let start = Instant::now();
    while broker.connect(&connect(V5, "lamp")).1 != ReasonCode::SUCCESS {
        assert!(start.elapsed() < PATIENCE, "the ban never ended");
    }
}

#[test]
fn a_wrong_file_of_bans_changes_nothing_while_the_broker_runs_and_keeps_it_from_starting() {
    let folder = Folder::new("bans-wrong");
    let broker = Broker::start(&folder, 1, &[]);
    assert!(ban(&folder, &["add", "client_id", "bad"]).status.success());
    broker.lines_until("other bans hold");
    let file = folder.data().join("bans.csv");
    std::fs::write(&file, "kind,value,until,reason\nclient,bad,,\n").expect("writes");
    let said = broker.lines_until("the bans stay as they were");
    assert!(
        said.iter().any(|line| line.contains("bans.csv:2: \"client\" is no kind of ban")),
        "{said:#?}"
    );
    assert_eq!(broker.connect(&connect(V5, "bad")).1, ReasonCode::BANNED);
    broker.stop();
    let mut command = ringmain();
    command.args(["check-config", "--data-dir", folder.data().to_str().expect("UTF-8")]);
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("bans.csv:2:"), "{said}");
}

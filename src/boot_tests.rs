use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use super::*;
use crate::config::LiveChanges;
use crate::logging;

/// What a data plane was asked to do.
#[derive(Debug, Default)]
struct Asked {
    applied: Vec<(Arc<Config>, LiveChanges)>,
    shut_down: Vec<Duration>,
    refreshed: u32,
}

/// Records what it is asked, and on shutdown does what `on_shutdown` says.
struct Recorder {
    asked: Arc<Mutex<Asked>>,
    events: Sender<Event>,
    answers_shutdown: bool,
}

impl DataPlane for Recorder {
    fn apply(&mut self, config: Arc<Config>, changes: &LiveChanges) {
        self.asked.lock().expect("not poisoned").applied.push((config, changes.clone()));
    }

    fn refresh(&mut self) {
        self.asked.lock().expect("not poisoned").refreshed += 1;
    }

    fn questions(&self) -> flume::Sender<ringmain_shards::observe::Question> {
        flume::bounded(1).0
    }

    fn shut_down(&mut self, grace: Duration) {
        self.asked.lock().expect("not poisoned").shut_down.push(grace);
        if self.answers_shutdown {
            let _ = self.events.send(Event::Stopped);
        }
    }
}

/// Runs a root over these events, with the file's text replaced before each reload.
struct Bench {
    sources: Sources,
    asked: Arc<Mutex<Asked>>,
    code: ExitCode,
}

fn run_with(name: &str, texts: &[&str], events: Vec<Event>, answers_shutdown: bool) -> Bench {
    let file = std::env::temp_dir().join(format!("ringmain-{}-{name}.toml", std::process::id()));
    let write = |text: &str| std::fs::write(&file, text).expect("writes");
    write(texts.first().expect("a first text"));
    let sources = Sources { file: Some(PathBuf::from(&file)), ..Sources::default() };
    let config = Arc::new(sources.load().expect("valid"));
    let logging = logging::init(&config.log);
    let asked = Arc::new(Mutex::new(Asked::default()));
    let (sender, receiver) = channel();
    let plane = Recorder { asked: Arc::clone(&asked), events: sender.clone(), answers_shutdown };
    let mut root = Root {
        config,
        sources: &sources,
        logging: &logging,
        supervisor: Supervisor::default(),
        plane: Box::new(plane),
        control: None,
        listening: String::new(),
        deadline: None,
    };
    for text in texts.iter().skip(1) {
        write(text);
        root.on_event(Event::Signal(Signal::Reload));
    }
    for event in events {
        sender.send(event).expect("is read");
    }
    let code = root.run(&receiver);
    let _ = std::fs::remove_file(&file);
    Bench { sources, asked, code }
}

fn stop() -> Event {
    Event::Signal(Signal::Stop)
}

#[test]
fn a_signal_to_stop_ends_with_success_once_the_shards_have_ended() {
    let text = "[node]\nshutdown_grace_ms = 600000";
    let bench = run_with("stop", &[text], vec![Event::Ready(vec![]), stop()], true);
    assert_eq!(bench.code, ExitCode::SUCCESS);
    assert_eq!(bench.asked.lock().expect("ok").shut_down, [Duration::from_secs(600)]);
}

#[test]
fn shards_that_do_not_end_are_left_behind_after_the_grace_time() {
    let bench = run_with("grace", &["[node]\nshutdown_grace_ms = 20"], vec![stop()], false);
    assert_eq!(bench.code, ExitCode::SUCCESS);
}

#[test]
fn a_second_signal_to_stop_ends_at_once() {
    let text = "[node]\nshutdown_grace_ms = 600000";
    let bench = run_with("second", &[text], vec![stop(), stop()], false);
    assert_eq!(bench.code, ExitCode::FAILURE);
    assert_eq!(bench.asked.lock().expect("ok").shut_down.len(), 1);
}

#[test]
fn shards_that_end_or_fail_by_themselves_are_a_failure() {
    let bench = run_with("ended", &[""], vec![Event::Stopped], false);
    assert_eq!(bench.code, ExitCode::FAILURE);
    let bench = run_with("failed", &[""], vec![Event::Failed("shard 0".into())], false);
    assert_eq!(bench.code, ExitCode::FAILURE);
}

#[test]
fn a_reload_takes_live_keys_to_the_data_plane() {
    let texts = ["[mqtt]\nmax_qos = 2", "[mqtt]\nmax_qos = 1", "[mqtt]\nmax_qos = 1"];
    let bench = run_with("live", &texts, vec![stop()], true);
    assert!(bench.sources.file.is_some());
    let asked = bench.asked.lock().expect("ok");
    let [(config, changes)] = asked.applied.as_slice() else { panic!("{asked:?}") };
    assert_eq!(config.mqtt.max_qos, 1);
    assert_eq!(config.listeners[0].mqtt.max_qos, 1);
    assert_eq!(changes.keys.len(), 1);
    assert!(changes.touches("mqtt") && !changes.touches("log"));
}

#[test]
fn a_bad_file_or_a_key_that_needs_a_restart_changes_nothing() {
    let bad = "[mqtt]\nmax_qos = 1\nmax_qoss = 1";
    let restart = "[mqtt]\nmax_qos = 1\n[node]\nshards = 3";
    let bench = run_with("bad", &["", bad, restart, "[mqtt"], vec![stop()], true);
    assert!(bench.asked.lock().expect("ok").applied.is_empty());
}

//! The data plane of this process: shards on the reactor, and the thread that watches them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmain_acl::Policy;
use ringmain_shards::boundary::{self, Control, LogLevel, Pressure};
use ringmain_shards::engine::Shard;
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::ids::{Now, ShardId};
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::observe::Question;
use ringmain_shards::reactor::{self, Node};

use super::authentication::Authentication;
use super::bans::BanFile;
use super::convert::{engine_config, node_config};
use super::descriptors;
use super::memory::Watermarks;
use super::observer::{self, Answer, Observer};
use super::transports::{self, Transports};
use super::watchdog::Watchdog;
use super::{DataPlane, Event, Notifier, refusal};
use crate::authorization::Rules;
use crate::config::{Config, Listener, LiveChanges};

/// Starts the shards.
///
/// # Errors
/// See [`super::Start`].
pub fn start(config: Arc<Config>, notifier: Notifier) -> Result<Box<dyn DataPlane>, String> {
    let listeners = openable(&config.listeners)?;
    let mut node_cfg = node_config(&config, &listeners)?;
    let transports = Transports::load(&listeners)?;
    for (index, listener) in node_cfg.listeners.iter_mut().enumerate() {
        listener.layers = transports.layers(index);
    }
    let open: Vec<String> = listeners.iter().map(|l| l.name.clone()).collect();
    let (bans, banned) =
        BanFile::open(crate::bans::place(&config)).map_err(|errors| errors.join("\n"))?;
    let rules = Rules::new(&config.authorization);
    let engine = engine_of(&config, &open, rules.policy());
    let authentication = Authentication::start(&config, &open)?;
    node_cfg.authenticator = Some(authentication.authenticator());
    let shards = node_cfg.shards.len();
    node_cfg.event_queue = node_cfg.event_queue.max(shards * 64);
    let seed = match config.node.hash_seed {
        0 => fastrand::u64(..),
        seed => seed,
    };
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let shared = Arc::new(NodeShared::new(shards, seed, unix_ms as u64, &engine));
    let node_shared = Arc::clone(&shared);
    let factory = {
        let engine = Arc::clone(&engine);
        move |shard: ShardId| {
            let (cfg, node) = (Arc::clone(&engine), Arc::clone(&shared));
            let now = Now { mono_ns: 0, unix_ms: unix_ms as u64 };
            let mut shard = Shard::new(shard, cfg, node, fastrand::u64(..), now);
            shard.set_bans(Arc::clone(&banned));
            shard
        }
    };
    let node = reactor::run(&node_cfg, factory).map_err(|e| refusal::explained(&e, shards))?;
    authentication.answer_to(node.handles());
    for d in &node.kernel().degradations {
        tracing::warn!(
            feature = ?d.feature,
            since = d.since,
            cost = d.cost,
            "the kernel lacks a feature"
        );
    }
    tracing::info!(shards, "shards run");
    let addresses = node.local_addrs().iter().map(ToString::to_string).collect();
    notifier.send(Event::Ready(addresses));
    let (orders, inbox) = flume::bounded(16);
    let (questions, asked) = flume::bounded(observer::QUESTIONS);
    let (answers, answered) = flume::bounded(observer::ANSWERS);
    let stall_ms = config.observe.stall_ms;
    let observer = Observer {
        node: config.node.name.clone(),
        shared: node_shared,
        handles: node.handles().to_vec(),
        lookout: node.lookout(),
        questions: asked,
        answers: answered,
        certificates: transports.certificates(),
        stall: (stall_ms != 0).then(|| Duration::from_millis(stall_ms.into())),
    };
    spawn("ringmain-observe", move || observer.run())?;
    let (to_transports, transport_orders) = flume::bounded(transports::ORDERS);
    let switch = node.layers_switch();
    spawn("ringmain-tls", move || transports.run(switch, transport_orders))?;
    let watcher = Watcher {
        node,
        answers,
        notifier,
        inbox,
        watch: Watch::new(&config),
        bans,
        watchdog: Watchdog::from_env(shards, Instant::now()),
        pressure: Pressure::Normal,
        descriptors_scarce: false,
    };
    spawn("ringmain-watch", move || watcher.run())?;
    Ok(Box::new(Plane { orders, to_transports, open, questions, rules, authentication }))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|e| format!("cannot start a thread: {e}"))
}

/// The engine knows listeners by their index at the reactor: those that are open.
fn engine_of(config: &Config, open: &[String], policy: &Arc<Policy>) -> Arc<EngineConfig> {
    let mut engine = engine_config(config, policy);
    engine.listeners.retain(|l| open.contains(&l.name));
    Arc::new(engine)
}

/// The listeners that this host has the addresses for. One that must not fail is kept: the reactor
/// says what is wrong with it.
fn openable(listeners: &[Listener]) -> Result<Vec<Listener>, String> {
    let has = |l: &Listener| {
        l.url.addr().is_none_or(|addr| std::net::TcpListener::bind((addr.ip(), 0)).is_ok())
    };
    let (open, missing): (Vec<_>, Vec<_>) =
        listeners.iter().cloned().partition(|l| !l.optional || has(l));
    for l in missing {
        tracing::warn!(listener = l.name, "this host does not have the address; not listening");
    }
    if open.is_empty() { Err("no listener can be opened".to_owned()) } else { Ok(open) }
}

/// What the watcher looks at.
struct Watch {
    marks: Watermarks,
    check_interval: Duration,
    /// Ordinary descriptors above which they are scarce, of how many.
    descriptors_high: u64,
    descriptors_limit: u64,
}

impl Watch {
    fn new(config: &Config) -> Self {
        let (limits, overload) = (&config.limits, &config.overload);
        let percent = u64::from(overload.descriptors_high_percent);
        let limit = descriptors::limit();
        let high = limit.saturating_mul(percent) / 100;
        Self {
            marks: Watermarks::new(limits.memory_high_bytes, limits.memory_critical_bytes),
            check_interval: Duration::from_millis(overload.check_interval_ms.into()),
            descriptors_high: if overload.enabled { high } else { u64::MAX },
            descriptors_limit: limit,
        }
    }
}

/// What the root asks of the watcher.
enum Order {
    Apply { engine: Arc<EngineConfig>, watch: Watch },
    ShutDown { grace: Duration },
}

/// The root's handle.
struct Plane {
    orders: flume::Sender<Order>,
    to_transports: flume::Sender<transports::Order>,
    /// Names of the listeners that are open.
    open: Vec<String>,
    questions: flume::Sender<Question>,
    rules: Rules,
    authentication: Authentication,
}

impl Plane {
    fn tell_transports(&self, order: transports::Order) {
        if self.to_transports.try_send(order).is_err() {
            tracing::error!("certificates are still being read; try again");
        }
    }
}

impl DataPlane for Plane {
    fn apply(&mut self, config: Arc<Config>, _changes: &LiveChanges) {
        // First: no shard asks before there is somebody to answer.
        if let Err(why) = self.authentication.apply(&config, &self.open) {
            tracing::error!("{why}");
            return tracing::error!("nothing was changed: a file of [[authentication]] has errors");
        }
        if self.rules.follow(&config.authorization) {
            let policy = self.rules.policy();
            tracing::info!(rules = policy.rule_count(), epoch = policy.epoch(), "other rules hold");
        }
        let engine = engine_of(&config, &self.open, self.rules.policy());
        let order = Order::Apply { engine, watch: Watch::new(&config) };
        if self.orders.try_send(order).is_err() {
            tracing::error!("the shards did not take the configuration; try again");
        }
        self.tell_transports(transports::Order::Apply(config));
        self.authentication.refresh();
    }

    fn refresh(&mut self) {
        self.tell_transports(transports::Order::Refresh);
        self.authentication.refresh();
    }

    fn questions(&self) -> flume::Sender<Question> {
        self.questions.clone()
    }

    fn shut_down(&mut self, grace: Duration) {
        // The watcher reads its orders at least once in a check interval.
        if self.orders.send(Order::ShutDown { grace }).is_err() {
            tracing::error!("the watcher has ended; nobody can be told");
        }
    }
}

/// Lives on: its own thread. Reads what the shards tell, samples memory, ends the node.
struct Watcher {
    node: Node,
    /// To the observer.
    answers: flume::Sender<Answer>,
    notifier: Notifier,
    inbox: flume::Receiver<Order>,
    watch: Watch,
    bans: BanFile,
    /// Where the supervisor wants signs of life.
    watchdog: Option<Watchdog>,
    pressure: Pressure,
    descriptors_scarce: bool,
}

impl Watcher {
    fn run(mut self) {
        loop {
            let next = flume::Selector::new()
                .recv(&self.inbox, |order| order.ok().map(Next::Order))
                .recv(self.node.events(), |event| event.ok().map(Next::Event))
                .wait_timeout(self.patience());
            match next {
                Ok(Some(Next::Event(event))) => self.on_event(event),
                Ok(Some(Next::Order(Order::Apply { engine, watch }))) => {
                    self.watch = watch;
                    self.tell_all(&Control::Reload(engine));
                }
                Ok(Some(Next::Order(Order::ShutDown { grace }))) => return self.shut_down(grace),
                // Every sender of one side is gone: the shards have ended.
                Ok(None) => break,
                Err(_) => {}
            }
            self.sample();
            if let Some(bans) = self.bans.look(Instant::now()) {
                self.tell_all(&Control::Bans(bans));
            }
            if !self.node.ready() {
                break;
            }
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.look(&self.node, Instant::now());
            }
        }
        let why = self.node.join().err().unwrap_or_else(|| "the shards ended".to_owned());
        self.notifier.send(Event::Failed(why));
    }

    /// How long nothing may be heard before there is something to look at.
    fn patience(&self) -> Duration {
        let interval = self.watch.check_interval;
        let now = Instant::now();
        self.watchdog.as_ref().map_or(interval, |w| w.due().duration_since(now).min(interval))
    }

    fn on_event(&mut self, event: boundary::Event) {
        let answer = match event {
            boundary::Event::Log { shard, level, text } => return log(shard, level, &text),
            boundary::Event::Report { report } => Answer::Report { report },
            boundary::Event::Turns { token, spans } => Answer::Turns { token, spans },
            boundary::Event::Stats { shard, token, .. } => {
                return self.watchdog.iter_mut().for_each(|w| w.answered(shard, token));
            }
            _ => return,
        };
        // The observer takes them faster than shards can send them; if it ended, so does the node.
        let _ = self.answers.try_send(answer);
    }

    fn sample(&mut self) {
        self.sample_descriptors();
        let Some(used) = self.watch.marks.used_bytes() else { return };
        let pressure = self.watch.marks.pressure(used, self.pressure);
        if pressure != self.pressure {
            self.pressure = pressure;
            tracing::warn!(?pressure, used_bytes = used, "memory watermark");
            self.tell_all(&Control::Pressure(pressure));
        }
    }

    fn sample_descriptors(&mut self) {
        let used = descriptors::open();
        let scarce = used > self.watch.descriptors_high;
        if scarce != self.descriptors_scarce {
            self.descriptors_scarce = scarce;
            let limit = self.watch.descriptors_limit;
            tracing::warn!(scarce, used, limit, "descriptors; when scarce, no new connections");
            self.tell_all(&Control::DescriptorsScarce(scarce));
        }
    }

    fn tell_all(&self, control: &Control) {
        for handle in self.node.handles() {
            if let Err(error) = handle.send(control.clone()) {
                tracing::error!(shard = handle.shard().0, %error, "an order was lost");
            }
        }
    }

    /// Ends all connections, then the shards. [S-20]
    fn shut_down(mut self, grace: Duration) {
        let end = Instant::now() + grace;
        self.node.stop_accepting();
        self.tell_all(&Control::Drain);
        let mut open = self.node.handles().len();
        while open > 0 && Instant::now() < end {
            let next = self.watchdog.as_ref().map_or(end, |w| w.due().min(end));
            match self.node.events().recv_deadline(next) {
                Ok(boundary::Event::Drained { .. }) => open -= 1,
                Ok(event) => self.on_event(event),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => break,
            }
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.look_while_ending(Instant::now());
            }
        }
        for (shard, stats) in self.node.stats().iter().enumerate() {
            tracing::debug!(shard, ?stats, "counters of the reactor");
        }
        self.node.stop();
        let event = match self.node.join() {
            Ok(()) => Event::Stopped,
            Err(why) => Event::Failed(why),
        };
        self.notifier.send(event);
    }
}

enum Next {
    Order(Order),
    Event(boundary::Event),
}

fn log(shard: ShardId, level: LogLevel, text: &str) {
    match level {
        LogLevel::Debug => tracing::debug!(shard = shard.0, "{text}"),
        LogLevel::Info => tracing::info!(shard = shard.0, "{text}"),
        LogLevel::Warn => tracing::warn!(shard = shard.0, "{text}"),
    }
}

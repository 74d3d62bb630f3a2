//! What a run is like: how many of what, and how likely. Drawn from the seed, within a theme.

use ringmain_shards::engine::config::QueueDropPolicy;

use crate::rng::Rng;
use crate::world::{AuthConfig, WorldConfig};

/// Watchers of wills: the first devices.
pub const WATCHERS: usize = 2;

/// Themes; a seed takes them in turn unless one is named.
pub const NAMES: &[&str] = &[
    "mixed",
    "takeover",
    "retained",
    "shared",
    "will",
    "expiry",
    "slow",
    "lanes",
    "keepalive",
    "resume",
    "drain",
    "pressure",
];

/// What a connected device does next, by weight.
#[derive(Clone, Debug)]
pub struct Acts {
    /// PUBLISH.
    pub publish: u32,
    /// SUBSCRIBE.
    pub subscribe: u32,
    /// UNSUBSCRIBE.
    pub unsubscribe: u32,
    /// PINGREQ.
    pub ping: u32,
    /// DISCONNECT 0x00.
    pub goodbye: u32,
    /// DISCONNECT 0x04 (MQTT 5).
    pub goodbye_with_will: u32,
    /// FIN without DISCONNECT.
    pub fin: u32,
    /// RST.
    pub reset: u32,
    /// Goes silent.
    pub vanish: u32,
    /// Connects again while connected.
    pub takeover: u32,
    /// Connects several times at once.
    pub race: u32,
    /// Nothing.
    pub idle: u32,
}

/// Chances are per mille.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Theme.
    pub name: &'static str,
    /// World.
    pub world: WorldConfig,
    /// Devices, watchers of wills not counted.
    pub devices: usize,
    /// Steps of chaos in a round.
    pub steps: u64,
    /// Rounds of chaos and calm.
    pub rounds: u32,
    /// What devices do.
    pub acts: Acts,
    /// Weights of versions 3, 4, 5.
    pub versions: [u32; 3],
    /// Weights of QoS 0, 1, 2 of publishes and subscriptions.
    pub qos: [u32; 3],
    /// Topics `t/0`, `t/1`, …
    pub topics: usize,
    /// RETAIN.
    pub retain: u32,
    /// Empty payload among retained messages.
    pub clear: u32,
    /// Message Expiry Interval.
    pub expiry: u32,
    /// Topic aliases, both ways.
    pub alias: u32,
    /// Payload above what small clients take.
    pub big: u32,
    /// Maximum Packet Size.
    pub packet_max: u32,
    /// Receive Maximum.
    pub receive_max: u32,
    /// `$share` among filters.
    pub share: u32,
    /// Wills among connects.
    pub will: u32,
    /// Will Delay Interval among wills.
    pub will_delay: u32,
    /// Clean Start.
    pub clean: u32,
    /// A session expiry of 0 among MQTT 5 connects.
    pub mayfly: u32,
    /// A session expiry of 1..=4 s among MQTT 5 connects.
    pub short_expiry: u32,
    /// Keep Alive of 1..=3 s.
    pub keep_alive: u32,
    /// Devices that read slowly.
    pub slow_readers: u32,
    /// Devices that acknowledge late.
    pub slow_acks: u32,
    /// Devices that do not acknowledge before the calm.
    pub never_acks: u32,
    /// PUBACK or PUBREC with 0x80 (MQTT 5).
    pub refuse: u32,
    /// A shard stalls, per step.
    pub stall: u32,
    /// Time leaps, per step.
    pub leap: u32,
    /// Longest leap, in ms.
    pub leap_max_ms: u64,
    /// The wall clock jumps, per step.
    pub wall_jump: u32,
    /// Memory pressure changes, per step.
    pub pressure: u32,
    /// The node drains at the end of chaos, and the run ends there.
    pub drain: bool,
    /// `max_mqueue_len`; 0 = never full.
    pub mqueue_len: u32,
    /// `max_inflight`.
    pub max_inflight: u16,
    /// `receive_maximum` of the server.
    pub server_receive_max: u16,
    /// `out_buffer_bytes`.
    pub out_buffer: u32,
    /// Index of the strategy of shared groups.
    pub strategy: usize,
    /// Messages of offline members move when their session ends only.
    pub redispatch_late: bool,
    /// QoS 0 is queued for offline sessions.
    pub store_qos0: bool,
    /// What goes when a queue is full.
    pub queue_policy: QueueDropPolicy,
    /// An administrator ends a connection or a session, per step.
    pub kick: u32,
    /// An administrator looks at a session, per step.
    pub dump: u32,
    /// The configuration changes, per step.
    pub reload: u32,
}

impl Scenario {
    /// The scenario of a seed. `theme` and `shards` override what the seed says.
    #[must_use]
    pub fn of_seed(seed: u64, theme: Option<&str>, shards: Option<usize>, steps: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5CE7_A210);
        let turn = NAMES[(seed % NAMES.len() as u64) as usize];
        let name = theme.and_then(|t| NAMES.iter().find(|n| **n == t)).copied().unwrap_or(turn);
        let mut s = Self::plain(name, &mut rng, steps);
        s.apply_theme(&mut rng);
        s.administer(&mut Rng::new(seed ^ 0xAD31_2157));
        s.authenticate(&mut Rng::new(seed ^ 0x0A07_4E71));
        if let Some(n) = shards {
            s.world.shards = n;
        }
        s
    }

    fn plain(name: &'static str, rng: &mut Rng, steps: u64) -> Self {
        Self {
            name,
            world: WorldConfig {
                shards: *rng.pick(&[1, 2, 2, 3, 3, 4, 5]),
                mailbox_cap: *rng.pick(&[1, 3, 64]),
                turn_max: *rng.pick(&[1, 4, 16]),
                socket_cap: 4096,
                tick_late_ms: 0,
                move_late_ms: *rng.pick(&[0, 1, 20]),
                packetwise: false,
                auth: None,
            },
            devices: rng.range(3, 7) as usize,
            steps,
            rounds: 2,
            acts: Acts {
                publish: 400,
                subscribe: 60,
                unsubscribe: 25,
                ping: 10,
                goodbye: 8,
                goodbye_with_will: 4,
                fin: 8,
                reset: 8,
                vanish: 3,
                takeover: 8,
                race: 3,
                idle: 100,
            },
            versions: [1, 3, 6],
            qos: [1, 1, 1],
            topics: rng.range(2, 5) as usize,
            retain: 100,
            clear: 200,
            expiry: 30,
            alias: 300,
            big: 30,
            packet_max: 100,
            receive_max: 500,
            share: 100,
            will: 300,
            will_delay: 500,
            clean: 150,
            mayfly: 150,
            short_expiry: 100,
            keep_alive: 150,
            slow_readers: 100,
            slow_acks: 300,
            never_acks: 50,
            refuse: 10,
            stall: 1,
            leap: 2,
            leap_max_ms: 300,
            wall_jump: 1,
            pressure: 0,
            drain: false,
            mqueue_len: 0,
            max_inflight: *rng.pick(&[1, 2, 5, 32]),
            server_receive_max: *rng.pick(&[2, 10, 50]),
            out_buffer: 1 << 20,
            strategy: rng.below(8),
            redispatch_late: rng.chance(500),
            store_qos0: rng.chance(200),
            queue_policy: QueueDropPolicy::Oldest,
            kick: 0,
            dump: 0,
            reload: 0,
        }
    }

    /// What an administrator sets and does: apart from the theme, in some of the seeds.
    fn administer(&mut self, rng: &mut Rng) {
        if rng.chance(60) {
            self.mqueue_len = *rng.pick(&[1, 4, 20]);
        }
        self.queue_policy =
            *rng.pick(&[QueueDropPolicy::Oldest, QueueDropPolicy::Newest, QueueDropPolicy::Reject]);
        // A refusal closes connections of version 3: what they sent after it is not looked at.
        self.world.packetwise |=
            self.mqueue_len > 0 && self.queue_policy == QueueDropPolicy::Reject;
        self.kick = if rng.chance(150) { *rng.pick(&[1, 5]) } else { 0 };
        self.dump = if rng.chance(150) { 2 } else { 0 };
        self.reload = if rng.chance(150) { *rng.pick(&[1, 5]) } else { 0 };
    }

    /// In some of the seeds clients are let in only after a verdict.
    fn authenticate(&mut self, rng: &mut Rng) {
        if rng.chance(300) {
            let late_ms = *rng.pick(&[0, 5, 200]);
            let refuse = *rng.pick(&[0, 0, 100]);
            self.world.auth = Some(AuthConfig { late_ms, refuse, spared: WATCHERS });
        }
    }

    fn apply_theme(&mut self, rng: &mut Rng) {
        match self.name {
            "takeover" => {
                self.acts.takeover = 60;
                self.acts.race = 30;
                self.devices = 4;
                self.clean = 100;
                self.mayfly = 80;
            }
            "retained" => {
                self.retain = 600;
                self.acts.subscribe = 120;
                self.share = 0;
                self.expiry = 0;
                self.topics = rng.range(3, 12) as usize;
            }
            "shared" => {
                self.share = 600;
                self.retain = 20;
                self.qos = [1, 4, 2];
                self.acts.subscribe = 80;
            }
            "will" => {
                self.will = 900;
                self.acts.fin = 25;
                self.acts.reset = 25;
                self.acts.goodbye = 25;
                self.acts.goodbye_with_will = 15;
                self.short_expiry = 300;
            }
            "expiry" => {
                self.short_expiry = 500;
                self.expiry = 300;
                self.leap = 10;
                self.acts.fin = 20;
                self.acts.goodbye = 20;
            }
            "slow" => {
                self.slow_readers = 500;
                self.slow_acks = 600;
                self.never_acks = 150;
                self.world.socket_cap = *rng.pick(&[64, 256, 1024]);
                self.out_buffer = *rng.pick(&[512, 4096, 1 << 20]);
                self.mqueue_len = *rng.pick(&[0, 5, 40]);
            }
            "lanes" => {
                self.world.mailbox_cap = 1;
                self.world.turn_max = 4;
                self.world.shards = rng.range(2, 5) as usize;
                self.stall = 8;
                self.acts.publish = 800;
            }
            "keepalive" => {
                self.keep_alive = 800;
                self.acts.vanish = 20;
                self.leap = 20;
                self.acts.publish = 100;
            }
            "resume" => {
                self.clean = 30;
                self.mayfly = 0;
                self.short_expiry = 0;
                self.acts.fin = 20;
                self.acts.reset = 20;
                self.acts.goodbye = 10;
                self.slow_acks = 600;
                self.qos = [1, 3, 3];
                self.share = 0;
            }
            "drain" => self.drain = true,
            "pressure" => {
                self.pressure = 4;
                self.world.packetwise = true;
            }
            _ => {}
        }
    }

    /// Name of topic `i`.
    #[must_use]
    pub fn topic(i: usize) -> String {
        if i % 3 == 2 { format!("t/{i}/x") } else { format!("t/{i}") }
    }
}

//! The command line of `ringmain-load million`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::plan::End;

/// `million`: hold so many connections with a subscription each in one broker process, from this one
/// process, and show that the broker serves them.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Connections with one subscription each. Where the host has no room for all of them, as many
    /// as fit, which is said.
    #[arg(short = 'c', long, default_value_t = 1_000_000)]
    pub count: u32,
    /// Address of a broker that runs already; without it Ringmain is started on 127.0.0.1.
    #[arg(short = 'h', long)]
    pub host: Option<IpAddr>,
    /// Its port, or the port to start Ringmain on.
    #[arg(short = 'p', long, default_value_t = 1883)]
    pub port: u16,
    /// Process of the broker that runs already; found by the port where this user may look.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Ringmain's binary; without it the one beside this program, or the first in PATH.
    #[arg(long)]
    pub broker: Option<PathBuf>,
    /// Setting for the broker that is started, as SECTION.KEY=VALUE; repeatable.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Local addresses to connect from, separated by commas. Without it, as many of 127.0.0.0/8 as
    /// the connections need when the broker is there, else what the kernel chooses.
    #[arg(long, value_delimiter = ',')]
    pub ifaddr: Vec<IpAddr>,
    /// Threads; without it one for each CPU. A single one shares its CPU with a shard of a broker on
    /// this host, and waits for it while another CPU has nothing to do.
    #[arg(long)]
    pub workers: Option<usize>,
    /// CPUs for the threads, separated by commas; without it all, where --workers is not given either.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Connections that may be opening at once.
    #[arg(long, default_value_t = 512)]
    pub in_flight: usize,
    /// New connections a second; without it as fast as --in-flight allows.
    #[arg(short = 'R', long)]
    pub connrate: Option<f64>,
    /// Keep Alive in seconds. A client sends PINGREQ after 3/4 to 7/8 of it.
    #[arg(short = 'k', long, default_value_t = 300)]
    pub keepalive: u16,
    /// Seconds to keep all connections alive with nothing else going on.
    #[arg(long, default_value_t = 600.0)]
    pub hold: f64,
    /// QoS of the message to each, of the subscriptions, and of the pairs.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Messages a second when one is sent to each.
    #[arg(long, default_value_t = 20_000.0)]
    pub each_rate: f64,
    /// Pairs of a publisher and a subscriber that talk beside the idle connections; 0 for none.
    #[arg(long, default_value_t = 100)]
    pub pairs: u32,
    /// Messages a second over all pairs.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// Seconds that the pairs talk.
    #[arg(short = 'd', long, default_value_t = 30.0)]
    pub duration: f64,
    /// How all connections end at once in the storm.
    #[arg(long, value_enum, default_value_t = End::Fin)]
    pub storm: End,
    /// No storm.
    #[arg(long)]
    pub no_storm: bool,
    /// Connections that may be opening at once in the storm.
    #[arg(long, default_value_t = 2_048)]
    pub storm_in_flight: usize,
    /// Seconds after which a connection that is not ready has failed and is tried again.
    #[arg(long, default_value_t = 30.0)]
    pub connect_timeout: f64,
    /// End the run when less memory than this is available on the host, in MiB.
    #[arg(long, default_value_t = 1_024)]
    pub memory_floor: u64,
    /// Run in a network namespace made for it, whose table of established connections has room for
    /// them: what booting with thash_entries does. Needs root; nobody outside reaches the broker.
    #[arg(long, conflicts_with = "host")]
    pub netns: bool,
    /// Say what would stop the run and at what count, and do nothing else.
    #[arg(long)]
    pub preflight: bool,
    /// A target that is missed makes the exit status 1, as an error does.
    #[arg(long)]
    pub strict: bool,
    /// Write the result as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// No progress lines.
    #[arg(long)]
    pub quiet: bool,
}

impl Options {
    /// Where the broker is, or will be.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        SocketAddr::new(self.host.unwrap_or(here), self.port)
    }

    /// Clients that are not idle: the one that sends a message to each, and the pairs.
    #[must_use]
    pub fn busy(&self) -> u64 {
        1 + 2 * u64::from(self.pairs)
    }

    /// Threads, and the CPUs for them, in turn.
    #[must_use]
    pub fn threads(&self) -> (usize, Vec<usize>) {
        match self.workers {
            Some(workers) => (workers, self.cpus.clone()),
            None => {
                let all = crate::environment::allowed_cpus();
                let cpus = if self.cpus.is_empty() { all } else { self.cpus.clone() };
                (cpus.len().max(1), cpus)
            }
        }
    }

    /// Checks the relations between the options.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let positive = |n: f64| n.is_finite() && n > 0.0;
        if self.count == 0
            || self.workers == Some(0)
            || self.in_flight == 0
            || self.storm_in_flight == 0
        {
            return Err("connections, workers and connections in flight start at 1".into());
        }
        if !positive(self.each_rate) || !positive(self.rate) || !positive(self.connect_timeout) {
            return Err("rates and the connect timeout are above 0".into());
        }
        if self.connrate.is_some_and(|rate| !positive(rate)) {
            return Err("a connect rate is above 0".into());
        }
        seconds(self.hold)?;
        seconds(self.duration).map(drop)
    }
}

/// Seconds of the command line.
pub(super) fn seconds(s: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(s).map_err(|e| format!("{s} seconds: {e}"))
}

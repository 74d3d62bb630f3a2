//! The node as metrics for Prometheus.
//!
//! A counter of `$SYS` at `metrics/a/b` is `ringmain_a_b_total`. What was dropped for a reason is one metric,
//! `ringmain_drops_total`. Figures of a shard have its index in the label `shard`; those that only the shard knows are
//! missing while it does not answer.

mod help;
mod histograms;

use ringmain_kernel_params::counters::Trouble;
use ringmain_shards::engine::counters::Counters;
use ringmain_shards::observe::{CertificateView, NodeView, PerTurn, Report, ShardView, Stage};

use crate::fields;
use crate::process::Process;
use crate::text::{Kind, Text};

/// Nanoseconds, as what Prometheus counts in.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What is not the shards' to say.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The process.
    pub(crate) process: Process,
    /// When it started, s since the Unix epoch.
    pub(crate) started_unix_s: f64,
    /// Counters of the kernel that betray trouble.
    pub(crate) kernel: Vec<Trouble>,
    /// Connections to the control plane that were refused, for there were too many.
    pub(crate) refused: u64,
}

/// All metrics.
pub(crate) fn text(view: &NodeView, surroundings: &Surroundings) -> String {
    let shards = Shards(view.shards.iter().map(|s| (s.shard.0.to_string(), s)).collect());
    let mut text = Text::default();
    node(&mut text, view);
    state(&mut text, &shards);
    counters(&mut text, &shards);
    drops(&mut text, &shards);
    gauges(&mut text, &shards);
    memory(&mut text, &shards);
    times(&mut text, &shards);
    rings(&mut text, &shards);
    durations(&mut text, &shards);
    process(&mut text, view, surroundings);
    kernel(&mut text, &surroundings.kernel);
    text.finish()
}

/// Shards with the values of their labels.
struct Shards<'a>(Vec<(String, &'a ShardView)>);

impl<'a> Shards<'a> {
    /// All.
    fn all(&self) -> impl Iterator<Item = (&str, &'a ShardView)> {
        self.0.iter().map(|(label, shard)| (label.as_str(), *shard))
    }

    /// Those that answered.
    fn reports(&self) -> impl Iterator<Item = (&str, &'a Report)> {
        self.all().filter_map(|(label, shard)| Some((label, shard.report.as_deref()?)))
    }

    /// One value of each that answered.
    fn each(
        &self,
        text: &mut Text,
        name: &str,
        kind: Kind,
        help: &str,
        of: impl Fn(&Report) -> u64,
    ) {
        let mut metric = text.metric(name, kind, help);
        for (shard, report) in self.reports() {
            metric.sample(&[("shard", shard)], of(report));
        }
    }
}

fn node(text: &mut Text, view: &NodeView) {
    text.metric("ringmain_build_info", Kind::Gauge, "1, with the version of the broker.")
        .sample(&[("version", view.version)], 1);
    text.metric("ringmain_node_info", Kind::Gauge, "1, with the name of the node.")
        .sample(&[("node", &view.node)], 1);
    text.metric("ringmain_uptime_seconds", Kind::Gauge, "Time since the broker started.")
        .sample(&[], view.uptime_ms as f64 / 1e3);
    text.metric(
        "ringmain_route_table_bytes",
        Kind::Gauge,
        "Memory of the route table that all shards share.",
    )
    .sample(&[], view.route_table_bytes);
    let help = "Until when a certificate that a listener shows is valid, in seconds since 1970.";
    let name = "ringmain_tls_certificate_expiry_timestamp_seconds";
    let mut expiry = text.metric(name, Kind::Gauge, help);
    for CertificateView { listener, file, subject, not_after_s } in &view.certificates {
        let labels = [("listener", &**listener), ("file", &**file), ("subject", &**subject)];
        expiry.sample(&labels, *not_after_s);
    }
}

fn state(text: &mut Text, shards: &Shards<'_>) {
    let help =
        "1 if the shard answered within a second; 0 if not, then what only it knows is missing.";
    let mut up = text.metric("ringmain_shard_up", Kind::Gauge, help);
    for (shard, view) in shards.all() {
        up.sample(&[("shard", shard)], u8::from(view.report.is_some()));
    }
    let help = "How long the present turn lasts already; 0 while that is below the stall limit.";
    let mut stalled = text.metric("ringmain_stalled_seconds", Kind::Gauge, help);
    for (shard, view) in shards.all() {
        let ms = view.stalled_ms.unwrap_or(0);
        stalled.sample(&[("shard", shard)], ms as f64 / 1e3);
    }
    let mut stalls = text.metric(
        "ringmain_stalls_total",
        Kind::Counter,
        "Turns that lasted longer than the stall limit.",
    );
    for (shard, view) in shards.all() {
        stalls.sample(&[("shard", shard)], view.stalls);
    }
}

fn counters(text: &mut Text, shards: &Shards<'_>) {
    let reports: Vec<Vec<u64>> = shards.reports().map(|(_, r)| values(&r.counters)).collect();
    for (nth, (path, _)) in Counters::default().metrics().enumerate() {
        if reason(path).is_some() {
            continue;
        }
        let mut metric = text.metric(&counter_name(path), Kind::Counter, &help::counter(path));
        for ((shard, _), values) in shards.reports().zip(&reports) {
            metric.sample(&[("shard", shard)], values[nth]);
        }
    }
}

fn values(counters: &Counters) -> Vec<u64> {
    counters.metrics().map(|(_, value)| value).collect()
}

/// The metric of a counter below `$SYS/brokers/<node>/metrics/`.
fn counter_name(path: &str) -> String {
    match path {
        // The unit comes last.
        "bytes/received" => "ringmain_received_bytes_total".to_owned(),
        "bytes/sent" => "ringmain_sent_bytes_total".to_owned(),
        _ => format!("ringmain_{}_total", path.replace('/', "_")),
    }
}

/// What was dropped and why, of a counter that says so.
fn reason(path: &str) -> Option<(&'static str, &str)> {
    let copies = path.strip_prefix("delivery/dropped/").map(|why| ("copy", why));
    copies.or_else(|| path.strip_prefix("messages/dropped/").map(|why| ("message", why)))
}

fn drops(text: &mut Text, shards: &Shards<'_>) {
    let mut metric = text.metric("ringmain_drops_total", Kind::Counter, help::DROPS);
    for (shard, report) in shards.reports() {
        for (path, value) in report.counters.metrics() {
            if let Some((what, why)) = reason(path) {
                metric.sample(&[("shard", shard), ("what", what), ("reason", why)], value);
            }
        }
    }
}

fn gauges(text: &mut Text, shards: &Shards<'_>) {
    for (nth, (field, _)) in fields::gauges(&Default::default()).into_iter().enumerate() {
        let (name, help) = help::gauge(field);
        shards.each(text, name, Kind::Gauge, help, |r| fields::gauges(&r.gauges)[nth].1);
    }
}

fn memory(text: &mut Text, shards: &Shards<'_>) {
    let mut metric = text.metric("ringmain_memory_bytes", Kind::Gauge, help::MEMORY);
    for (shard, report) in shards.reports() {
        for (component, bytes) in fields::memory(&report.memory) {
            metric.sample(&[("shard", shard), ("component", component)], bytes);
        }
    }
}

fn times(text: &mut Text, shards: &Shards<'_>) {
    let mut metric = text.metric("ringmain_loop_seconds_total", Kind::Counter, help::LOOP);
    for (shard, report) in shards.reports() {
        let times = &report.times;
        let states =
            [("busy", times.turns_ns), ("enter", times.enters_ns), ("slept", times.slept_ns)];
        for (state, ns) in states {
            metric.sample(&[("shard", shard), ("state", state)], seconds(ns));
        }
    }
    type Of = fn(&ShardView) -> f64;
    let threads: [(&str, Kind, &str, Of); 4] = [
        (
            "ringmain_thread_cpu_seconds_total",
            Kind::Counter,
            "Time that the shard's thread was on a CPU.",
            |s| seconds(s.thread.cpu_ns),
        ),
        (
            "ringmain_thread_stolen_seconds_total",
            Kind::Counter,
            "Time that it could have run and had no CPU: other threads of this host had it.",
            |s| seconds(s.thread.stolen_ns),
        ),
        (
            "ringmain_thread_preempted_total",
            Kind::Counter,
            "Times that it was taken off its CPU with work left.",
            |s| s.thread.preempted as f64,
        ),
        ("ringmain_thread_core", Kind::Gauge, "The core that it ran on last.", |s| {
            f64::from(s.thread.cpu)
        }),
    ];
    for (name, kind, help, of) in threads {
        let mut metric = text.metric(name, kind, help);
        for (shard, view) in shards.all() {
            metric.sample(&[("shard", shard)], of(view));
        }
    }
}

fn rings(text: &mut Text, shards: &Shards<'_>) {
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in shards.all().flat_map(|(_, view)| &view.ring) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    for name in names {
        let (metric, kind, help) = help::ring(name);
        let mut metric = text.metric(&metric, kind, &help);
        for (shard, view) in shards.all() {
            if let Some((_, value)) = view.ring.iter().find(|(known, _)| *known == name) {
                metric.sample(&[("shard", shard)], value);
            }
        }
    }
}

fn durations(text: &mut Text, shards: &Shards<'_>) {
    let help = &help::stages();
    let mut metric = text.metric("ringmain_stage_duration_seconds", Kind::Histogram, help);
    for (shard, view) in shards.all() {
        for (stage, values) in Stage::ALL.iter().zip(&view.histograms.stages) {
            let labels = [("shard", shard), ("stage", stage.name())];
            histograms::write_ns(&mut metric, &labels, values);
        }
    }
    for (nth, what) in PerTurn::ALL.iter().enumerate() {
        let (name, help) = match what {
            PerTurn::Length => {
                ("ringmain_turn_duration_seconds", "Turns, without the system call that follows.")
            }
            PerTurn::Completions => ("ringmain_turn_completions", "Completions reaped in a turn."),
            PerTurn::Mails => ("ringmain_turn_mails", "Mails of other shards taken in a turn."),
            PerTurn::Sends => ("ringmain_turn_sends", "Sends started in a turn."),
        };
        let mut metric = text.metric(name, Kind::Histogram, help);
        for (shard, view) in shards.all() {
            let Some(values) = view.histograms.turns.get(nth) else { continue };
            match what {
                PerTurn::Length => {
                    histograms::write_ns(&mut metric, &[("shard", shard)], values);
                }
                _ => histograms::write_counts(&mut metric, &[("shard", shard)], values),
            }
        }
    }
}

fn process(text: &mut Text, view: &NodeView, surroundings: &Surroundings) {
    let Surroundings { process, started_unix_s, refused, .. } = surroundings;
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", view.resident_bytes as f64),
        ("process_start_time_seconds", "When it started, in Unix time.", *started_unix_s),
        (
            "process_open_fds",
            "Ordinary descriptors in use; those of connections live in the rings.",
            process.open_fds as f64,
        ),
        ("process_threads", "Threads.", process.threads as f64),
    ];
    for (name, help, value) in gauges {
        text.metric(name, Kind::Gauge, help).sample(&[], value);
    }
    let mut most = text.metric(
        "process_max_fds",
        Kind::Gauge,
        "Ordinary descriptors that it may have; missing if there is no limit.",
    );
    if let Some(max) = process.max_fds {
        most.sample(&[], max);
    }
    text.metric("process_cpu_seconds_total", Kind::Counter, "Time of all threads on CPUs.")
        .sample(&[], process.cpu_s);
    text.metric(
        "ringmain_admin_refused_total",
        Kind::Counter,
        "Connections to the control plane that were refused, for there were too many.",
    )
    .sample(&[], refused);
}

/// Counts microseconds.
const THROTTLED: &str = "cgroup throttled_usec";

fn kernel(text: &mut Text, troubles: &[Trouble]) {
    let mut metric = text.metric("ringmain_kernel_events_total", Kind::Counter, help::KERNEL);
    for trouble in troubles.iter().filter(|t| t.name != THROTTLED) {
        metric.sample(&[("event", &trouble.name)], trouble.count);
    }
    let throttled = troubles.iter().find(|t| t.name == THROTTLED).map_or(0, |t| t.count);
    text.metric(
        "ringmain_throttled_seconds_total",
        Kind::Counter,
        "Time in which the control group had used up its quota of CPU; 0 without a group.",
    )
    .sample(&[], throttled as f64 / 1e6);
}

#[cfg(test)]
mod tests;

/// Names of counters of the rings.
#[cfg(test)]
pub(crate) fn ring_names() -> impl Iterator<Item = &'static str> {
    help::RING.iter().map(|(name, ..)| *name)
}

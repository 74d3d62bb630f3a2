//! `idle-15k`: bytes of a connection, a subscription and an offline session, and the CPU time of a
//! connect with a subscribe.
//!
//! Each figure comes from a fresh server process: anonymous memory (heap and stacks) after less
//! before, through the number of connections. A first wave of connections comes and goes before
//! anything is measured, so that what a server sets up once does not count. Offline sessions are
//! made in waves, which use the same connections' memory again.

use std::time::Duration;

use ringmain_load::report::Report;

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, grown, less, target,
};

pub(crate) struct Idle15K;

/// Connections that come and go before a measurement, and a wave of offline sessions.
const WAVE: u32 = 500;
/// A wave that takes longer has lost its broker.
const PATIENCE: Duration = Duration::from_secs(300);
const CASE: &str = "connections";

impl Scenario for Idle15K {
    fn name(&self) -> &'static str {
        "idle-15k"
    }

    fn about(&self) -> &'static str {
        "15,000 connections: user bytes of each, of a subscription, of an offline session; CPU of \
         a connect"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("idle_bytes", "bytes idle", 0),
                less("idle_pss_bytes", "by PSS", 0),
                less("subscription_bytes", "+ subscription", 0),
                less("offline_bytes", "offline session", 0),
                less("connect_us", "connect CPU µs", 1),
                less("connect_subscribe_us", "+ subscribe", 1),
                less("connect_subscribe_user_us", "in the server", 1),
                less("disconnect_us", "disconnect", 1),
                less("generator_us", "generator", 1),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(15_000, 5_000).min(scale.connections_max / WAVE * WAVE).max(WAVE);
        vec![Case::of(format!("{count} {CASE}"), count).with_floor()]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let count = case.count;
        let idle = measure(cx, &format!("conn -c {count}"))?;
        // 20 bytes: "bench/idle/12345/all".
        let subscribed = measure(cx, &format!("conn -c {count} -t bench/idle/%i/all"))?;
        let per = |total: f64| total / f64::from(count);
        let us = |r: &Report, from, to| per(grown(r, from, to, |s| s.cpu_ns)) / 1000.0;
        let connect_subscribe_us = us(&subscribed, "start", "connected");
        // The ticks give the shares; the sum is exact.
        let user = grown(&subscribed, "start", "connected", |s| s.user_ms);
        let system = grown(&subscribed, "start", "connected", |s| s.system_ms);
        let in_server = connect_subscribe_us * user / (user + system).max(1.0);
        let idle_bytes = per(grown(&idle, "start", "settled", |s| s.anonymous));
        let with_subscription = per(grown(&subscribed, "start", "settled", |s| s.anonymous));
        let mut figures = Figures::from([
            ("idle_bytes", idle_bytes),
            ("idle_pss_bytes", per(grown(&idle, "start", "settled", |s| s.pss))),
            ("subscription_bytes", with_subscription - idle_bytes),
            ("connect_us", us(&idle, "start", "connected")),
            ("connect_subscribe_us", connect_subscribe_us),
            ("connect_subscribe_user_us", in_server),
            ("disconnect_us", us(&subscribed, "settled", "closed")),
            ("generator_us", per(subscribed.generator.connect_cpu_ns as f64) / 1000.0),
        ]);
        if cx.contender.name() != "floor" {
            let waves = count / WAVE;
            let args = format!("conn -c {WAVE} --cycles {waves} --fresh-ids --no-clean");
            let offline = measure(cx, &args)?;
            let bytes = per(grown(&offline, "start", "closed", |s| s.anonymous));
            figures.insert("offline_bytes", bytes);
        }
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "idle_bytes", Against::AtMost(256.0)),
                target("", "subscription_bytes", Against::AtMost(96.0)),
                target("", "offline_bytes", Against::AtMost(192.0)),
                target("", "connect_subscribe_us", Against::AtMost(9.0)),
                target("", "idle_bytes", Against::Mosquitto(2.5)),
                target("", "subscription_bytes", Against::Mosquitto(10.0)),
                target("", "connect_subscribe_us", Against::Mosquitto(2.0)),
                target("", "connect_subscribe_us", Against::Floor(1.5)),
            ]
        }
    }
}

/// One run against a fresh server that had its first wave.
fn measure(cx: &Cx<'_>, args: &str) -> Result<Report, Failure> {
    let mut server = cx.start()?;
    cx.load_text(&mut server, &format!("conn -c {WAVE} --client-id w-%i --settle 1"))?;
    let args = Case::command("", &format!("{args} --settle 1.5")).args;
    let mut found = cx.begin(&server, &args)?.wait(PATIENCE)?;
    // With --fresh-ids each cycle makes a session that nobody had: none to be found again.
    found.problems.retain(|p| !p.ends_with("sessions were lost"));
    cx.clean(&mut server, found)
}

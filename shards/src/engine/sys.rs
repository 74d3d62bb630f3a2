//! `$SYS`: what the broker tells of itself in MQTT. (Y01 to Y08, D3)
//!
//! Shard 0 speaks for the node: each interval it asks the others for their counters and publishes
//! the sums. Nothing is formatted that nobody subscribes to.

use std::fmt::Write as _;

use super::config::SysConfig;
use super::conn::Conn;
use super::core::{TimerKey, TimerKind};
use super::counters::{Counters, Gauges};
use super::effects::Effects;
use super::ids::{ConnId, ShardId, ShardSet};
use super::mail::Mail;
use super::message::Outgoing;
use super::shard::Shard;
use super::wheel::TimerId;
use crate::boundary::Pressure;
use ringmain_mqtt::{ReasonCode, Version};

/// State of `$SYS` and of the timers that are one of a kind.
#[derive(Debug, Default)]
pub(crate) struct Sys {
    /// Listeners whose accepting is paused, until when.
    pub(crate) accept_paused: Vec<(u16, u64)>,
    pub(crate) retained_timer: bool,
    interval_timer: Option<TimerId>,
    heartbeat_timer: Option<TimerId>,
    /// Shards that have not answered.
    waiting: usize,
    sum: Counters,
    gauges: Gauges,
    max: Maxima,
    greeted: bool,
}

/// The highest values seen, `…/max`.
#[derive(Clone, Copy, Debug, Default)]
struct Maxima {
    values: [u64; STATS],
}

/// Names of the statistics below `stats/`. (Y03)
const STATS: usize = 11;

fn stats(g: &Gauges) -> [(&'static str, u64); STATS] {
    let subscriptions = g.subscriptions + g.shared_subscriptions;
    [
        ("connections", g.sockets.max(g.connections)),
        ("live_connections", g.connections),
        ("cluster_sessions", g.sessions),
        ("sessions", g.sessions),
        ("channels", g.sessions),
        ("topics", g.filters),
        ("routes", g.filters),
        ("subscribers", subscriptions),
        ("subscriptions", subscriptions),
        ("subscriptions/shared", g.shared_subscriptions),
        ("retained", g.retained),
    ]
}

impl Shard {
    pub(crate) fn start_sys(&mut self) {
        if self.core.id != ShardId(0) {
            return;
        }
        let now_ms = self.core.now_ms;
        let sys = &self.core.cfg.sys;
        if sys.heartbeat_s != 0 {
            // At once: version and description are there for who asks first.
            let key = TimerKey::new(TimerKind::Heartbeat, 0);
            self.sys.heartbeat_timer = Some(self.core.wheel.insert(now_ms, key));
        }
        self.arm_interval();
    }

    /// Other intervals count from now on.
    pub(crate) fn sys_reloaded(&mut self, old: &SysConfig) {
        if self.core.id != ShardId(0) {
            return;
        }
        if old.interval_s != self.core.cfg.sys.interval_s {
            self.arm_interval();
        }
        if old.heartbeat_s != self.core.cfg.sys.heartbeat_s {
            self.arm_heartbeat();
        }
    }

    fn arm_interval(&mut self) {
        let seconds = self.core.cfg.sys.interval_s;
        let timer = self.arm_sys(TimerKind::SysInterval, seconds);
        if let Some(old) = std::mem::replace(&mut self.sys.interval_timer, timer) {
            self.core.wheel.cancel(old);
        }
    }

    fn arm_heartbeat(&mut self) {
        let seconds = self.core.cfg.sys.heartbeat_s;
        let timer = self.arm_sys(TimerKind::Heartbeat, seconds);
        if let Some(old) = std::mem::replace(&mut self.sys.heartbeat_timer, timer) {
            self.core.wheel.cancel(old);
        }
    }

    fn arm_sys(&mut self, kind: TimerKind, seconds: u32) -> Option<TimerId> {
        let at = self.core.now_ms + u64::from(seconds) * 1000;
        (seconds != 0).then(|| self.core.wheel.insert(at, TimerKey::new(kind, 0)))
    }

    pub(crate) fn on_sys_interval(&mut self, fx: &mut Effects) {
        self.sys.interval_timer = None;
        self.arm_interval();
        self.sys.sum = self.core.count_all(&fx.driver).clone();
        self.sys.gauges = self.gauges();
        self.sys.waiting = self.core.shards() - 1;
        for shard in 1..self.core.shards() {
            fx.send(ShardId(shard as u16), Mail::StatsAsk);
        }
        if self.sys.waiting == 0 {
            self.publish_stats(fx);
        }
    }

    pub(crate) fn on_stats(&mut self, counters: &Counters, gauges: &Gauges, fx: &mut Effects) {
        if self.sys.waiting == 0 {
            return;
        }
        self.sys.sum.add(counters);
        self.sys.gauges.add(gauges);
        self.sys.waiting -= 1;
        if self.sys.waiting == 0 {
            self.publish_stats(fx);
        }
    }

    fn publish_stats(&mut self, fx: &mut Effects) {
        let node = self.core.cfg.node.clone();
        let (v4_dots, faq) = (self.core.cfg.sys.v4_dots, self.core.cfg.sys.faq_singular);
        let mut topic = String::new();
        for (i, (name, now)) in stats(&self.sys.gauges).into_iter().enumerate() {
            let max = &mut self.sys.max.values[i];
            *max = now.max(*max);
            for (kind, value) in [("count", now), ("max", *max)] {
                set(&mut topic, format_args!("$SYS/brokers/{node}/stats/{name}/{kind}"));
                self.publish_number(&topic, value, fx);
                if v4_dots {
                    let dotted = name.replace('/', ".");
                    set(&mut topic, format_args!("$SYS/brokers/{node}/stats/{dotted}.{kind}"));
                    self.publish_number(&topic, value, fx);
                }
                if faq && matches!(name, "connections" | "sessions") {
                    set(&mut topic, format_args!("$SYS/broker/{node}/stats/{name}/{kind}"));
                    self.publish_number(&topic, value, fx);
                }
            }
        }
        let sum = std::mem::take(&mut self.sys.sum);
        for (name, value) in sum.metrics() {
            set(&mut topic, format_args!("$SYS/brokers/{node}/metrics/{name}"));
            self.publish_number(&topic, value, fx);
            if v4_dots {
                let dotted = name.replace('/', ".");
                set(&mut topic, format_args!("$SYS/brokers/{node}/metrics/{dotted}"));
                self.publish_number(&topic, value, fx);
            }
        }
        self.greet(fx);
    }

    /// The topics that do not change are retained. (Y01)
    fn greet(&mut self, fx: &mut Effects) {
        if std::mem::replace(&mut self.sys.greeted, true) {
            return;
        }
        let cfg = std::sync::Arc::clone(&self.core.cfg);
        let node = &cfg.node;
        self.publish_retained("$SYS/brokers", node, fx);
        self.publish_retained(&format!("$SYS/brokers/{node}/version"), &cfg.version, fx);
        self.publish_retained(&format!("$SYS/brokers/{node}/sysdescr"), &cfg.sysdescr, fx);
    }

    pub(crate) fn on_heartbeat(&mut self, fx: &mut Effects) {
        let cfg = std::sync::Arc::clone(&self.core.cfg);
        self.sys.heartbeat_timer = None;
        self.arm_heartbeat();
        self.greet(fx);
        let up_s = self.core.unix_ms.saturating_sub(self.core.node.started_unix_ms) / 1000;
        let (days, hours) = (up_s / 86_400, up_s / 3600 % 24);
        let text =
            format!("{days} days,{hours} hours, {} minutes, {} seconds", up_s / 60 % 60, up_s % 60);
        self.publish_text(&format!("$SYS/brokers/{}/uptime", cfg.node), &text, fx);
        let date = rfc3339(self.core.unix_ms);
        self.publish_text(&format!("$SYS/brokers/{}/datetime", cfg.node), &date, fx);
    }

    fn publish_number(&mut self, topic: &str, value: u64, fx: &mut Effects) {
        if self.has_route(topic) {
            let mut text = String::new();
            let _ = write!(text, "{value}");
            self.publish_text(topic, &text, fx);
        }
    }

    fn has_route(&self, topic: &str) -> bool {
        let mut set = ShardSet::EMPTY;
        self.routes.table().lookup(topic, &mut set);
        !set.is_empty()
    }

    fn publish_text(&mut self, topic: &str, text: &str, fx: &mut Effects) {
        if self.has_route(topic) {
            let mut out = Outgoing::internal(topic, text.as_bytes(), self.core.now_ms, false);
            self.route(&mut out, false, fx);
        }
    }

    fn publish_retained(&mut self, topic: &str, text: &str, fx: &mut Effects) {
        let mut out = Outgoing::internal(topic, text.as_bytes(), self.core.now_ms, true);
        if self.has_route(topic) {
            self.route(&mut out, false, fx);
        }
        self.retain(&mut out, fx);
    }

    // ---- clients (Y02, H15) --------------------------------------------------------------------------

    pub(crate) fn publish_connected(
        &mut self,
        id: ConnId,
        clean_start: bool,
        session_present: bool,
        fx: &mut Effects,
    ) {
        if !self.core.cfg.sys.client_events || !self.core.is_open(id) {
            return;
        }
        let si = self.session_of(id.index);
        let Some(s) = self.core.sessions.get(si) else { return };
        let topic =
            format!("$SYS/brokers/{}/clients/{}/connected", self.core.cfg.node, s.client_id);
        if !self.has_route(&topic) {
            return;
        }
        let Some(conn) = self.core.conns.get(id.index) else { return };
        let mut json = String::from("{");
        event_fields(&mut json, &s.client_id, conn, self.core.unix_ms);
        let _ = write!(
            json,
            ",\"keepalive\":{},\"expiry_interval\":{},\"connected_at\":{},\"connack\":0,\
             \"clean_start\":{clean_start},\"session_present\":{session_present}}}",
            conn.keep_alive_s, s.expiry_s, self.core.unix_ms
        );
        self.publish_text(&topic, &json, fx);
    }

    pub(crate) fn publish_disconnected(
        &mut self,
        client_id: &str,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        if !self.core.cfg.sys.client_events {
            return;
        }
        let topic = format!("$SYS/brokers/{}/clients/{client_id}/disconnected", self.core.cfg.node);
        if !self.has_route(&topic) {
            return;
        }
        let mut json = String::from("{\"clientid\":");
        quote(&mut json, client_id);
        json.push_str(",\"reason\":");
        quote(&mut json, reason.name());
        let _ = write!(
            json,
            ",\"reason_code\":{},\"ts\":{},\"disconnected_at\":{}}}",
            reason.0, self.core.unix_ms, self.core.unix_ms
        );
        self.publish_text(&topic, &json, fx);
    }

    /// A memory watermark was passed. (Y08) Shard 0 speaks for the node.
    pub(crate) fn publish_alarm(&mut self, before: Pressure, now: Pressure, fx: &mut Effects) {
        if self.core.id != ShardId(0) {
            return;
        }
        let raised = now > before;
        let verb = if raised { "activate" } else { "deactivate" };
        let topic = format!("$SYS/brokers/{}/alarms/{verb}", self.core.cfg.node);
        let level = match now.max(before) {
            Pressure::Critical => "critical",
            _ => "high",
        };
        let json = format!(
            "{{\"name\":\"memory_watermark\",\"level\":\"{level}\",\"active\":{raised},\"at\":{}}}",
            self.core.unix_ms
        );
        self.publish_text(&topic, &json, fx);
    }
}

fn set(s: &mut String, args: std::fmt::Arguments<'_>) {
    s.clear();
    let _ = s.write_fmt(args);
}

fn event_fields(json: &mut String, client_id: &str, conn: &Conn, unix_ms: u64) {
    let peer = conn.peer().addr;
    json.push_str("\"clientid\":");
    quote(json, client_id);
    let name = if conn.version == Version::V31 { "MQIsdp" } else { "MQTT" };
    let _ = write!(
        json,
        ",\"username\":\"undefined\",\"ts\":{unix_ms},\"sockport\":{},\"proto_ver\":{},\
         \"proto_name\":\"{name}\",\"ipaddress\":\"{}\"",
        peer.port(),
        conn.version as u8,
        peer.ip()
    );
}

/// A JSON string.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Days and clock in UTC, from the proleptic Gregorian calendar.
fn rfc3339(unix_ms: u64) -> String {
    let (days, s) = ((unix_ms / 86_400_000) as i64, unix_ms / 1000 % 86_400);
    // Eras of 400 years, years from March.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let y = yoe + era * 400 + i64::from(m <= 2);
    let (hh, mm, ss, ms) = (s / 3600, s / 60 % 60, s % 60, unix_ms % 1000);
    format!("{y:04}-{m:02}-{d:02}T{hh:02}:{mm:02}:{ss:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(1_798_761_599_000), "2026-12-31T23:59:59.000Z");
    }

    #[test]
    fn json_strings_are_escaped() {
        let mut s = String::new();
        quote(&mut s, "a\"b\\c\n");
        assert_eq!(s, "\"a\\\"b\\\\c\\u000a\"");
    }
}

//! Timers of a connection: CONNECT, keep-alive, lifetime, expiry of what admitted it, slow readers, resends.

use ringmain_mqtt::{ReasonCode, Version};

use super::authenticate::Auth;
use super::config::MqttConfig;
use super::conn::{Conn, State, flag};
use super::core::{Core, TimerKey, TimerKind};
use super::effects::{CloseHow, Effects};

impl Core {
    /// Arms the timer of a connection for the first thing that may be due.
    pub(crate) fn arm_conn(&mut self, ci: u32) {
        let Some(deadline) = self.conn_deadline(ci) else { return };
        let key = TimerKey::new(TimerKind::Conn, ci);
        let timer = self.wheel.insert(deadline, key);
        let Some(conn) = self.conns.get_mut(ci) else { return };
        if let Some(old) = conn.timer.replace(timer) {
            self.wheel.cancel(old);
        }
    }

    fn conn_deadline(&self, ci: u32) -> Option<u64> {
        let conn = self.conns.get(ci)?;
        let cfg = self.mqtt(conn.listener);
        let now = self.now_ms as u32;
        let at = |since: u32, after_ms: u64| {
            let elapsed = u64::from(now.wrapping_sub(since));
            self.now_ms + after_ms.saturating_sub(elapsed)
        };
        if conn.state == State::Fresh {
            return Some(at(conn.opened_ms, u64::from(cfg.connect_timeout_ms)));
        }
        let mut deadline = u64::MAX;
        if let Some(ms) = keep_alive_ms(conn, cfg) {
            deadline = at(conn.last_seen_ms, ms);
        }
        if cfg.max_connection_lifetime_s != 0 {
            let ms = u64::from(cfg.max_connection_lifetime_s) * 1000;
            deadline = deadline.min(at(conn.opened_ms, ms));
        }
        if let Some(at_ms) = expires_at_ms(conn) {
            // The wall clock may jump: then it is looked at again.
            deadline = deadline.min(self.now_ms + at_ms.saturating_sub(self.unix_ms));
        }
        if cfg.retry_interval_s != 0 && conn.version != Version::V5 {
            deadline = deadline.min(self.now_ms + u64::from(cfg.retry_interval_s) * 1000);
        }
        if let Some(ms) = self.slow_grace_ms(conn) {
            deadline = deadline.min(at(conn.congested_ms(), ms));
        }
        (deadline != u64::MAX).then_some(deadline)
    }

    fn slow_grace_ms(&self, conn: &Conn) -> Option<u64> {
        use super::config::SlowConsumerPolicy::Disconnect;
        let limits = &self.cfg.limits;
        (conn.has(flag::CONGESTED) && limits.slow_consumer_policy == Disconnect)
            .then(|| u64::from(limits.slow_consumer_grace_s) * 1000)
    }

    /// Something may be due on a connection. Keep-alive is looked at only here: a packet costs no
    /// timer operation.
    pub(crate) fn on_conn_timer(&mut self, ci: u32, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(ci) else { return };
        conn.timer = None;
        if conn.has(flag::PAUSED_RATE) {
            conn.opened_ms = self.now_ms as u32;
            conn.last_seen_ms = conn.opened_ms;
            self.resume(ci, flag::PAUSED_RATE, fx);
            return self.arm_conn(ci);
        }
        if conn.has(flag::PAUSED_BY_US) {
            // It is not silent: nobody listens.
            conn.last_seen_ms = self.now_ms as u32;
        }
        let Some(conn) = self.conns.get(ci) else { return };
        let cfg = self.cfg.mqtt_of(conn.listener);
        let now = self.now_ms as u32;
        let since = |then: u32| u64::from(now.wrapping_sub(then));
        match conn.state {
            State::Closing => {}
            State::Fresh => {
                if since(conn.opened_ms) >= u64::from(cfg.connect_timeout_ms) {
                    if conn.auth().is_some_and(Auth::is_asked) {
                        self.counters.auth_timeout += 1;
                        return self.turn_away(ci, ReasonCode::SERVER_UNAVAILABLE, fx);
                    }
                    self.counters.connect_timeout += 1; // W12
                    return self.close(ci, None, CloseHow::Abort, fx);
                }
                self.arm_conn(ci);
            }
            State::Live => {
                if keep_alive_ms(conn, cfg).is_some_and(|ms| since(conn.last_seen_ms) >= ms) {
                    self.counters.keepalive_timeout += 1; // [S-90] [MQTT-3.1.2-22]
                    let code = ReasonCode::KEEP_ALIVE_TIMEOUT;
                    return self.close(ci, Some(code), CloseHow::Flush, fx);
                }
                let lifetime_ms = u64::from(cfg.max_connection_lifetime_s) * 1000;
                if lifetime_ms != 0 && since(conn.opened_ms) >= lifetime_ms {
                    let code = ReasonCode::MAXIMUM_CONNECT_TIME; // Q15
                    return self.close(ci, Some(code), CloseHow::Flush, fx);
                }
                if expires_at_ms(conn).is_some_and(|at_ms| self.unix_ms >= at_ms) {
                    self.counters.auth_expired += 1; // AU09
                    let code = ReasonCode::NOT_AUTHORIZED;
                    let text = Some("what admitted it has expired");
                    return self.close_with(ci, Some(code), text, CloseHow::Flush, fx);
                }
                if self.slow_grace_ms(conn).is_some_and(|ms| since(conn.congested_ms()) >= ms) {
                    self.counters.slow_consumers_closed += 1; // L08
                    let code = ReasonCode::QUOTA_EXCEEDED;
                    return self.close(ci, Some(code), CloseHow::Abort, fx);
                }
                let retry_s = cfg.retry_interval_s;
                if retry_s != 0 && conn.version != Version::V5 {
                    self.retry(ci, retry_s * 1000, fx); // D7
                }
                self.arm_conn(ci);
            }
        }
    }
}

/// When what admitted a connection expires, in ms of the wall clock.
fn expires_at_ms(conn: &Conn) -> Option<u64> {
    Some(conn.known()?.expires_at_s()?.saturating_mul(1000))
}

/// A connection is dead this long after its last packet. [S-90]
fn keep_alive_ms(conn: &Conn, cfg: &MqttConfig) -> Option<u64> {
    let ms = u64::from(conn.keep_alive_s) * 10 * u64::from(cfg.keep_alive_percent);
    // The clock is read in whole ms, rounded down: one more, so that it is never too early.
    (ms != 0).then_some(ms + 1)
}

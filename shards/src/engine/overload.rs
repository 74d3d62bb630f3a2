//! What a shard does when it falls behind: first it refuses new connections, then it drops QoS 0,
//! then it pauses publishers; it never drops what it acknowledged. (L05)

use super::config::OverloadConfig;
use super::conn::flag;
use super::core::{Core, TimerKey, TimerKind};
use super::effects::Effects;
use crate::boundary::{Event, LogLevel, Pressure};

/// Measures in the order in which they are taken; each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    #[default]
    None,
    RefuseConnections,
    DropQos0,
    PausePublishers,
}

/// `Lives on: each shard.`
#[derive(Debug, Default)]
pub(crate) struct Overload {
    measure: Measure,
    /// When the lag last called for the measure in force.
    called_ms: u64,
    /// When the timer that measures lag is due.
    due_ms: Option<u64>,
    /// Whether something happened since it was set: an idle shard has no such timer.
    worked: bool,
}

impl Overload {
    pub(crate) fn measure(&self) -> Measure {
        self.measure
    }

    pub(crate) fn worked(&mut self) {
        self.worked = true;
    }

    /// Takes a lag into account; the measure before and now.
    fn lagged(&mut self, lag_ms: u64, now_ms: u64, cfg: &OverloadConfig) -> (Measure, Measure) {
        let before = self.measure;
        let above = |mark_ms: u32| lag_ms >= u64::from(mark_ms);
        let wanted = if above(cfg.lag_pause_ms) {
            Measure::PausePublishers
        } else if above(cfg.lag_drop_qos0_ms) {
            Measure::DropQos0
        } else if above(cfg.lag_refuse_ms) {
            Measure::RefuseConnections
        } else {
            Measure::None
        };
        if wanted >= before {
            self.measure = wanted;
            self.called_ms = now_ms;
        } else if now_ms.saturating_sub(self.called_ms) >= u64::from(cfg.recovery_ms) {
            self.measure = match before {
                Measure::PausePublishers => Measure::DropQos0,
                Measure::DropQos0 => Measure::RefuseConnections,
                Measure::RefuseConnections | Measure::None => Measure::None,
            };
            self.called_ms = now_ms;
        }
        (before, self.measure)
    }
}

impl Core {
    /// Sets the timer that measures lag, while there is something to measure.
    pub(crate) fn watch_lag(&mut self) {
        let cfg = &self.cfg.overload;
        let o = &mut self.overload;
        let wanted = cfg.enabled && (o.worked || o.measure != Measure::None);
        if !wanted || o.due_ms.is_some() {
            return;
        }
        let due_ms = self.now_ms + u64::from(cfg.check_interval_ms);
        o.due_ms = Some(due_ms);
        o.worked = false;
        self.wheel.insert(due_ms, TimerKey::new(TimerKind::Lag, 0));
    }

    pub(crate) fn on_lag_timer(&mut self, fx: &mut Effects) {
        let Some(due_ms) = self.overload.due_ms.take() else { return };
        if self.cfg.overload.enabled {
            let lag_ms = self.now_ms.saturating_sub(due_ms);
            let (before, now) = self.overload.lagged(lag_ms, self.now_ms, &self.cfg.overload);
            self.measure_changed(before, now, fx);
        }
    }

    /// Other settings: measures end with the protection.
    pub(crate) fn overload_reloaded(&mut self, fx: &mut Effects) {
        if !self.cfg.overload.enabled {
            let before = std::mem::take(&mut self.overload.measure);
            self.measure_changed(before, Measure::None, fx);
        }
    }

    fn measure_changed(&mut self, before: Measure, now: Measure, fx: &mut Effects) {
        if before == now {
            return;
        }
        if before == Measure::PausePublishers {
            self.resume_publishers(fx);
        }
        let (level, text) = match now {
            Measure::None => (LogLevel::Info, "keeps up again"),
            Measure::RefuseConnections => (LogLevel::Warn, "is behind: refuses new connections"),
            Measure::DropQos0 => (LogLevel::Warn, "is behind: drops QoS 0 messages"),
            Measure::PausePublishers => (LogLevel::Warn, "is far behind: pauses publishers"),
        };
        fx.events.push(Event::Log { shard: self.id, level, text: text.into() });
    }

    /// Whether publishers have to wait.
    pub(crate) fn pauses_publishers(&self) -> bool {
        self.pressure == Pressure::Critical || self.overload.measure == Measure::PausePublishers
    }

    /// Reads paused publishers again, if nothing speaks against it.
    pub(crate) fn resume_publishers(&mut self, fx: &mut Effects) {
        if self.pauses_publishers() {
            return;
        }
        for ci in self.conns.indices() {
            self.resume(ci, flag::PAUSED_OVERLOAD, fx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::EngineConfig;

    #[test]
    fn measures_are_taken_at_once_and_lifted_one_by_one() {
        // L05
        let cfg = EngineConfig::default().overload; // 500, 1000, 2000 ms; 2000 ms to recover
        let mut o = Overload::default();
        let mut at = |lag_ms, now_ms| o.lagged(lag_ms, now_ms, &cfg).1;
        assert_eq!(at(499, 0), Measure::None);
        assert_eq!(at(500, 10), Measure::RefuseConnections);
        assert_eq!(at(1000, 20), Measure::DropQos0);
        assert_eq!(at(2000, 30), Measure::PausePublishers);
        assert_eq!(at(0, 2029), Measure::PausePublishers);
        assert_eq!(at(0, 2030), Measure::DropQos0);
        assert_eq!(at(1000, 3000), Measure::DropQos0, "called for again");
        assert_eq!(at(0, 4999), Measure::DropQos0);
        assert_eq!(at(0, 5000), Measure::RefuseConnections);
        assert_eq!(at(0, 7000), Measure::None);
    }
}

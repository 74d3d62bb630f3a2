//! The answer to `Control::Report`: what this shard knows of itself.

use super::effects::Effects;
use super::shard::Shard;
use crate::boundary::Event;
use crate::observe::{Histograms, MemoryUse, Report};

impl Shard {
    pub(crate) fn report(&mut self, spare: Box<Histograms>, fx: &mut Effects) {
        let memory = self.memory(fx);
        let observed = fx.observe.take(spare);
        let report = Report {
            shard: self.core.id,
            at_ns: self.core.now_ms * 1_000_000,
            counters: self.core.count_all(&fx.driver).clone(),
            gauges: self.gauges(),
            memory,
            times: observed.times,
            histograms: observed.histograms,
            slowest: observed.slowest,
            others: observed.others,
        };
        fx.events.push(Event::Report { report: Box::new(report) });
    }

    /// Costs no more at a million connections than at none.
    fn memory(&self, fx: &Effects) -> MemoryUse {
        let core = &self.core;
        let driver = fx.observe.driver_memory;
        let subscriptions =
            self.subs.estimated_bytes() + core.memberships.bytes() + self.routes.bytes();
        MemoryUse {
            connections: (core.conns.bytes() + core.wheel.bytes()) as u64 + driver.connections,
            sessions: (core.sessions.bytes() + core.registry.allocation_size()) as u64,
            subscriptions: subscriptions as u64,
            queues: core.queued_bytes,
            retained: self.retained.memory_bytes() as u64,
            buffers: driver.buffers,
        }
    }
}

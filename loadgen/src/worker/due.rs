//! What is due by the clock: churn, the sweep for keep-alives and timeouts, the open loop.

use std::io;
use std::time::Duration;

use super::{SLEEP_MAX, Worker};
use crate::client::State;
use crate::clock::now_ns;
use crate::plan::{End, Pace};

impl Worker {
    /// Closes as many clients of a population as are due.
    pub(super) fn churn(&mut self, population: u16, end: End, rate_mhz: u64) -> io::Result<()> {
        let plan = self.plan.clone();
        let elapsed_ms = u128::from((self.now - self.churned.1) / 1_000_000);
        let due = (elapsed_ms * u128::from(rate_mhz) / 1_000_000) as u64;
        let count = self.share_of(&plan.populations[usize::from(population)]);
        let first = self.first[usize::from(population)];
        let mut looked_at = 0;
        while self.churned.0 < due && looked_at < count {
            looked_at += 1;
            let local = first + self.churn_at % count;
            self.churn_at = self.churn_at.wrapping_add(1);
            if self.clients[local as usize].state == State::Live {
                self.churned.0 += 1;
                self.clients[local as usize].set(crate::client::COME_BACK);
                self.begin_close(local, end)?;
            }
        }
        Ok(())
    }

    /// Looks at as many clients as are due, so that each is looked at once a sweep period.
    pub(super) fn sweep_some(&mut self) -> io::Result<()> {
        if self.clients.is_empty() {
            return Ok(());
        }
        let elapsed = self.now.saturating_sub(self.sweep.last);
        self.sweep.last = self.now;
        self.sweep.owed += elapsed.min(self.sweep.period_ns) * self.clients.len() as u64;
        let due = self.sweep.owed / self.sweep.period_ns;
        self.sweep.owed -= due * self.sweep.period_ns;
        for _ in 0..due {
            let local = self.sweep.at as u32;
            self.sweep.at = (self.sweep.at + 1) % self.clients.len();
            self.look_at(local)?;
        }
        Ok(())
    }

    /// Open loop: tells publishers to send what is due by now.
    pub(super) fn pace(&mut self) {
        if !self.open_loop {
            return;
        }
        let plan = self.plan.clone();
        // What a message waited for its turn in this worker is the worker's own delay.
        let sent_ns = now_ns();
        for (p, population) in plan.populations.iter().enumerate() {
            let Some(publish) = &population.publish else { continue };
            let Some(mut schedule) = self.schedules[p].take() else { continue };
            while let Some((nth, due)) = schedule.next_due(sent_ns) {
                self.send_paced(&plan, self.first[p] + nth, publish, due, sent_ns);
            }
            self.schedules[p] = Some(schedule);
        }
    }

    /// Time until an open-loop message is due; the rest of the loop is driven by completions.
    pub(super) fn pace_sleep(&self) -> Duration {
        let mut sleep = SLEEP_MAX;
        let now = if self.open_loop { now_ns() } else { self.now };
        for (p, population) in self.plan.populations.iter().enumerate() {
            if let Some(schedule) = &self.schedules[p] {
                let due = schedule.due_ns().saturating_sub(now);
                sleep = sleep.min(Duration::from_nanos(due));
            }
            // The credit may come from another worker, which wakes nobody.
            let publish = population.publish.as_ref();
            let is_group = publish.is_some_and(|p| matches!(p.pace, Pace::Group { .. }));
            if is_group && self.plan.workers > 1 && self.share_of(population) > 0 {
                sleep = sleep.min(Duration::from_micros(200));
            }
        }
        sleep
    }
}

//! What a stage tells a worker to do.

use std::io;

use super::{CHURN_ATTEMPTS, Mode, Ramp, Worker};
use crate::plan::Stage;
use crate::stats::Order;

impl Worker {
    pub(super) fn take_order(&mut self) -> io::Result<()> {
        let (number, order) = self.shared.order();
        if number == self.order {
            return Ok(());
        }
        self.order = number;
        match order {
            Order::Stage(index) => {
                let plan = self.plan.clone();
                self.begin_stage(&plan.stages[index as usize].stage)?;
            }
            Order::Measure => {}
            Order::Drain => self.mode = Mode::Keep,
            Order::Stop => self.mode = Mode::Stop,
        }
        self.hand_over(true);
        self.publish_counters();
        Ok(())
    }

    fn begin_stage(&mut self, stage: &Stage) -> io::Result<()> {
        self.mode = Mode::Keep;
        match *stage {
            Stage::Connect { rate, in_flight, attempts_max, ref populations } => {
                self.set_ramp(rate, in_flight, attempts_max);
                self.want_connections(populations);
            }
            Stage::Traffic { ref populations, .. } => {
                self.mode = Mode::Traffic;
                self.start_publishers(|i, _| populations.is_empty() || populations.contains(&i));
            }
            Stage::Offline { population, end } => self.take_offline(population, end)?,
            Stage::Storm { end, rate, in_flight, attempts_max } => {
                self.set_ramp(rate, in_flight, attempts_max);
                self.drop_all(end)?;
            }
            Stage::Churn { population, end, rate, .. } => {
                let rate_mhz = (rate * 1000.0 / self.plan.workers as f64) as u64;
                self.mode = Mode::Churn { population, end, rate_mhz };
                self.ramp.attempts_max = CHURN_ATTEMPTS;
                self.churned = (0, self.now);
                self.start_publishers(|_, _| true);
            }
            Stage::Close => {
                self.mode = Mode::Close;
                self.close_all()?;
            }
            Stage::Hold { .. } | Stage::Drain { .. } => {}
        }
        Ok(())
    }

    fn set_ramp(&mut self, rate: Option<f64>, in_flight: usize, attempts_max: u32) {
        let workers = self.plan.workers;
        self.ramp = Ramp {
            rate: rate.map(|r| r / workers as f64),
            in_flight: in_flight.div_ceil(workers),
            attempts_max,
            since: self.now,
            attempts_before: self.counters.attempts,
        };
    }
}

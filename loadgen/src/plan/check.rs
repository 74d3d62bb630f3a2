//! What a plan's fields must be to each other.

use ringmain_mqtt::QoS;

use super::{CLIENTS_MAX, Expect, POPULATIONS_MAX, Pace, Plan, Population, PublishPlan, Stage};
use crate::stamp::{STAMP_LEN, STAMP_LONG_LEN};

impl Plan {
    /// Checks the relations between the fields.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.clients() == 0 {
            return Err("there are no clients to run".into());
        }
        if self.clients() > CLIENTS_MAX {
            return Err(format!("at most {CLIENTS_MAX} clients a run"));
        }
        if self.populations.len() > POPULATIONS_MAX {
            return Err(format!("at most {POPULATIONS_MAX} populations a run"));
        }
        if self.workers == 0 || self.cycles == 0 {
            return Err("workers and cycles start at 1".into());
        }
        for stage in &self.stages {
            self.check_stage(&stage.stage).map_err(|e| format!("stage {}: {e}", stage.name))?;
        }
        for p in &self.populations {
            self.check_population(p).map_err(|e| format!("{}: {e}", p.name))?;
        }
        Ok(())
    }

    fn check_stage(&self, stage: &Stage) -> Result<(), String> {
        let known = |index: &u16| {
            if usize::from(*index) < self.populations.len() {
                Ok(())
            } else {
                Err(format!("there is no population {index}"))
            }
        };
        match stage {
            Stage::Connect { in_flight: 0, .. } | Stage::Storm { in_flight: 0, .. } => {
                Err("connections in flight start at 1".into())
            }
            Stage::Connect { attempts_max: 0, .. } | Stage::Storm { attempts_max: 0, .. } => {
                Err("attempts start at 1".into())
            }
            Stage::Connect { rate: Some(rate), .. }
            | Stage::Storm { rate: Some(rate), .. }
            | Stage::Churn { rate, .. }
                if !(*rate > 0.0 && rate.is_finite()) =>
            {
                Err("a rate is above 0".into())
            }
            Stage::Connect { populations, .. } | Stage::Traffic { populations, .. } => {
                populations.iter().try_for_each(known)
            }
            Stage::Offline { population, .. } | Stage::Churn { population, .. } => {
                known(population)
            }
            _ => Ok(()),
        }
    }

    fn check_population(&self, p: &Population) -> Result<(), String> {
        if (p.first as usize).saturating_add(p.count as usize) > CLIENTS_MAX {
            return Err(format!("client numbers end at {CLIENTS_MAX}"));
        }
        if p.subscriptions.iter().any(|s| s.copies == 0) || p.subscriptions.len() > 200 {
            return Err("copies of a subscription start at 1; at most 200 SUBSCRIBE packets".into());
        }
        let heard = p.expect.population().map(usize::from);
        if heard.is_some_and(|heard| heard >= self.populations.len()) {
            return Err("it expects messages of a population that is not there".into());
        }
        if let (Some(heard), Expect::Peer(_)) = (heard, p.expect)
            && self.populations[heard].count < p.count
        {
            return Err("each needs a publisher with the same number".into());
        }
        p.publish.as_ref().map_or(Ok(()), |publish| self.check_publish(publish, p.count))
    }

    fn check_publish(&self, publish: &PublishPlan, count: u32) -> Result<(), String> {
        publish.size.check()?;
        let checked = matches!(publish.pace, Pace::Peer { .. } | Pace::Group { .. });
        if checked && !publish.stamped() {
            return Err(format!("a checked payload has {STAMP_LEN} bytes or more"));
        }
        if publish.topic.streams() > 1 && publish.stamped() && publish.size.min() < STAMP_LONG_LEN {
            return Err(format!(
                "with several topics a payload has {STAMP_LONG_LEN} bytes or more"
            ));
        }
        if let Pace::Peer { peer, .. } = publish.pace
            && self.populations.get(usize::from(peer)).is_none_or(|p| p.count < count)
        {
            return Err("each needs a subscriber with the same number".into());
        }
        if matches!(publish.pace, Pace::Acked { .. }) && publish.qos == QoS::AtMostOnce {
            return Err("QoS 0 has no acknowledgements: give an interval or a rate".into());
        }
        if publish.pace.interval().is_some_and(|i| i.is_zero()) {
            return Err("an interval is above 0".into());
        }
        Ok(())
    }
}

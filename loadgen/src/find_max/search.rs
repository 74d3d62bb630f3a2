//! The search for the highest rate that holds an objective: doubling, then bisection.
//!
//! It knows no broker: a trial is a function from a rate to what became of it.

/// What one trial at one rate showed.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Trial {
    /// The objective held.
    Held,
    /// It did not: what was measured.
    Missed {
        /// For people.
        why: String,
    },
    /// The run measured something else than the broker: it says nothing about the objective.
    Void {
        /// For people.
        why: String,
    },
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// First rate, in messages a second.
    pub start: f64,
    /// No rate above this one.
    pub max: f64,
    /// No rate below this one.
    pub min: f64,
    /// The search ends when what held and what missed are this close, as a share of what held.
    pub precision: f64,
    /// Trials that must agree on a rate, one way or the other.
    pub confirm: usize,
    /// Void trials of one rate before it counts as void.
    pub void_repeats: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { start: 1000.0, max: 1e8, min: 1.0, precision: 0.05, confirm: 2, void_repeats: 2 }
    }
}

/// One rate and what its trials showed.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// Messages a second.
    pub rate: f64,
    /// In the order in which they were made.
    pub trials: Vec<Trial>,
    /// What they come to.
    pub verdict: StepVerdict,
}

/// What the trials of one rate come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepVerdict {
    /// As many trials as must agree held.
    Held,
    /// As many missed.
    Missed,
    /// Too many were void.
    Void,
}

/// Why the search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// What held and what missed are as close as was asked.
    Found,
    /// The highest rate that may be tried held.
    AtMax,
    /// Even the lowest missed.
    BelowMin,
    /// Above the best rate trials were void: the generator is the limit, not the broker.
    GeneratorIsTheLimit,
    /// Somebody stopped it.
    Interrupted,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// The highest rate that held, in messages a second.
    pub best: Option<f64>,
    /// The lowest rate that missed or was void.
    pub missed: Option<f64>,
    /// Why it ended.
    pub ended: Ended,
    /// All rates tried, in order.
    pub steps: Vec<Step>,
}

/// Searches; `trial` makes one trial, or says `None` when it was interrupted.
///
/// # Errors
/// Those of `trial`.
pub fn search<E>(
    limits: &Limits,
    mut trial: impl FnMut(f64) -> Result<Option<Trial>, E>,
) -> Result<Found, E> {
    let mut found = Found { best: None, missed: None, ended: Ended::Found, steps: Vec::new() };
    let mut void_above = false;
    let mut rate = limits.start.clamp(limits.min, limits.max);
    loop {
        let Some(step) = step(limits, rate, &mut trial)? else {
            found.ended = Ended::Interrupted;
            return Ok(found);
        };
        let verdict = step.verdict;
        found.steps.push(step);
        if verdict == StepVerdict::Held {
            found.best = Some(rate);
        } else {
            void_above = verdict == StepVerdict::Void;
            found.missed = Some(rate);
        }
        rate = match (found.best, found.missed) {
            (Some(best), None) if best >= limits.max => {
                found.ended = Ended::AtMax;
                return Ok(found);
            }
            (Some(best), None) => (best * 2.0).min(limits.max),
            (None, Some(missed)) if missed <= limits.min => {
                found.ended = if void_above { Ended::GeneratorIsTheLimit } else { Ended::BelowMin };
                return Ok(found);
            }
            (None, Some(missed)) => (missed / 2.0).max(limits.min),
            (Some(best), Some(missed)) if missed - best <= best * limits.precision => {
                found.ended = if void_above { Ended::GeneratorIsTheLimit } else { Ended::Found };
                return Ok(found);
            }
            (Some(best), Some(missed)) => f64::midpoint(best, missed),
            (None, None) => unreachable!("each step held or did not"),
        };
    }
}

/// Tries one rate until enough trials agree.
fn step<E>(
    limits: &Limits,
    rate: f64,
    trial: &mut impl FnMut(f64) -> Result<Option<Trial>, E>,
) -> Result<Option<Step>, E> {
    let mut trials = Vec::new();
    let (mut held, mut missed, mut void) = (0, 0, 0);
    let verdict = loop {
        let Some(result) = trial(rate)? else { return Ok(None) };
        match result {
            Trial::Held => held += 1,
            Trial::Missed { .. } => missed += 1,
            Trial::Void { .. } => void += 1,
        }
        trials.push(result);
        if held >= limits.confirm {
            break StepVerdict::Held;
        }
        if missed >= limits.confirm {
            break StepVerdict::Missed;
        }
        if void > limits.void_repeats {
            break StepVerdict::Void;
        }
    };
    Ok(Some(Step { rate, trials, verdict }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { confirm: 1, ..Limits::default() }
    }

    fn missed() -> Trial {
        Trial::Missed { why: "p99 9 ms".to_owned() }
    }

    fn void() -> Trial {
        Trial::Void { why: "drifted".to_owned() }
    }

    /// A broker that holds up to `edge`.
    fn up_to(edge: f64) -> impl FnMut(f64) -> Result<Option<Trial>, ()> {
        move |rate| Ok(Some(if rate <= edge { Trial::Held } else { missed() }))
    }

    #[test]
    fn the_edge_is_found_within_the_precision_from_below() {
        for edge in [3.0, 999.0, 1001.0, 47_311.0, 9e7] {
            let found = search(&limits(), up_to(edge)).unwrap();
            let best = found.best.unwrap();
            assert_eq!(found.ended, Ended::Found);
            assert!(best <= edge && best > edge * 0.9, "{best} of {edge}");
            assert!(found.steps.len() < 30, "{}", found.steps.len());
        }
    }

    #[test]
    fn a_broker_without_an_edge_ends_at_the_highest_rate() {
        let found = search(&limits(), up_to(f64::MAX)).unwrap();
        assert_eq!((found.ended, found.best), (Ended::AtMax, Some(1e8)));
    }

    #[test]
    fn a_broker_that_never_holds_is_said_to_be_below_the_lowest_rate() {
        let found = search(&limits(), up_to(0.0)).unwrap();
        assert_eq!((found.ended, found.best), (Ended::BelowMin, None));
    }

    #[test]
    fn one_unlucky_trial_does_not_decide_where_two_must_agree() {
        let mut calls = 0;
        let limits = Limits { confirm: 2, max: 2000.0, ..limits() };
        let found = search(&limits, |_| {
            calls += 1;
            Ok::<_, ()>(Some(if calls == 1 { missed() } else { Trial::Held }))
        });
        let found = found.unwrap();
        assert_eq!(found.ended, Ended::AtMax);
        assert_eq!(found.steps[0].trials, vec![missed(), Trial::Held, Trial::Held]);
    }

    #[test]
    fn void_trials_are_repeated_and_a_generator_at_its_end_is_named() {
        let mut voided = 0;
        let once = |rate: f64| {
            voided += 1;
            Ok::<_, ()>(Some(if voided == 1 {
                void()
            } else if rate <= 1500.0 {
                Trial::Held
            } else {
                missed()
            }))
        };
        let found = search(&limits(), once).unwrap();
        assert_eq!((found.ended, found.steps[0].verdict), (Ended::Found, StepVerdict::Held));

        let weak = |rate: f64| Ok::<_, ()>(Some(if rate > 5000.0 { void() } else { Trial::Held }));
        let found = search(&limits(), weak).unwrap();
        assert_eq!(found.ended, Ended::GeneratorIsTheLimit);
        assert!(found.best.unwrap() <= 5000.0);
        let voids = found.steps.iter().find(|s| s.verdict == StepVerdict::Void).unwrap();
        assert_eq!(voids.trials.len(), limits().void_repeats + 1);
    }

    #[test]
    fn an_interruption_keeps_what_is_known() {
        let mut calls = 0;
        let found = search(&limits(), |_| {
            calls += 1;
            Ok::<_, ()>((calls < 3).then_some(Trial::Held))
        });
        let found = found.unwrap();
        assert_eq!((found.ended, found.best), (Ended::Interrupted, Some(2000.0)));
    }
}

//! The scenarios: one file each, and one line in [`REGISTRY`].

mod acl;
mod composite;
mod fanout;
mod firehose;
mod floor_of_mqtt;
mod idle;
mod keep_alive;
mod lat_open_loop;
mod million;
mod mqttbs;
mod observe;
mod p2p;
mod retained;
mod routes;
mod scrape;
mod shards;
mod slow;
mod storm;

use std::io;

use clap::Args;

use crate::scenario::Scenario;
use crate::table::render;

/// All scenarios, in the order in which `all` runs them.
pub(crate) const REGISTRY: &[&dyn Scenario] = &[
    &p2p::P2p500,
    &fanout::Fanout1To1000,
    &idle::Idle15K,
    &storm::Storm15K,
    &keep_alive::KeepAlive15K,
    &lat_open_loop::LatOpenLoop,
    &floor_of_mqtt::Floor,
    &mqttbs::CONN_TCP_10K_100,
    &mqttbs::FANOUT_1_1K_1_1K,
    &mqttbs::P2P_1K,
    &mqttbs::SHAREDSUB_1K_5,
    &mqttbs::FANOUT_5_1000_5_250K,
    &mqttbs::P2P_50K,
    &mqttbs::SHAREDSUB_50K_500,
    &firehose::Firehose,
    &routes::ROUTES_1M,
    &routes::ROUTES_10M,
    &retained::Retained1M,
    &slow::Slow50Of1000,
    &shards::Shards,
    &observe::Observe,
    &scrape::Scrape,
    &acl::Acl,
    &composite::SHORT,
    &composite::CHURN,
    &million::Million,
];

/// The scenario of that name.
///
/// # Errors
/// A sentence that says where the names are.
pub(crate) fn by_name(name: &str) -> io::Result<&'static dyn Scenario> {
    REGISTRY.iter().copied().find(|s| s.name() == name).ok_or_else(|| {
        io::Error::other(format!("`{name}` is no scenario: `ringmain-bench list` shows them"))
    })
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut rows = vec![["scenario", "in `all`"].map(str::to_owned).to_vec()];
        rows.extend(REGISTRY.iter().map(|s| {
            let when = if s.on_request() { "on request" } else { "yes" };
            vec![s.name().to_owned(), when.to_owned()]
        }));
        // The sentence goes last: columns but the first are set to the right.
        for (line, about) in render(&rows)
            .lines()
            .zip(std::iter::once("measures").chain(REGISTRY.iter().map(|s| s.about())))
        {
            println!("{line}  {about}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::Scale;
    use crate::scenario::outcome::is_of;

    #[test]
    fn names_and_cases_are_unique_and_targets_name_what_is_there() {
        let mut names = BTreeSet::new();
        for s in REGISTRY {
            assert!(names.insert(s.name()), "{}", s.name());
            let keys: BTreeSet<&str> = s.figures().iter().map(|f| f.key).collect();
            assert_eq!(keys.len(), s.figures().len(), "{}", s.name());
            for scale in [Scale::new(false, None, 4), Scale::new(true, None, 5)] {
                let mut cases: Vec<String> = s.cases(&scale).into_iter().map(|c| c.name).collect();
                for open in s.open_loops(&scale) {
                    assert!(cases.contains(&open.of), "{}: {}", s.name(), open.of);
                    cases.push(format!("open 50 % of {}", open.of));
                }
                let unique: BTreeSet<&String> = cases.iter().collect();
                assert_eq!(unique.len(), cases.len(), "{}", s.name());
                // A target may be for the full size alone.
                for t in s.targets().iter().filter(|_| !scale.quick) {
                    assert!(keys.contains(t.figure), "{}: {}", s.name(), t.figure);
                    assert!(cases.iter().any(|c| is_of(c, t.case)), "{}: {}", s.name(), t.case);
                }
            }
        }
        assert!(by_name("nothing").is_err());
    }
}

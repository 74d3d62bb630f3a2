//! What each stage of a message's way means, and what to look at when most of the time is in it.

use ringmain_shards::observe::Stage;

/// The stage of this name.
fn stage(name: &str) -> Option<Stage> {
    Stage::ALL.iter().copied().find(|s| s.name() == name)
}

/// A stage in words; its name again if a newer broker has one that is not known here.
pub(super) fn says(name: &str) -> &str {
    stage(name).map_or(name, |stage| stage.says())
}

/// What to look at when a stage is slow, in a sentence.
pub(super) fn next(name: &str) -> &'static str {
    let Some(stage) = stage(name) else {
        return "This version of ringmain does not know that stage: use the one that the broker runs.";
    };
    match stage {
        Stage::Connect => {
            "Clients send their CONNECT late: look at their network and at counter connect_timeout; messages do not \
             wait for it."
        }
        Stage::Arrival => {
            "The shard was in a turn when the message came: look at its busy and stolen shares and its longest turn in \
             `ringmain top`, and record turns with `ringmain profile --turns`."
        }
        Stage::Turn => {
            "Much arrived in the same turn: look at how busy the shard is in `ringmain top`, and at the completions of \
             its turns with `ringmain profile --turns`; spread publishers that send at the same moment, or use more \
             shards."
        }
        Stage::Decode => {
            "Decoding takes long only for large packets or where the CPU was taken away: look at the message's bytes, \
             and at the shard's stolen share in `ringmain top`."
        }
        Stage::Authorise => {
            "Checks took long: look at what the shard's thread does then with `ringmain profile`, and at its stolen \
             share in `ringmain top`."
        }
        Stage::Route => {
            "One publish had many subscribers, or many shapes of wildcard filters were tried: look at \
             delivery_matched beside messages_publish, and split the topic or use a shared subscription."
        }
        Stage::Crossing => {
            "The message waited for the subscriber's shard: look at that shard's longest turn, busy and stolen shares \
             in `ringmain top`, and at counter lanes_filled."
        }
        Stage::Queue => {
            "The subscriber was away, or has as much unacknowledged as it may: look at its acknowledge stage and \
             network, then at mqtt.max_inflight and the client's Receive Maximum; if it can not keep up, share its \
             work with a shared subscription."
        }
        Stage::Coalesce => {
            "An earlier send of the same connection was not done, or the turn was long: look at the send stage of this \
             client, and at the shard's longest turn in `ringmain top`."
        }
        Stage::Send => {
            "The socket did not take it: the client reads too slowly or its network loses packets: look at `ss -ti` for \
             its connection, and at limits.slow_consumer_policy."
        }
        Stage::Acknowledge => {
            "The client acknowledged late: look at the client and at the round trip to it (`ss -ti`); the broker has \
             done its part."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_words_and_a_next_step_and_the_page_lists_them() {
        let page = include_str!("../../docs/user/latency.md");
        let page: String = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for stage in Stage::ALL {
            let row =
                format!("| `{}` | {} | {} |", stage.name(), says(stage.name()), next(stage.name()));
            assert!(page.contains(&row), "docs/user/latency.md lacks:\n{row}");
        }
    }

    #[test]
    fn a_stage_of_a_newer_broker_is_shown_by_its_name() {
        assert_eq!(says("teleport"), "teleport");
        assert!(next("teleport").contains("does not know"));
    }
}

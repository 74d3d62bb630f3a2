//! The least that must work.

use crate::support::{Node, SHARDS, VERSIONS};
use crate::support::{publish, texts};

// P01, W01, W02, W03. The delivered QoS is the lower of the published and the granted one.
// [MQTT-3.8.4-8] [MQTT-4.1.0-1]
#[test]
fn every_qos_reaches_every_version_on_every_shard() {
    for shards in SHARDS {
        for from in VERSIONS {
            for to in VERSIONS {
                for (sent, granted) in (0..3).flat_map(|s| (0..3).map(move |g| (s, g))) {
                    let mut n = Node::new(shards);
                    let publishers = n.join_each(from, "pub");
                    let subscribers = n.join_each(to, "sub");
                    for s in &subscribers {
                        assert_eq!(n.sub(*s, "a/+", granted), granted);
                    }
                    for p in &publishers {
                        assert_eq!(n.put(*p, &publish("a/b", sent, "hello")), 0);
                    }
                    for s in &subscribers {
                        let got = n.msgs(*s);
                        assert_eq!(texts(&got), vec!["hello"; shards], "{shards} {from:?} {to:?}");
                        assert!(got.iter().all(|m| m.qos == sent.min(granted) && m.topic == "a/b"));
                        n.quiet(*s);
                    }
                    for p in publishers {
                        n.quiet(p);
                    }
                    let g = n.gauges();
                    assert_eq!((g.inflight, g.queued), (0, 0));
                }
            }
        }
    }
}

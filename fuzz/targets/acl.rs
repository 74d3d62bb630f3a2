//! Rules of authorization in both forms, and what is decided by them: what was compiled for a client
//! decides as the rules asked one by one, which also explain it.
//! Input: rules, U+0000, what is asked for. Rules that begin with `{` or `%` are those of acl.conf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_acl::topic::{covers, publish_target, subscribe_target};
use ringmain_acl::{Action, Decision, ERRORS_MAX, Effect, Gate, Policy, Settings, Source, Subject};
use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::TopicName;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else { return };
    let (rules, asked) = text.split_once('\0').unwrap_or((text, "a/b"));
    let source = match rules.as_bytes().first() {
        Some(b'{' | b'%') => Source::emqx("acl.conf", rules),
        _ => Source::toml("acl.toml", rules),
    };
    let source = match source {
        Ok(source) => source,
        Err(errors) => {
            assert!((1..=ERRORS_MAX).contains(&errors.0.len()));
            let lines = 1 + rules.matches('\n').count() as u32;
            assert!(errors.0.iter().all(|error| (1..=lines).contains(&error.line)), "{errors}");
            return;
        }
    };
    let policy = Policy::compile(1, vec![source], Settings::new(Effect::Deny));
    let mut gate = Gate::with_cache(policy, 4);
    let subjects = [
        Subject { client_id: "a", ..Subject::default() },
        Subject {
            client_id: "#",
            username: Some("joe"),
            peer: Some([127, 0, 0, 1].into()),
            listener: "tcp:default",
            cert_common_name: Some("cn"),
            attributes: &[("x", "y")],
            superuser: false,
        },
    ];
    for subject in subjects {
        let client = gate.client(&subject, None);
        for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
            let name = TopicName::parse(asked, 0).ok().and_then(|name| publish_target(&name).ok());
            let filter = subscribe_target(asked).ok();
            let publish = name.map(|name| (Action::Publish { qos, retain: false }, name));
            let subscribe = filter.map(|filter| (Action::Subscribe { qos }, filter));
            for (action, topic) in publish.into_iter().chain(subscribe) {
                let why = gate.explain(&client, &subject, None, action, topic, true);
                for _ in 0..2 {
                    let decision = gate.decide(&client, action, topic);
                    assert_eq!(decision, Decision::from(why.outcome), "{why:?}");
                }
                assert!(!action.is_subscribe() || covers(topic, topic));
            }
        }
    }
});

//! The `acl.conf` that EMQX comes with decides here as it does there.

use ringmain_acl::{Action, By, Decision, Effect, Gate, Policy, Settings, Source, Subject};
use ringmain_mqtt::QoS;

/// The rules of the file that EMQX 4 comes with.
const V4: &str = r##"
{allow, {user, "dashboard"}, subscribe, ["$SYS/#"]}.

{allow, {ipaddr, "127.0.0.1"}, pubsub, ["$SYS/#", "#"]}.

{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.

{allow, all}.
"##;

/// Those of EMQX 5.0.
const V50: &str = r##"
%%--------------------------------------------------------------------
%% -type(ipaddr() :: {ipaddr, string()}).
%%--------------------------------------------------------------------
{allow, {username, {re, "^dashboard?"}}, subscribe, ["$SYS/#"]}.
{allow, {ipaddr, "127.0.0.1"}, all, ["$SYS/#", "#"]}.
{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.
{allow, all}.
"##;

/// Those of later versions of EMQX 5.
const V5: &str = r##"
%%-------------- Default ACL rules -------------------------------------------------------

{allow, {username, {re, "^dashboard$"}}, subscribe, ["$SYS/#"]}.

{allow, {ipaddr, "127.0.0.1"}, all, ["$SYS/#", "#"]}.

{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.

{allow, all}.
%% NOTE! when deploy in production:
%% - Change the last rule to `{deny, all}.`
"##;

/// Those of the last ones, which also deny `+/#`.
const V58: &str = r##"
{allow, {username, {re, "^dashboard$"}}, subscribe, ["$SYS/#"]}.
{allow, {ipaddr, "127.0.0.1"}, all, ["$SYS/#", "#"]}.
{deny, all, subscribe, ["$SYS/#", {eq, "#"}, {eq, "+/#"}]}.
{allow, all}.
"##;

#[test]
fn the_default_of_emqx_decides_here_as_there() {
    // AZ01
    let probes = include_str!("data/emqx_default.tsv");
    let mut count = 0;
    for probe in probes.lines().filter(|line| !line.starts_with('#')) {
        let [version, user, ip, verb, topic, expected, number] =
            probe.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let text = match version {
            "4.x" => V4,
            "5.0" => V50,
            "5.x" => V5,
            _ => V58,
        };
        let source = Source::emqx("acl.conf", text).unwrap_or_else(|errors| panic!("{errors}"));
        // Whatever is not decided by a rule shows as denied.
        let policy = Policy::compile(1, vec![source], Settings::new(Effect::Deny));
        let mut gate = Gate::new(policy);
        let subject = Subject {
            client_id: "c",
            username: (user != "-").then_some(user),
            peer: Some(ip.parse().unwrap()),
            ..Subject::default()
        };
        let client = gate.client(&subject, None);
        let action = match verb {
            "subscribe" => Action::Subscribe { qos: QoS::AtMostOnce },
            _ => Action::Publish { qos: QoS::AtMostOnce, retain: false },
        };
        let expected = if expected == "allow" { Decision::Allow } else { Decision::Deny };
        assert_eq!(gate.decide(&client, action, topic), expected, "{probe}");
        let why = gate.explain(&client, &subject, None, action, topic, false);
        let By::Rule { rule, .. } = why.by else { panic!("{probe}: {why:?}") };
        assert!(number == "-" || rule.to_string() == number, "{probe}: rule {rule}");
        count += 1;
    }
    assert!(count >= 200, "{count} probes");
}

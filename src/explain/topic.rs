//! A PUBLISH and a SUBSCRIBE, as `Shard::on_publish` and `Shard::on_subscribe` look at them.

use clap::Args;
use ringmain_acl::Action;
use ringmain_mqtt::subscription::{Parsed, parse_subscription};
use ringmain_mqtt::topic::TopicName;
use ringmain_mqtt::{QoS, ReasonCode};

use super::who::Who;
use super::{Ask, DryRun, Refusal, Verdict, refuse, text};
use crate::config::{DenyAction, Mqtt};

/// Options of `ringmain explain publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    who: Who,
    /// Topic of the message
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// QoS of the message
    #[arg(long, value_name = "QOS", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// It is to be retained
    #[arg(long)]
    retain: bool,
}

/// Options of `ringmain explain subscribe`.
#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    who: Who,
    /// Topic filter, also `$share/group/filter`
    #[arg(long, value_name = "FILTER")]
    topic: String,
    /// QoS that is asked for
    #[arg(long, value_name = "QOS", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
}

impl Ask for Publish {
    fn who(&self) -> &Who {
        &self.who
    }

    fn run(&self, dry: &mut DryRun<'_>) -> Verdict {
        let qos = level(self.qos);
        let action = Action::Publish { qos, retain: self.retain };
        let limits = publish_limits(&dry.listener.mqtt, &self.topic, qos, self.retain);
        let result = dry.check("limits", limits).and_then(|()| dry.authorise(action, &self.topic));
        dry.verdict(text::action(action, &self.topic), result, |listener, code| {
            publish_leads_to(&listener.mqtt, qos, code)
        })
    }
}

/// What the settings of the listener say to a message, or a will.
pub(super) fn publish_limits(
    mqtt: &Mqtt,
    topic: &str,
    qos: QoS,
    retain: bool,
) -> Result<String, Refusal> {
    if qos as u8 > mqtt.max_qos {
        let says = format!("QoS {} is above mqtt.max_qos = {}", qos as u8, mqtt.max_qos);
        return Err(refuse(ReasonCode::QOS_NOT_SUPPORTED, says));
    }
    if retain && !mqtt.retain_available {
        let says = "mqtt.retain_available = false";
        return Err(refuse(ReasonCode::RETAIN_NOT_SUPPORTED, says));
    }
    let name = TopicName::parse(topic, mqtt.max_topic_levels)
        .map_err(|wrong| refuse(ReasonCode::TOPIC_NAME_INVALID, wrong.as_str()))?;
    match name.publish_refusal() {
        Some(code) => {
            Err(refuse(code, "no client can publish to this topic, whatever the rules say"))
        }
        None => Ok("topic, QoS and RETAIN are what [mqtt] allows".to_owned()),
    }
}

fn publish_leads_to(mqtt: &Mqtt, qos: QoS, code: Option<ReasonCode>) -> String {
    let Some(code) = code else { return "the message is routed".to_owned() };
    let fatal = matches!(code, ReasonCode::QOS_NOT_SUPPORTED | ReasonCode::RETAIN_NOT_SUPPORTED);
    let denied = code == ReasonCode::NOT_AUTHORIZED;
    let close = denied && mqtt.deny_action == DenyAction::Disconnect;
    let closes = "the connection is closed, version 5 learns the code in DISCONNECT".to_owned();
    match (qos, code) {
        _ if close => format!("{closes} (mqtt.deny_action = \"disconnect\")"),
        _ if fatal => closes,
        (QoS::AtMostOnce, ReasonCode::TOPIC_NAME_INVALID) => closes,
        (QoS::AtMostOnce, _) => "the message is dropped: QoS 0 has no answer".to_owned(),
        _ => {
            let packet = if qos == QoS::AtLeastOnce { "PUBACK" } else { "PUBREC" };
            let others = if denied { "get it acknowledged and dropped" } else { "are closed" };
            format!("version 5 gets the code in {packet}, versions 3 {others}")
        }
    }
}

impl Ask for Subscribe {
    fn who(&self) -> &Who {
        &self.who
    }

    fn run(&self, dry: &mut DryRun<'_>) -> Verdict {
        let qos = level(self.qos);
        let action = Action::Subscribe { qos };
        let result = self.look(dry, action);
        dry.verdict(text::action(action, &self.topic), result, |listener, code| {
            subscribe_leads_to(&listener.mqtt, qos, code)
        })
    }
}

impl Subscribe {
    fn look(&self, dry: &mut DryRun<'_>, action: Action) -> Result<(), ReasonCode> {
        let mqtt = &dry.listener.mqtt;
        let parsed = match parse_subscription(&self.topic, mqtt.max_topic_levels) {
            Ok(parsed) => parsed,
            Err(wrong) => {
                let refused = refuse(ReasonCode::TOPIC_FILTER_INVALID, wrong.as_str());
                return dry.check("filter", Err(refused));
            }
        };
        let inner = parsed.filter.as_str();
        let says = match inner == self.topic {
            true => "well-formed".to_owned(),
            false => format!("the rules are asked about {inner:?}"),
        };
        dry.check("filter", Ok(says))?;
        dry.authorise(action, inner)?;
        dry.check("limits", subscribe_limits(mqtt, &parsed, dry.client.superuser))
    }
}

fn subscribe_limits(mqtt: &Mqtt, parsed: &Parsed<'_>, superuser: bool) -> Result<String, Refusal> {
    if parsed.filter.is_wildcard() && !mqtt.wildcard_subscription_available {
        let code = ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
        return Err(refuse(code, "mqtt.wildcard_subscription_available = false"));
    }
    let too_wide = parsed.filter.plain_levels() < usize::from(mqtt.min_wildcard_depth);
    if parsed.filter.is_wildcard() && too_wide && !superuser {
        let says = format!("mqtt.min_wildcard_depth = {}", mqtt.min_wildcard_depth);
        return Err(refuse(ReasonCode::TOPIC_FILTER_INVALID, says));
    }
    if parsed.is_shared() && !mqtt.shared_subscription_available {
        let code = ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;
        return Err(refuse(code, "mqtt.shared_subscription_available = false"));
    }
    Ok("its kind is what [mqtt] allows; how many it has already is not known here".to_owned())
}

fn subscribe_leads_to(mqtt: &Mqtt, qos: QoS, code: Option<ReasonCode>) -> String {
    let Some(code) = code else {
        return format!("QoS {} is granted", (qos as u8).min(mqtt.max_qos));
    };
    let said =
        "SUBACK has the code in version 5 and 0x80 in 3.1.1; 3.1 cannot be told and gets nothing";
    if code == ReasonCode::NOT_AUTHORIZED && mqtt.deny_action == DenyAction::Disconnect {
        return format!("{said}; the connection is closed (mqtt.deny_action = \"disconnect\")");
    }
    said.to_owned()
}

/// The QoS of a number that clap has bounded.
pub(super) fn level(qos: u8) -> QoS {
    QoS::from_bits(qos).unwrap_or(QoS::ExactlyOnce)
}

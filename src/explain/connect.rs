//! A CONNECT, as `Shard::on_connect` looks at it.

use clap::Args;
use ringmain_acl::Action;
use ringmain_mqtt::{ClientIdRules, QoS, ReasonCode, Version};

use super::topic::{level, publish_limits};
use super::who::Who;
use super::{Ask, Check, DryRun, Outcome, Refusal, Verdict, refuse};

/// What the default policy is about: asked for each client, as it is what surprises.
const PROBES: [&str; 3] = ["$SYS/#", "#", "$share/group/#"];

/// Options of `ringmain explain connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    who: Who,
    /// Protocol level: 3 is 3.1, 4 is 3.1.1, 5 is 5.0
    #[arg(long, value_name = "LEVEL", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(3..=5))]
    protocol: u8,
    /// It wants to go on with the session of before: CleanSession or Clean Start is 0
    #[arg(long)]
    persistent: bool,
    /// Topic of its will
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// QoS of its will
    #[arg(long, value_name = "QOS", default_value_t = 0, requires = "will_topic",
          value_parser = clap::value_parser!(u8).range(0..=2))]
    will_qos: u8,
    /// Its will is to be retained
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
}

impl Ask for Connect {
    fn who(&self) -> &Who {
        &self.who
    }

    fn run(&self, dry: &mut DryRun<'_>) -> Verdict {
        let result = self.look(dry);
        if result.is_ok() {
            for filter in PROBES {
                // The engine asks about what is behind `$share`.
                let Ok(inner) = ringmain_acl::topic::subscribe_target(filter) else { continue };
                let _ = dry.decide(Action::Subscribe { qos: QoS::AtMostOnce }, inner);
            }
        }
        let asked = format!("connect with protocol level {}", self.protocol);
        dry.verdict(asked, result, |_, code| match code {
            None => {
                "CONNACK with success, unless authentication refuses it or a limit of the moment \
                     does: connections, rates, memory"
                    .to_owned()
            }
            Some(code) if self.protocol < 5 => {
                format!("CONNACK with return code {}, then closed", code.to_v3_connack())
            }
            Some(_) => "CONNACK with the code, then closed".to_owned(),
        })
    }
}

impl Connect {
    fn look(&self, dry: &mut DryRun<'_>) -> Result<(), ReasonCode> {
        dry.check("protocol", self.version(dry))?;
        dry.check("client id", self.client_id(dry))?;
        // What authentication would say has its place here: name, attributes and superuser are its
        // answer, and are taken as given.
        dry.checks.push(Check {
            what: "authentication",
            outcome: Outcome::NotAsked,
            says: "not asked here: user name, attributes and superuser are taken as given"
                .to_owned(),
        });
        let Some(topic) = &self.will_topic else { return Ok(()) };
        let (qos, retain) = (level(self.will_qos), self.will_retain);
        dry.check("will", publish_limits(&dry.listener.mqtt, topic, qos, retain))?;
        dry.authorise(Action::Publish { qos, retain }, topic) // AZ07
    }

    fn version(&self, dry: &DryRun<'_>) -> Result<String, Refusal> {
        let accepted = &dry.listener.accept_protocol_versions;
        let says = format!("accept_protocol_versions = {accepted:?}");
        match accepted.contains(&self.protocol) {
            true => Ok(says),
            false => Err(refuse(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, says)),
        }
    }

    fn client_id(&self, dry: &DryRun<'_>) -> Result<String, Refusal> {
        let mqtt = &dry.listener.mqtt;
        let rules = ClientIdRules {
            max_len: mqtt.max_client_id_len,
            lenient_31: mqtt.lenient_v31_client_id,
        };
        let version = match self.protocol {
            3 => Version::V31,
            4 => Version::V311,
            _ => Version::V5,
        };
        let connect = ringmain_mqtt::Connect {
            clean_start: !self.persistent,
            username: dry.client.username.as_deref(),
            ..ringmain_mqtt::Connect::new(version, &dry.client.client_id)
        };
        match connect.check_client_id(&rules) {
            Ok(()) if dry.client.client_id.is_empty() => Ok("the broker makes one".to_owned()),
            Ok(()) => Ok(format!("{:?}", dry.client.client_id)),
            Err(code) => Err(refuse(
                code,
                "too long, or empty where this version does not let the broker make one",
            )),
        }
    }
}

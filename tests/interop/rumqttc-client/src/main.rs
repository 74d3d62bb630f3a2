//! rumqttc behind the face that `../clients/README.md` describes.

use std::{env, error::Error, fmt::Write, process::ExitCode, time::Duration};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Args {
    publishes: bool,
    port: u16,
    version: u8,
    id: String,
    topic: String,
    qos: u8,
    count: usize,
    retain: bool,
    properties: bool,
}

impl Args {
    fn parse() -> Result<Self> {
        let mut words = env::args().skip(1);
        let publishes = words.next().ok_or("pub or sub?")? == "pub";
        let mut args = Self {
            publishes,
            port: 0,
            version: 4,
            id: String::new(),
            topic: String::new(),
            qos: 0,
            count: 0,
            retain: false,
            properties: false,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--retain" => args.retain = true,
                "--properties" => args.properties = true,
                option => {
                    let value = words.next().ok_or("an option lacks its value")?;
                    match option {
                        "--port" => args.port = value.parse()?,
                        "--version" => args.version = value.parse()?,
                        "--id" => args.id = value,
                        "--topic" => args.topic = value,
                        "--qos" => args.qos = value.parse()?,
                        "--count" => args.count = value.parse()?,
                        _ => return Err(format!("unknown option {option}").into()),
                    }
                }
            }
        }
        Ok(args)
    }

    fn payload(&self, n: usize) -> String {
        format!("{}-q{}-{n}", self.id, self.qos)
    }
}

/// A JSON string; the tests send printable text only.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out + "\""
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// MQTT 3.1.1.
mod v4 {
    use super::{Args, Duration, Result, quoted};
    use rumqttc::{Client, Event, MqttOptions, Outgoing, Packet, QoS};

    pub fn run(args: &Args) -> Result<()> {
        let mut options = MqttOptions::new(&args.id, "127.0.0.1", args.port);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, args.count + 10);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(args.qos)];
        let mut done = 0;
        for event in connection.iter() {
            match event? {
                Event::Incoming(Packet::ConnAck(_)) if args.publishes => {
                    for n in 0..args.count {
                        client.publish(&args.topic, qos, args.retain, args.payload(n))?;
                    }
                }
                Event::Incoming(Packet::ConnAck(_)) => client.subscribe(&args.topic, qos)?,
                Event::Incoming(Packet::SubAck(_)) => println!("READY"),
                Event::Incoming(Packet::Publish(p)) => {
                    let (topic, payload) =
                        (quoted(&p.topic), quoted(std::str::from_utf8(&p.payload)?));
                    let (qos, retain) = (p.qos as u8, p.retain);
                    println!(
                        "{{\"topic\":{topic},\"payload\":{payload},\"qos\":{qos},\"retain\":{retain}}}"
                    );
                    // A QoS 2 message counts when its handshake is over.
                    done += usize::from(qos != 2);
                }
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => done += 1,
                Event::Incoming(Packet::PubRel(_)) => done += 1,
                Event::Outgoing(Outgoing::Publish(_)) if args.qos == 0 => done += 1,
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
            if done == args.count {
                done += 1;
                client.disconnect()?;
            }
        }
        Ok(())
    }
}

/// MQTT 5.0.
mod v5 {
    use super::{Args, Duration, Result, Write, hex, quoted};
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
    use rumqttc::v5::{Client, Event, MqttOptions};

    fn properties(args: &Args) -> PublishProperties {
        if !args.properties {
            return PublishProperties::default();
        }
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(600),
            response_topic: Some("reply/to/me".to_owned()),
            correlation_data: Some(vec![0xc0, 0xff, 0xee, 0x00].into()),
            user_properties: vec![pair("k", "1"), pair("k", "3"), pair("other", "2")],
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        }
    }

    fn describe(p: &Publish) -> Result<String> {
        let (topic, payload) =
            (quoted(std::str::from_utf8(&p.topic)?), quoted(std::str::from_utf8(&p.payload)?));
        let (qos, retain) = (p.qos as u8, p.retain);
        let mut out =
            format!("{{\"topic\":{topic},\"payload\":{payload},\"qos\":{qos},\"retain\":{retain}");
        if let Some(props) = &p.properties {
            if let Some(v) = props.payload_format_indicator {
                write!(out, ",\"format\":{v}")?;
            }
            if let Some(v) = props.message_expiry_interval {
                write!(out, ",\"expiry\":{v}")?;
            }
            if let Some(v) = &props.content_type {
                write!(out, ",\"content_type\":{}", quoted(v))?;
            }
            if let Some(v) = &props.response_topic {
                write!(out, ",\"response_topic\":{}", quoted(v))?;
            }
            if let Some(v) = &props.correlation_data {
                write!(out, ",\"correlation\":\"{}\"", hex(v))?;
            }
            let pairs = props.user_properties.iter();
            let pairs: Vec<_> =
                pairs.map(|(k, v)| format!("[{},{}]", quoted(k), quoted(v))).collect();
            if !pairs.is_empty() {
                write!(out, ",\"user\":[{}]", pairs.join(","))?;
            }
        }
        Ok(out + "}")
    }

    pub fn run(args: &Args) -> Result<()> {
        let mut options = MqttOptions::new(&args.id, "127.0.0.1", args.port);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, args.count + 10);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(args.qos)];
        let mut done = 0;
        for event in connection.iter() {
            match event? {
                Event::Incoming(Packet::ConnAck(_)) if args.publishes => {
                    for n in 0..args.count {
                        let (payload, props) = (args.payload(n), properties(args));
                        client.publish_with_properties(
                            &args.topic,
                            qos,
                            args.retain,
                            payload,
                            props,
                        )?;
                    }
                }
                Event::Incoming(Packet::ConnAck(_)) => client.subscribe(&args.topic, qos)?,
                Event::Incoming(Packet::SubAck(_)) => println!("READY"),
                Event::Incoming(Packet::Publish(p)) => {
                    println!("{}", describe(&p)?);
                    done += usize::from(p.qos != QoS::ExactlyOnce);
                }
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_) | Packet::PubRel(_)) => {
                    done += 1
                }
                Event::Outgoing(Outgoing::Publish(_)) if args.qos == 0 => done += 1,
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
            if done == args.count {
                done += 1;
                client.disconnect()?;
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let outcome = Args::parse()
        .and_then(|args| if args.version == 5 { v5::run(&args) } else { v4::run(&args) });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

// MQTT.js behind the face that README.md describes.
"use strict";
const mqtt = require("mqtt");

const [role, ...rest] = process.argv.slice(2);
const args = {};
for (let at = 0; at < rest.length; at++) {
  const name = rest[at].slice(2);
  args[name] = name === "retain" || name === "properties" ? true : rest[++at];
}
const version = Number(args.version), qos = Number(args.qos), count = Number(args.count);

function describe(topic, payload, packet) {
  const out = { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain };
  const props = packet.properties || {};
  if (props.payloadFormatIndicator !== undefined) out.format = Number(props.payloadFormatIndicator);
  if (props.messageExpiryInterval !== undefined) out.expiry = props.messageExpiryInterval;
  if (props.contentType !== undefined) out.content_type = props.contentType;
  if (props.responseTopic !== undefined) out.response_topic = props.responseTopic;
  if (props.correlationData !== undefined) out.correlation = props.correlationData.toString("hex");
  if (props.userProperties !== undefined) {
    out.user = Object.entries(props.userProperties).flatMap(([k, v]) => [].concat(v).map((one) => [k, one]));
  }
  return out;
}

const client = mqtt.connect({
  host: "127.0.0.1",
  port: Number(args.port),
  clientId: args.id,
  protocolId: version === 3 ? "MQIsdp" : "MQTT",
  protocolVersion: version,
  reconnectPeriod: 0,
});
client.on("error", (error) => { console.error(error); process.exit(4); });

function properties() {
  if (!args.properties) return undefined;
  return {
    payloadFormatIndicator: true,
    messageExpiryInterval: 600,
    contentType: "text/plain",
    responseTopic: "reply/to/me",
    correlationData: Buffer.from("c0ffee00", "hex"),
    userProperties: { k: ["1", "3"], other: "2" },
  };
}

async function publish() {
  for (let n = 0; n < count; n++) {
    await client.publishAsync(args.topic, `${args.id}-q${qos}-${n}`, { qos, retain: !!args.retain, properties: properties() });
  }
  await client.endAsync();
}

client.once("connect", () => {
  if (role === "pub") {
    publish().catch((error) => { console.error(error); process.exit(4); });
    return;
  }
  let seen = 0, subscribed = false;
  // A retained message may come before the SUBACK.
  const endWhenDone = () => { if (subscribed && seen === count) setImmediate(() => client.end()); };
  client.on("message", (topic, payload, packet) => {
    console.log(JSON.stringify(describe(topic, payload, packet)));
    seen++;
    endWhenDone();
  });
  client.subscribe(args.topic, { qos }, (error) => {
    if (error) throw error;
    console.log("READY");
    subscribed = true;
    endWhenDone();
  });
});

"""paho-mqtt behind the face that README.md describes."""

import argparse
import json
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["pub", "sub"])
for option in ("--port", "--version", "--qos", "--count"):
    parser.add_argument(option, type=int, required=True)
parser.add_argument("--id", required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--retain", action="store_true")
parser.add_argument("--properties", action="store_true")
args = parser.parse_args()

connected, done = threading.Event(), threading.Event()
seen = 0


def describe(message):
    out = {
        "topic": message.topic,
        "payload": message.payload.decode(),
        "qos": message.qos,
        "retain": bool(message.retain),
    }
    names = {
        "PayloadFormatIndicator": "format",
        "MessageExpiryInterval": "expiry",
        "ContentType": "content_type",
        "ResponseTopic": "response_topic",
        "UserProperty": "user",
    }
    props = getattr(message, "properties", None)
    for theirs, ours in names.items():
        if hasattr(props, theirs):
            out[ours] = getattr(props, theirs)
    if hasattr(props, "CorrelationData"):
        out["correlation"] = props.CorrelationData.hex()
    return out


def on_connect(client, _userdata, _flags, reason, _props):
    assert not reason.is_failure, reason
    connected.set()


def on_subscribe(*_):
    print("READY", flush=True)


def on_message(client, _userdata, message):
    global seen
    print(json.dumps(describe(message)), flush=True)
    seen += 1
    if seen == args.count:
        done.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, args.id, protocol=args.version)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", args.port)
client.loop_start()
connected.wait()
if args.role == "sub":
    if args.version == 5:
        client.subscribe(args.topic, options=SubscribeOptions(args.qos))
    else:
        client.subscribe(args.topic, args.qos)
    done.wait()
else:
    props = None
    if args.properties:
        props = Properties(PacketTypes.PUBLISH)
        props.PayloadFormatIndicator = 1
        props.MessageExpiryInterval = 600
        props.ContentType = "text/plain"
        props.ResponseTopic = "reply/to/me"
        props.CorrelationData = bytes.fromhex("c0ffee00")
        props.UserProperty = [("k", "1"), ("k", "3"), ("other", "2")]
    for n in range(args.count):
        sent = client.publish(args.topic, f"{args.id}-q{args.qos}-{n}", args.qos, args.retain, props)
        sent.wait_for_publish()
client.disconnect()
client.loop_stop()

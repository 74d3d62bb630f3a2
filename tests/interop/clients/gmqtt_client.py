"""gmqtt behind the face that README.md describes."""

import argparse
import asyncio
import json

import gmqtt

parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["pub", "sub"])
for option in ("--port", "--version", "--qos", "--count"):
    parser.add_argument(option, type=int, required=True)
parser.add_argument("--id", required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--retain", action="store_true")
parser.add_argument("--properties", action="store_true")
args = parser.parse_args()


def describe(topic, payload, qos, props):
    out = {"topic": topic, "payload": payload.decode(), "qos": qos, "retain": bool(props.get("retain"))}
    names = {
        "payload_format_id": "format",
        "message_expiry_interval": "expiry",
        "content_type": "content_type",
        "response_topic": "response_topic",
        "correlation_data": "correlation",
    }
    for theirs, ours in names.items():
        if theirs in props:
            out[ours] = props[theirs][0]
    if isinstance(out.get("correlation"), bytes):
        out["correlation"] = out["correlation"].hex()
    if "user_property" in props:
        out["user"] = props["user_property"]
    return out


async def main():
    client = gmqtt.Client(args.id, clean_session=True)
    done = asyncio.Event()
    seen = 0

    def on_message(_client, topic, payload, qos, props):
        nonlocal seen
        print(json.dumps(describe(topic, payload, qos, props)), flush=True)
        seen += 1
        if seen == args.count:
            done.set()
        return 0

    client.on_message = on_message
    client.on_subscribe = lambda *_: print("READY", flush=True)
    await client.connect("127.0.0.1", args.port, version=args.version)
    if args.role == "sub":
        client.subscribe(args.topic, qos=args.qos)
        await done.wait()
        await asyncio.sleep(0)
    else:
        props = {}
        if args.properties:
            props = {
                "payload_format_id": 1,
                "message_expiry_interval": 600,
                "content_type": "text/plain",
                "response_topic": "reply/to/me",
                "correlation_data": bytes.fromhex("c0ffee00"),
                "user_property": [("k", "1"), ("k", "3"), ("other", "2")],
            }
        for n in range(args.count):
            client.publish(args.topic, f"{args.id}-q{args.qos}-{n}", qos=args.qos, retain=args.retain, **props)
        await client._persistent_storage.wait_empty()
    await client.disconnect()


asyncio.run(main())

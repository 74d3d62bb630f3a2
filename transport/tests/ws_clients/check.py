#!/usr/bin/env python3
"""The client of pip install websockets==17.4 against examples/ws_echo: check.py ADDRESS"""
import asyncio
import sys

import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def received(ws, length):
    """The echo comes in frames of its own."""
    got = b""
    while len(got) < length:
        got += await asyncio.wait_for(ws.recv(), 10)
    return got


async def main(address):
    url = f"ws://{address}/mqtt"
    async with websockets.connect(url, subprotocols=["mqtt"], max_size=None) as ws:
        assert ws.subprotocol == "mqtt" and not ws.protocol.extensions
        for length in [0, 1, 125, 126, 127, 128, 65535, 65536, 1_000_000]:
            sent = bytes(i % 251 for i in range(length))
            await ws.send(sent)
            assert await received(ws, length) == sent, length
        await ws.send([b"in ", b"three ", b"frames"])
        assert await received(ws, 15) == b"in three frames"
        for payload in [b"", b"x" * 125]:
            await asyncio.wait_for(await ws.ping(payload), 10)
        await ws.close(4000, "done")
        assert ws.close_code == 4000, ws.close_code
    async with websockets.connect(url, subprotocols=["mqtt"]) as ws:
        await ws.send("text")
        try:
            await ws.recv()
            raise AssertionError("text is not taken")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 1003, closed
    for bad, status in [(f"ws://{address}/other", 404), (url, 400)]:
        try:
            await websockets.connect(bad, subprotocols=["mqtt"] if status == 404 else ["chat"])
            raise AssertionError(bad)
        except InvalidStatus as refused:
            assert refused.response.status_code == status, refused
    print("websockets: all well")


asyncio.run(main(sys.argv[1]))

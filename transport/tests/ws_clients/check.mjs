// The client of npm install ws@8 against examples/ws_echo: node check.mjs ADDRESS
import assert from 'node:assert';
import { once } from 'node:events';
import WebSocket from 'ws';

const url = `ws://${process.argv[2]}/mqtt`;
const ws = new WebSocket(url, ['mqtt']);
await once(ws, 'open');
assert.equal(ws.protocol, 'mqtt');
assert.equal(ws.extensions, '', 'permessage-deflate was offered and is declined');
// Frames may come many in one read, so none is waited for by itself.
let got = Buffer.alloc(0);
ws.on('message', (data) => { got = Buffer.concat([got, data]); });
async function echo(sent) {
  while (got.length < sent.length) await new Promise(setImmediate);
  assert.deepEqual(got, sent);
  got = Buffer.alloc(0);
}
for (const length of [1, 125, 126, 65535, 65536, 300000]) {
  const sent = Buffer.alloc(length, length % 251);
  ws.send(sent);
  await echo(sent);
}
ws.send('frag', { binary: true, fin: false });
ws.ping('between');
ws.send('mented', { binary: true, fin: true });
const [pong] = await once(ws, 'pong');
assert.equal(pong.toString(), 'between');
ws.close(1000, 'done');
const [code] = await once(ws, 'close');
assert.equal(code, 1000);
const text = new WebSocket(url, ['mqtt']);
await once(text, 'open');
text.send('text');
assert.equal((await once(text, 'close'))[0], 1003);
console.log('ws: all well');

// A server of Node's own HTTP/2 that answers pushes as Apple does, and misbehaves as it is ordered, by one JSON object:
//   refuseEvery: n      REFUSED_STREAM at every n-th request
//   goAwayAt: n         at the n-th request an orderly GOAWAY: it and those before are answered, then the connection is closed
//   goAwayEvery: n      the same at every n-th one
//   oneStreamFirst      one stream at once on a connection until its first push is there
//   reject              {status, reason}: the answer to every push
//   freezeAt: n         from the n-th request on its connection is dead but open: all is read, nothing answered, no PING either
//   delayMs: n          answers come so much later
// Usage: node apple.js CERTIFICATE KEY ORDERS. Prints its port; then, for each line that it reads, what it saw, as a line of JSON.
"use strict";
const fs = require("node:fs");
const http2 = require("node:http2");
const net = require("node:net");

const MAX_STREAMS = 1000;
const PATH = /^\/3\/device\/[0-9a-f]{64,200}$/;

const [certificate, key, ordered] = process.argv.slice(2);
const orders = JSON.parse(ordered || "{}");
const seen = { connections: 0, requests: 0, accepted: {}, rejected: {}, faults: [] };
const lastStreams = new WeakMap(); // of sessions that are going away
const silent = new Set(); // ports of dead connections, on their way through `gate`

const server = http2.createSecureServer({
  cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key),
  maxSessionMemory: 1000, // megabytes; else it refuses streams while its own answers wait to be read
  settings: { maxConcurrentStreams: orders.oneStreamFirst ? 1 : MAX_STREAMS, initialWindowSize: 65535 },
});

// Passes bytes on to the server and back, and nothing back any more for those that are silent.
const gate = net.createServer((outside) => {
  const inside = net.connect(server.address().port, "127.0.0.1");
  outside.pipe(inside);
  inside.on("data", (bytes) => silent.has(inside.localPort) || outside.write(bytes));
  for (const [one, other] of [[inside, outside], [outside, inside]]) {
    one.on("error", () => {});
    one.on("close", () => other.destroy());
  }
});

function count(table, name) {
  table[name] = (table[name] || 0) + 1;
}

function answer(stream, headers, body) {
  const fields = { ":status": 200, "apns-id": headers["apns-id"] };
  if (!PATH.test(headers[":path"]) || !("aps" in JSON.parse(body))) {
    seen.faults.push(`no push: ${headers[":method"]}, ${body.length} bytes`);
  }
  if (orders.reject !== undefined) {
    count(seen.rejected, orders.reject.reason);
    stream.respond({ ...fields, ":status": orders.reject.status });
    stream.end(JSON.stringify({ reason: orders.reject.reason }));
    return;
  }
  count(seen.accepted, headers["apns-id"]);
  stream.respond(fields, { endStream: true });
}

function take(stream, headers) {
  const session = stream.session;
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => {
    if (orders.oneStreamFirst && session.localSettings.maxConcurrentStreams === 1) {
      session.settings({ maxConcurrentStreams: MAX_STREAMS });
    }
    setTimeout(answer, orders.delayMs || 0, stream, headers, Buffer.concat(parts));
  });
}

function isDue(every) {
  return every !== undefined && seen.requests % every === 0;
}

server.on("session", () => { seen.connections += 1; });
server.on("sessionError", () => {});
server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  const session = stream.session;
  if (stream.id > (lastStreams.get(session) || stream.id)) return; // it is told so by the GOAWAY
  seen.requests += 1;
  if (orders.freezeAt === seen.requests) silent.add(session.socket.remotePort);
  if (isDue(orders.refuseEvery)) {
    stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    return;
  }
  if (isDue(orders.goAwayEvery) || orders.goAwayAt === seen.requests) {
    lastStreams.set(session, stream.id);
    session.goaway(http2.constants.NGHTTP2_NO_ERROR, stream.id);
    session.close();
  }
  take(stream, headers);
});

const front = orders.freezeAt === undefined ? server : gate;
server.listen(0, "127.0.0.1", () => {
  if (front === gate) gate.listen(0, "127.0.0.1", () => console.log(gate.address().port));
  else console.log(server.address().port);
});
process.stdin.on("data", () => console.log(JSON.stringify(seen)));
process.stdin.on("end", () => process.exit());

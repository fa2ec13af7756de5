// A server of Node's own HTTP/2 for tests of the agent and the pool. Prints its port; the path says what it does:
//   /echo: the body back       /size: bytes of the body      /headers: the request's fields as JSON
//   /big?N: N bytes            /slow: an answer after 200 ms /trailers: fields behind the body
//   /goaway: GOAWAY, and the answer behind it                /hang: nothing     /reset: RST_STREAM INTERNAL_ERROR
//   /refuse-once: REFUSED_STREAM the first time              /count: how many requests came to it
"use strict";
const http2 = require("node:http2");
const fs = require("node:fs");

const [certificate, key, maxStreams] = process.argv.slice(2);
const server = http2.createSecureServer({
  cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key),
  maxSessionMemory: 1000, // megabytes; else it refuses streams while its own answers wait to be read
  settings: { maxConcurrentStreams: Number(maxStreams || 100), initialWindowSize: 65535 },
});
let requests = 0;
const refused = new Set();

function collect(stream, done) {
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => done(Buffer.concat(parts)));
}

const actions = {
  "/echo": (stream) => collect(stream, (body) => {
    stream.respond({ ":status": 200, "content-length": body.length });
    stream.end(body);
  }),
  "/size": (stream) => collect(stream, (body) => {
    stream.respond({ ":status": 200 });
    stream.end(String(body.length));
  }),
  "/headers": (stream, headers) => {
    stream.respond({ ":status": 200, "content-type": "application/json" });
    stream.end(JSON.stringify(headers));
  },
  "/big": (stream, headers, argument) => {
    stream.respond({ ":status": 200, "content-length": Number(argument) });
    stream.end(Buffer.alloc(Number(argument), "b"));
  },
  "/slow": (stream) => setTimeout(() => {
    stream.respond({ ":status": 200 });
    stream.end("late");
  }, 200),
  "/trailers": (stream) => {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-behind": "1" }));
    stream.end("body");
  },
  "/goaway": (stream) => collect(stream, () => {
    stream.session.close();
    setTimeout(() => {
      stream.respond({ ":status": 200 });
      stream.end("last");
    }, 50);
  }),
  "/hang": () => {},
  "/reset": (stream) => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
  "/refuse-once": (stream, headers) => {
    const name = headers["x-name"];
    if (!refused.has(name)) {
      refused.add(name);
      stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    stream.respond({ ":status": 200 });
    stream.end(name);
  },
  "/count": (stream) => {
    stream.respond({ ":status": 200 });
    stream.end(String(requests));
  },
};

server.on("stream", (stream, headers) => {
  requests += 1;
  stream.on("error", () => {});
  const [path, argument] = headers[":path"].split("?");
  const act = actions[path];
  if (act === undefined) {
    stream.respond({ ":status": 404 }, { endStream: true });
    return;
  }
  act(stream, headers, argument);
});
server.on("sessionError", () => {});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

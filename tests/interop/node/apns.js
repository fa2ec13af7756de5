// Pushes over one HTTP/2 connection of Node's own client (nghttp2) and prints what came of them as one line of JSON.
// Usage: node apns.js PORT CA_FILE JWT TOPIC COUNT PAYLOAD_BYTES
"use strict";

const fs = require("fs");
const http2 = require("http2");

const [port, caFile, jwt, topic, count, size] = process.argv.slice(2);
const statuses = {};
const reasons = {};
let goaways = 0;
let open = Number(count);

const session = http2.connect(`https://localhost:${port}`, { ca: fs.readFileSync(caFile) });
session.on("goaway", () => { goaways += 1; });
session.on("error", () => {});

function count1(table, key) {
  table[key] = (table[key] || 0) + 1;
}

function done() {
  open -= 1;
  if (open === 0) {
    console.log(JSON.stringify({ statuses, reasons, goaways }));
    session.destroy();
  }
}

session.on("connect", () => {
  const payload = JSON.stringify({ aps: { alert: "x".repeat(Math.max(Number(size) - 22, 0)) } });
  for (let number = 0; number < Number(count); number += 1) {
    const request = session.request({
      ":method": "POST",
      ":path": `/3/device/${"a1".repeat(32)}`,
      "authorization": `bearer ${jwt}`,
      "apns-topic": topic,
      "apns-push-type": "alert",
    });
    let status = 0;
    let body = "";
    request.on("response", (headers) => { status = headers[":status"]; });
    request.on("data", (chunk) => { body += chunk; });
    request.on("error", () => {});
    request.on("close", () => {
      if (status === 0) {
        count1(statuses, `reset ${request.rstCode}`);
      } else {
        count1(statuses, String(status));
      }
      if (body !== "") {
        count1(reasons, JSON.parse(body).reason);
      }
      done();
    });
    request.end(payload);
  }
});

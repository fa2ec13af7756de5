// Holds this client's decoder and encoder to tests/vectors/frames.json, as docs/protocol.md section 14 asks.
// Prints one line of JSON for each vector that fails, then one with the counts; exits with 1 if any failed.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { FrameDecoder, crc32, encodeFrame } = require('./frames');
const { encodeEnvelope, toJson } = require('./schema');

const FILE = path.join(__dirname, '..', '..', 'vectors', 'frames.json');
const SERIALIZATION_ERROR = 2002;

function streamOf(vector) {
  const head = Buffer.from(vector.bytes, 'hex');
  if (!vector.repeat) return head;
  const copy = Buffer.from(vector.repeat.bytes, 'hex');
  return Buffer.concat([head, Buffer.alloc(copy.length * vector.repeat.times, copy)]);
}

function meaningOf(result) {
  if (result.payload === undefined) return result;
  const payload = result.payload.toString('hex');
  try {
    return { payload, envelope: toJson(result.payload) };
  } catch {
    return { payload, undecodable: SERIALIZATION_ERROR };
  }
}

// Results, failure and waiting, if the stream comes in reads of `step` bytes.
function decoded(vector, stream, step) {
  const decoder = new FrameDecoder({ maxFrame: vector.max_frame, maxResyncBytes: vector.max_resync_bytes });
  const results = [];
  for (let at = 0; at < stream.length; at += step) results.push(...decoder.push(stream.subarray(at, at + step)));
  return { results: results.map(meaningOf), failure: decoder.failure, waiting: decoder.waiting };
}

function checkDecoding(vector, stream, step) {
  const { results, failure, waiting } = vector;
  assert.deepEqual(decoded(vector, stream, step), { results, failure, waiting });
}

// Each envelope of a canonical vector must come back from its own bytes; gives how many there are.
function checkEncoding(vector, stream, counts) {
  const payloads = vector.results.map((result) => encodeEnvelope(result.envelope));
  payloads.forEach((payload, i) => assert.deepEqual(toJson(payload), vector.results[i].envelope));
  const frames = Buffer.concat(vector.results.map((result) => encodeFrame(Buffer.from(result.payload, 'hex'), vector.max_frame)));
  assert.equal(frames.toString('hex'), stream.toString('hex'), 'the frames of the payloads are the stream');
  counts.encoded += payloads.length;
  if (vector.results.every((result, i) => result.payload === payloads[i].toString('hex'))) counts.same_bytes += 1;
}

function main() {
  assert.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
  const file = JSON.parse(fs.readFileSync(process.argv[2] ?? FILE, 'utf8'));
  assert.deepEqual([file.format, file.protocol], [1, 1]);
  const counts = { vectors: file.vectors.length, decoded: 0, canonical: 0, encoded: 0, same_bytes: 0, failed: 0 };
  for (const vector of file.vectors) {
    try {
      const stream = streamOf(vector);
      for (const step of [Math.max(1, stream.length), 1, 7]) checkDecoding(vector, stream, step);
      counts.decoded += 1;
      if (!vector.canonical) continue;
      checkEncoding(vector, stream, counts);
      counts.canonical += 1;
    } catch (error) {
      counts.failed += 1;
      console.log(JSON.stringify({ vector: vector.name, failed: error.message }));
    }
  }
  console.log(JSON.stringify(counts));
  process.exitCode = counts.failed === 0 && counts.vectors > 0 ? 0 : 1;
}

main();

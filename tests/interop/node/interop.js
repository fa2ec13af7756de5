// Plays scenarios against a running server: node interop.js STAGE.json (see Stage). Prints one line of JSON per step, {step, ok}
// and what it saw, or {need} for what the test must do; exits with 0 if all went well, else with 1.
'use strict';

const assert = require('node:assert/strict');
const { encodeFrame } = require('./frames');
const { encodeEnvelope } = require('./schema');
const { play, refusal } = require('./scenario');
const { enumeration } = require('./streampush');

const Code = enumeration('Code');
const Outcome = enumeration('Outcome');
const LossReason = enumeration('LossReason');
const Milestone = enumeration('Milestone');
const Start = enumeration('Start');
const NEWS = 'news/today';
const OWN = 'device:phone-1';
const STILL = 'news/still'; // nothing is ever taken and acknowledged here
const HISTORY = 20;

// ------------------------------------------------------------------------------------------------ who may come in

async function serverOfAnotherName({ stage }) {
  const client = stage.client('device', { serverName: 'another.example' });
  client.start();
  const { refused, error } = await client.stopped();
  assert.ok(refused);
  return { error: error.code };
}

async function refusedCertificates({ stage }) {
  const seen = {};
  for (const name of ['foreign', null]) {
    const client = stage.client(name);
    client.start();
    const { refused, error, established } = await client.stopped();
    assert.deepEqual([refused, established], [true, false], `${name}: ${error?.code}`);
    seen[name ?? 'none'] = error.code;
  }
  return seen;
}

async function refusedHellos({ stage }) {
  const cases = [
    [{ device_id: 'somebody-else' }, Code.CODE_FORBIDDEN],
    [{ protocol_min: 2, protocol_max: 3 }, Code.CODE_UNSUPPORTED_VERSION],
    [{ app: 'x'.repeat(129) }, Code.CODE_SERIALIZATION_ERROR],
  ];
  for (const [hello, code] of cases) {
    const client = stage.client('other', { hello });
    client.start();
    const { goAway } = await client.stopped();
    assert.equal(goAway.code, code);
  }
  return { codes: cases.map(([, code]) => code) };
}

async function hello({ device, publisher, quiet }) {
  const welcome = await device.connected();
  assert.deepEqual([welcome.protocol, welcome.device_id], [1, 'phone-1']);
  assert.ok(welcome.subscribed.some(({ channel, code }) => channel === OWN && code === 0));
  assert.ok(Math.abs(Number(welcome.server_time_ms) - Date.now()) < 60000);
  assert.equal(device.connection.socket.getProtocol(), 'TLSv1.3');
  assert.equal((await publisher.connected()).device_id, 'backend');
  await quiet.connected();
  return { session: welcome.session_id, user: welcome.user_id };
}

// ------------------------------------------------------------------------------------------------ messages

async function publishedIsDelivered({ device, publisher }) {
  const { offset } = await device.subscribe(NEWS, { start: Start.START_LATEST });
  for (const text of ['one', 'two', 'three']) {
    const ok = await publisher.publish(NEWS, text);
    assert.deepEqual([ok.channel, ok.connections], [NEWS, 1]);
  }
  await device.receives(NEWS, ['one', 'two', 'three']);
  assert.deepEqual(device.delivered.map((delivery) => delivery.offset), [offset + 1n, offset + 2n, offset + 3n]);
  device.acknowledge(device.delivered.at(-1));
}

async function publishedOverRestIsDelivered({ stage, device }) {
  const stored = await stage.post('/v1/publish', { channel: OWN, payload: 'for you' });
  await device.receives(OWN, ['for you']);
  const [delivery] = device.delivered;
  assert.deepEqual([delivery.message_id, Number(delivery.offset)], [stored.message_id, stored.offset]);
  device.acknowledge(delivery);
}

async function fieldsArriveAsSent({ device, publisher }) {
  const fields = { content_type: 'text/plain', headers: { 'x-größe': '東京', empty: '' }, ttl_ms: 60000 };
  const payload = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const ok = await publisher.publish(NEWS, payload, fields);
  await device.until('the delivery', () => device.delivered.length === 1);
  const [delivery] = device.delivered;
  assert.deepEqual(delivery.payload, payload);
  assert.deepEqual([delivery.content_type, delivery.headers], [fields.content_type, fields.headers]);
  assert.deepEqual([delivery.message_id, delivery.offset], [ok.message_id, ok.offset]);
  assert.equal(delivery.expires_at_ms - delivery.published_at_ms, 60000n);
  device.acknowledge(delivery);
}

async function receiptsAreTold({ stage, device }) {
  const teller = stage.client('publisher', { hello: { features: 1 } });
  assert.equal((await teller.connected()).features, 1n);
  const { message_id: id } = await teller.publish(OWN, 'was it read?', { want_receipt: true });
  await device.receives(OWN, ['was it read?']);
  device.acknowledge(device.delivered[0], Outcome.OUTCOME_DELIVERED);
  device.acknowledge(device.delivered[0], Outcome.OUTCOME_PROCESSED);
  const wanted = [Milestone.MILESTONE_WRITTEN, Milestone.MILESTONE_DELIVERED, Milestone.MILESTONE_PROCESSED];
  const told = () => teller.receipts.filter((receipt) => receipt.device_id === 'phone-1').map(({ milestone }) => milestone);
  await teller.until('the receipts', () => wanted.every((milestone) => told().includes(milestone)));
  assert.ok(teller.receipts.every((receipt) => receipt.message_id === id && receipt.channel === OWN && receipt.at_ms > 0n));
  assert.equal(new Set(told()).size, told().length);
  teller.stop();
  await teller.stopped();
  return { milestones: told() };
}

async function aRepeatedPublishIsStoredOnce({ device, publisher }) {
  const fields = { idempotency_key: 'order-17' };
  const first = await publisher.publish(NEWS, 'once', fields);
  const second = await publisher.publish(NEWS, 'once', fields);
  assert.deepEqual([second.message_id, second.offset, first.duplicate, second.duplicate], [first.message_id, first.offset, false, true]);
  assert.equal(await refusal(publisher.publish(NEWS, 'another', fields)), Code.CODE_DUPLICATE);
  await publisher.publish(NEWS, 'end');
  await device.receives(NEWS, ['once', 'end']);
  device.acknowledge(device.delivered.at(-1));
}

async function recalledIsTakenBack({ stage, device, publisher }) {
  const { message_id: id } = await publisher.publish(OWN, 'wrong', { priority: 3, collapse_key: 'offer' });
  await device.receives(OWN, ['wrong']);
  const [wrong] = device.delivered;
  assert.deepEqual([wrong.priority, wrong.collapse_key], [3, 'offer']);
  device.acknowledge(wrong);
  await stage.delete(`/v1/messages/${id}`);
  await device.until('the recall notice', () => device.recalls.length === 1);
  const [notice] = device.recalls;
  assert.deepEqual([notice.recalls, notice.payload.length, notice.offset], [id, 0, wrong.offset + 1n]);
  assert.notEqual(notice.message_id, id);
  assert.deepEqual(device.texts(OWN), ['wrong']);
  device.acknowledge(notice);
  await device.settled();
  const before = device.welcomes.length;
  device.connection.abort();
  const { subscribed } = await device.reconnected(before);
  const own = subscribed.find(({ channel }) => channel === OWN);
  assert.deepEqual([own.recovered, own.offset, own.last_message_id], [true, notice.offset, notice.message_id]);
}

async function recalledWhileAwayIsNotDelivered({ stage, device, publisher }) {
  device.stop();
  await device.stopped();
  const { message_id: id } = await publisher.publish(NEWS, 'never seen');
  await publisher.publish(NEWS, 'seen');
  await stage.delete(`/v1/messages/${id}`);
  const { subscribed } = await device.connected();
  assert.equal(subscribed.find(({ channel }) => channel === NEWS).recovered, true);
  await device.receives(NEWS, ['seen']);
  await device.until('the recall notice', () => device.recalls.length === 1);
  assert.equal(device.recalls[0].recalls, id);
  device.acknowledge(device.recalls[0]);
  await device.settled();
}

async function windowHoldsBack({ device, publisher }) {
  const texts = ['a', 'b', 'c', 'd', 'e'];
  device.credit(2);
  await device.settled();
  for (const text of texts) await publisher.publish(NEWS, text);
  await device.until('two deliveries', () => device.delivered.length >= 2);
  await device.settled();
  assert.deepEqual(device.texts(NEWS), ['a', 'b']);
  device.acknowledge(device.delivered[0]);
  await device.receives(NEWS, ['a', 'b', 'c']);
  device.credit(100);
  await device.receives(NEWS, texts);
  device.acknowledge(device.delivered.at(-1));
}

async function requestsAreRefusedByCode({ device, publisher }) {
  const cases = [
    [device.subscribe('$server'), Code.CODE_FORBIDDEN],
    [device.subscribe('secret/plans'), Code.CODE_FORBIDDEN],
    [device.subscribe('no spaces'), Code.CODE_UNKNOWN_RECIPIENT],
    [device.request('unsubscribe', { channel: OWN }), Code.CODE_FORBIDDEN],
    [device.request('unsubscribe', { channel: 'news/never' }), Code.CODE_NOT_SUBSCRIBED],
    [device.publish(NEWS, 'x'), Code.CODE_FORBIDDEN],
    [publisher.publish('device:nobody', 'x'), Code.CODE_UNKNOWN_RECIPIENT],
    [publisher.publish(NEWS, 'x', { durability: 3 }), Code.CODE_FORBIDDEN],
    [publisher.publish(NEWS, Buffer.alloc(publisher.welcomes[0].limits.max_payload + 1)), Code.CODE_PAYLOAD_TOO_LARGE],
    [publisher.subscribe(NEWS), Code.CODE_FORBIDDEN],
  ];
  const codes = await Promise.all(cases.map(([promise]) => refusal(promise)));
  assert.deepEqual(codes, cases.map(([, code]) => code));
  assert.deepEqual([device.ends, publisher.ends], [[], []]);
  return { codes };
}

async function faultsAreSurvived({ device }) {
  const flipped = encodeFrame(encodeEnvelope({ state: {}, id: 9 }));
  flipped[flipped.length - 1] ^= 1;
  device.connection.sendRaw(flipped);
  device.connection.sendRaw(Buffer.alloc(4)); // an empty frame: the server loses its place, and finds it again
  device.connection.sendRaw(encodeFrame(Buffer.from([0xff])));
  device.connection.send('ack', { channel: NEWS, offset: 1000000, outcome: Outcome.OUTCOME_DELIVERED });
  device.connection.send('ack', { channel: 'news/never', offset: 1, outcome: Outcome.OUTCOME_DELIVERED });
  const codes = [2003, 2005, 2002, 3010, 3002];
  await device.until('five faults', () => device.faults.length >= codes.length);
  assert.deepEqual(device.faults.map(({ code }) => code), codes);
  const answered = new Promise((resolve) => device.connection.on('message', ({ id, message }) => id === 4242n && resolve(message)));
  device.connection.sendRaw(encodeFrame(Buffer.from('f20100789221', 'hex'))); // a message of field 30, id 4242
  assert.equal((await answered).code, Code.CODE_UNEXPECTED_MESSAGE);
  await device.settled();
  assert.deepEqual(device.ends, []);
  return { codes };
}

async function otherRequestsAreDone({ device, publisher }) {
  for (const token of ['token', '']) {
    const { kind } = await device.request('register_token', { provider: 1, token: Buffer.from(token), topic: 'com.example' });
    assert.equal(kind, 'ok');
  }
  await device.subscribe('public/once');
  await device.unsubscribe('public/once');
  assert.equal((await publisher.publish('public/once', 'nobody hears')).connections, 0);
}

// ------------------------------------------------------------------------------------------------ coming back

async function disconnectedAndResumed({ stage, device, publisher }) {
  const before = device.welcomes.length;
  await stage.post('/v1/devices/phone-1/disconnect');
  await device.until('the end of the connection', () => device.ends.length === 1);
  await publisher.publish(NEWS, 'while away');
  const welcome = await device.reconnected(before);
  const news = welcome.subscribed.find(({ channel }) => channel === NEWS);
  assert.deepEqual([news.recovered, news.loss], [true, 0]);
  await publisher.publish(NEWS, 'back again');
  await device.receives(NEWS, ['while away', 'back again']);
  assert.deepEqual([device.repeats, device.losses], [0, []]);
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
  const { code, advice } = device.goAways[0];
  return { code, advice, tls_session_reused: device.connection.socket.isSessionReused() };
}

async function unacknowledgedComesAgain({ device, publisher }) {
  for (const text of ['first', 'second', 'third']) await publisher.publish(NEWS, text);
  await device.receives(NEWS, ['first', 'second', 'third']);
  device.acknowledge(device.delivered[0]);
  const before = device.welcomes.length;
  device.connection.abort();
  await device.reconnected(before);
  await device.until('two repeats', () => device.repeated.length === 2);
  await publisher.publish(NEWS, 'fourth');
  await device.receives(NEWS, ['first', 'second', 'third', 'fourth']);
  assert.deepEqual(device.repeated.map(({ payload }) => payload.toString()), ['second', 'third']);
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
}

async function retryLaterComesAgain({ device, publisher }) {
  const texts = ['good', 'later', 'never', 'fine'];
  for (const text of texts) await publisher.publish(NEWS, text);
  await device.receives(NEWS, texts);
  const [good, later, never, fine] = device.delivered;
  device.acknowledge(good);
  device.acknowledge(later, Outcome.OUTCOME_RETRY_LATER);
  device.acknowledge(never, Outcome.OUTCOME_REJECTED);
  device.acknowledge(fine);
  const before = device.welcomes.length;
  device.connection.abort();
  await device.reconnected(before);
  await device.receives(NEWS, [...texts, 'later']);
  await device.until('two repeats', () => device.repeated.length === 2);
  device.acknowledge(device.delivered.at(-1));
  // The repeats that were dropped are acknowledged too: the window has room for three again.
  device.credit(3);
  const more = ['x', 'y', 'z'];
  for (const text of more) await publisher.publish(NEWS, text);
  await device.receives(NEWS, [...texts, 'later', ...more]);
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
  // Now it is done for good.
  device.connection.abort();
  await device.reconnected(before + 1);
  await publisher.publish(NEWS, 'after');
  await device.receives(NEWS, [...texts, 'later', ...more, 'after']);
  assert.deepEqual([device.repeated.length, device.faults], [2, []]);
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
}

// The test keeps the time to an acknowledgement this short: see SETTINGS.
async function comesAgainOnTheSameConnection({ device, publisher }) {
  for (const text of ['later', 'soon', 'slow', 'last']) await publisher.publish(NEWS, text);
  await device.receives(NEWS, ['later', 'soon', 'slow', 'last']);
  const [later, soon, slow] = device.delivered;
  assert.ok(device.welcomes.at(-1).limits.ack_timeout_ms <= 5000);
  device.acknowledge(later, Outcome.OUTCOME_RETRY_LATER);
  device.acknowledge(soon); // does not cover what is held
  await device.until('the one that was wanted later', () => device.delivered.length === 5);
  assert.deepEqual([device.delivered[4].offset, device.delivered[4].message_id], [later.offset, later.message_id]);
  await device.until('the head of line again', () => device.repeated.length > 0);
  assert.ok(device.repeated.every(({ offset }) => offset === slow.offset));
  device.acknowledge(device.delivered[4]);
  device.acknowledge(device.delivered[3]); // and all in front of it
  await device.settled();
  assert.deepEqual([device.ends, device.faults], [[], []]);
  const before = device.welcomes.length;
  device.connection.abort();
  const { subscribed } = await device.reconnected(before);
  const news = subscribed.find(({ channel }) => channel === NEWS);
  assert.deepEqual([news.recovered, news.offset], [true, device.delivered[3].offset]);
}

async function storedCursorServesANewProgram({ stage, device, publisher }) {
  device.stop();
  await device.stopped();
  await publisher.publish(NEWS, 'stored');
  await stage.post('/v1/publish', { channel: OWN, payload: 'kept' });
  const fresh = stage.client('device');
  await fresh.connected();
  await fresh.receives(OWN, ['kept']);
  assert.equal((await fresh.subscribe(NEWS)).recovered, true);
  await fresh.receives(NEWS, ['stored']);
  fresh.stop();
  await fresh.stopped();
  await device.connected();
  await device.receives(NEWS, ['stored']);
  await device.receives(OWN, ['kept']);
  device.delivered.forEach((delivery) => device.acknowledge(delivery));
  await device.settled();
}

async function newerConnectionReplaces({ stage, device }) {
  const newer = stage.client('device');
  await newer.connected();
  const { goAway } = await device.stopped();
  assert.equal(goAway.code, Code.CODE_REPLACED);
  newer.stop();
  const { goAway: none } = await newer.stopped();
  assert.equal(none, null, 'our own GoAway is not answered');
  await device.connected();
}

async function positionIsProvenBeforeAnythingArrives({ device, publisher }) {
  const old = await publisher.publish(STILL, 'before we came');
  const { offset, last_message_id: messageId } = await device.subscribe(STILL, { start: Start.START_LATEST });
  assert.deepEqual([offset, messageId], [old.offset, old.message_id]);
  device.stop();
  await device.stopped();
  await publisher.publish(STILL, 'while away');
  const { subscribed } = await device.connected();
  assert.equal(subscribed.find(({ channel }) => channel === STILL).recovered, true);
  await device.receives(STILL, ['while away']);
  await device.subscribe(STILL, { start: Start.START_LATEST });
}

// The test keeps the log this short.
async function lossIsToldWhenTheLogIsTooShort({ device, publisher }) {
  const texts = Array.from({ length: HISTORY + 7 }, (_, i) => `number ${i}`);
  device.stop();
  await device.stopped();
  for (const text of texts) await publisher.publish(NEWS, text);
  await device.connected();
  await device.receives(NEWS, texts.slice(7));
  assert.deepEqual(device.losses.map(({ channel, loss }) => [channel, loss]), [[NEWS, LossReason.LOSS_REASON_TRIMMED]]);
  const [{ lost_at_most: lost, offset }] = device.losses;
  assert.deepEqual([lost, offset], [7n, device.delivered[0].offset - 1n]);
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
}

// ------------------------------------------------------------------------------------------------ heartbeat

async function bothSidesBeat({ device }) {
  const { pings } = device.connection;
  device.connection.on('message', () => device.look());
  await device.until('a Pong to our first Ping', () => pings.pongs > 0);
  const quiet = setInterval(() => device.look(), 100); // a Ping is answered below the events that we are told
  await device.until('a Ping of the server', () => pings.received > 0);
  clearInterval(quiet);
  return { ...pings };
}

// It says nothing but Pong: five pings of the server are more than it sends to a peer that does not answer.
async function quietConnectionLives({ quiet }) {
  const { pings } = quiet.connection;
  const looking = setInterval(() => quiet.look(), 100);
  await quiet.until('pings of the server, or the end', () => pings.received >= 5 || quiet.ends.length > 0);
  clearInterval(looking);
  assert.deepEqual([quiet.ends, quiet.goAways], [[], []]);
  quiet.stop();
  await quiet.stopped();
  return { ...pings };
}

async function tooManyPingsAreStopped({ stage }) {
  const client = stage.client('other');
  await client.connected();
  for (let i = 0; i < 6; i += 1) client.connection.ping();
  await client.until('GoAway', () => client.goAways.length === 1);
  const [{ code }] = client.goAways;
  assert.equal(code, Code.CODE_TOO_MANY_PINGS);
  assert.ok(client.faults.every((fault) => fault.code === Code.CODE_TOO_MANY_PINGS) && client.faults.length > 0);
  client.stop();
  await client.stopped();
  return { faults: client.faults.length };
}

// ------------------------------------------------------------------------------------------------ the server's end

async function restartChangesTheEpoch({ stage, device, publisher }) {
  await publisher.publish(NEWS, 'before');
  await device.receives(NEWS, ['before']);
  device.acknowledge(device.delivered[0]);
  await device.settled();
  const welcomes = [device.welcomes.length, publisher.welcomes.length];
  await stage.need('stop');
  for (const client of [device, publisher]) {
    await client.until('GoAway', () => client.goAways.length > 0);
    assert.equal(client.goAways[0].code, Code.CODE_DRAINING);
  }
  stage.addresses.splice(0, 1, (await stage.need('start')).address);
  await Promise.all([device.reconnected(welcomes[0]), publisher.reconnected(welcomes[1])]);
  const [news, still] = [NEWS, STILL].map((name) => device.losses.find(({ channel }) => channel === name));
  assert.deepEqual([news.loss, still.loss], [LossReason.LOSS_REASON_EPOCH_CHANGED, LossReason.LOSS_REASON_EPOCH_CHANGED]);
  const ok = await publisher.publish(NEWS, 'after');
  assert.deepEqual([ok.offset, ok.epoch], [1n, news.epoch]);
  await device.receives(NEWS, ['before', 'after']); // not dropped, though the offset is lower than what was taken before
  device.acknowledge(device.delivered.at(-1));
  await device.settled();
  const { advice, retry_after_ms: after, jitter_ms: jitter } = device.goAways[0];
  return { advice, after, jitter, lost: device.losses.map(({ channel }) => channel) };
}

async function goodbye({ device, publisher }) {
  device.stop();
  publisher.stop();
  const ends = await Promise.all([device.stopped(), publisher.stopped()]);
  assert.deepEqual(ends.map(({ goAway, error }) => [goAway, error]), [[null, null], [null, null]]);
}

const SCENARIOS = [
  serverOfAnotherName,
  refusedCertificates,
  refusedHellos,
  hello,
  publishedIsDelivered,
  publishedOverRestIsDelivered,
  fieldsArriveAsSent,
  aRepeatedPublishIsStoredOnce,
  receiptsAreTold,
  recalledIsTakenBack,
  recalledWhileAwayIsNotDelivered,
  windowHoldsBack,
  requestsAreRefusedByCode,
  faultsAreSurvived,
  otherRequestsAreDone,
  bothSidesBeat,
  disconnectedAndResumed,
  unacknowledgedComesAgain,
  retryLaterComesAgain,
  comesAgainOnTheSameConnection,
  storedCursorServesANewProgram,
  positionIsProvenBeforeAnythingArrives,
  lossIsToldWhenTheLogIsTooShort,
  newerConnectionReplaces,
  quietConnectionLives,
  tooManyPingsAreStopped,
  restartChangesTheEpoch,
  goodbye,
];

play(SCENARIOS);

// Plays what concerns a store that several servers share, and that fails over: node failover.js STAGE.json (see interop.js).
'use strict';

const assert = require('node:assert/strict');
const { play } = require('./scenario');
const { enumeration } = require('./streampush');

const Outcome = enumeration('Outcome');
const NEWS = 'news/today';

async function begin({ device, publisher }) {
  await Promise.all([device.connected(), publisher.connected()]);
  await device.subscribe(NEWS);
}

// The second is put off, the others are taken; the position stays in front of it.
async function takesAllButOne({ device, publisher }, texts) {
  for (const text of texts) await publisher.publish(NEWS, text);
  await device.receives(NEWS, texts);
  device.delivered.forEach((delivery, i) => device.acknowledge(delivery, i === 1 ? Outcome.OUTCOME_RETRY_LATER : Outcome.OUTCOME_PROCESSED));
  await device.settled();
}

// What the server said of the channel.
function placeOf({ subscribed }) {
  return subscribed.find(({ channel }) => channel === NEWS);
}

async function awayOverAFailover({ stage, device, publisher }) {
  const texts = ['first', 'later', 'third', 'fourth'];
  const before = placeOf({ subscribed: [await device.subscribe(NEWS)] });
  await takesAllButOne({ device, publisher }, texts);
  device.stop();
  await device.stopped();
  await stage.need('fail over');
  await publisher.publish(NEWS, 'fifth');
  const place = placeOf(await device.connected());
  assert.notEqual(place.epoch, before.epoch);
  assert.deepEqual([place.recovered, place.offset], [true, device.delivered[0].offset]);
  await device.receives(NEWS, [...texts, 'later', 'fifth']);
  device.delivered.slice(-2).forEach((delivery) => device.acknowledge(delivery));
  await device.settled();
  assert.deepEqual(device.repeated.map(({ payload }) => payload.toString()), ['third', 'fourth']);
  assert.deepEqual([device.losses, device.faults], [[], []]);
}

async function nothingIsLeftToRepeat({ device, publisher }) {
  const before = device.welcomes.length;
  device.connection.abort();
  const place = placeOf(await device.reconnected(before));
  await publisher.publish(NEWS, 'sixth');
  await device.receives(NEWS, ['sixth']);
  device.acknowledge(device.delivered[0]);
  await device.settled();
  assert.deepEqual([place.recovered, device.repeated, device.losses], [true, [], []]);
}

async function connectedOverAFailover({ stage, device, publisher }) {
  const texts = ['one', 'two', 'three'];
  await takesAllButOne({ device, publisher }, texts);
  const told = new Promise((resolve) => {
    device.on('subscribed', (place) => place.channel === NEWS && resolve(place));
  });
  await stage.need('fail over');
  assert.equal((await told).recovered, true);
  await publisher.publish(NEWS, 'four');
  for (const number of [4, 5]) { // what was put off, and the new one, each answered when it comes: else it is lawfully repeated
    await device.until('the next one', () => device.delivered.length >= number);
    device.acknowledge(device.delivered[number - 1]);
  }
  assert.deepEqual(device.texts(NEWS).sort(), [...texts, 'two', 'four'].sort());
  await device.settled();
  assert.deepEqual([device.repeated, device.losses, device.faults], [[], [], []]);
}

play([begin, awayOverAFailover, nothingIsLeftToRepeat, connectedOverAFailover, nothingIsLeftToRepeat]);

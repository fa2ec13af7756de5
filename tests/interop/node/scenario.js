// What the scenarios of interop.js stand on: clients that record what they hear, waiting for it, REST, and talking to the test.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const readline = require('node:readline');
const { Client, RequestFailed } = require('./streampush');

const WAIT = 10000;

// Where a client keeps what it hears: the list of each event.
const LISTS = {
  delivery: 'delivered',
  recall: 'recalls',
  receipt: 'receipts',
  repeat: 'repeated',
  fault: 'faults',
  goAway: 'goAways',
  end: 'ends',
  welcome: 'welcomes',
  loss: 'losses',
  stopped: 'stops',
};

// A client that keeps all that it hears.
class Recording extends Client {
  constructor(options) {
    super(options);
    this._waiting = new Set();
    for (const [event, list] of Object.entries(LISTS)) {
      this[list] = [];
      this.on(event, (message) => {
        this[list].push(message);
        this.look();
      });
    }
  }

  look() {
    for (const check of [...this._waiting]) check();
  }

  // Resolves when `met()` is true; it is asked again at whatever this client hears.
  until(what, met) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this._waiting.delete(check);
        reject(new Error(`waited in vain: ${what}`));
      }, WAIT);
      const check = () => {
        if (!met()) return;
        clearTimeout(timer);
        this._waiting.delete(check);
        resolve();
      };
      this._waiting.add(check);
      check();
    });
  }

  async connected() {
    this.start();
    const before = this.welcomes.length;
    await this.until('Welcome', () => this.welcomes.length > before);
    return this.welcomes.at(-1);
  }

  async reconnected(before) {
    await this.until('a new Welcome', () => this.welcomes.length > before);
    return this.welcomes.at(-1);
  }

  async stopped() {
    await this.until('the end of trying', () => this.stops.length > 0);
    return this.stops.pop();
  }

  texts(channel) {
    return this.delivered.filter((delivery) => delivery.channel === channel).map((delivery) => delivery.payload.toString());
  }

  async receives(channel, texts) {
    await this.until(`${texts} on ${channel}`, () => this.texts(channel).length >= texts.length);
    assert.deepEqual(this.texts(channel), texts);
  }

  // Everything that was sent before has been looked at by the server.
  async settled() {
    await this.request('state', { state: 1 });
  }

  forget() {
    for (const list of ['delivered', 'recalls', 'receipts', 'repeated', 'faults', 'goAways', 'ends', 'losses']) this[list].length = 0;
  }
}

async function refusal(promise) {
  const error = await promise.then(() => assert.fail('was not refused'), (caught) => caught);
  if (!(error instanceof RequestFailed)) throw error;
  return error.code;
}

// What the test has prepared: {address, ca, certificates: {name: {cert, key}}, rest, rest_key}; the files by their paths.
class Stage {
  constructor(file) {
    this._config = JSON.parse(fs.readFileSync(file, 'utf8'));
    this.addresses = [this._config.address];
    this._lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  }

  credentials(name) {
    const { ca, certificates } = this._config;
    const paths = name === null ? { ca } : { ca, ...certificates[name] };
    return Object.fromEntries(Object.entries(paths).map(([field, path]) => [field, fs.readFileSync(path)]));
  }

  client(name, options = {}) {
    return new Recording({ addresses: this.addresses, credentials: this.credentials(name), ...options });
  }

  async post(path, document = {}) {
    return this._ask('POST', path, JSON.stringify(document));
  }

  async delete(path) {
    return this._ask('DELETE', path);
  }

  async put(path, document = {}) {
    return this._ask('PUT', path, JSON.stringify(document));
  }

  async _ask(method, path, body) {
    const key = fs.readFileSync(this._config.rest_key, 'utf8').trim();
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    const response = await fetch(`http://${this._config.rest}${path}`, { method, headers, body });
    assert.ok(response.ok, `${method} ${path}: ${response.status}`);
    return response.status === 204 ? null : response.json();
  }

  // Has the test do something to the server; gives its answer.
  async need(what) {
    say({ need: what });
    const { value, done } = await this._lines.next();
    if (done) throw new Error('the test is gone');
    return JSON.parse(value);
  }
}

function say(line) {
  console.log(JSON.stringify(line, (_, value) => (typeof value === 'bigint' ? value.toString() : value)));
}

async function playAll(scenarios) {
  if (process.argv.length !== 3) {
    console.error('usage: node FILE.js STAGE.json: the test in test_node_client.py prepares a server and writes that file');
    process.exit(2);
  }
  const stage = new Stage(process.argv[2]);
  const cast = { stage, device: stage.client('device'), publisher: stage.client('publisher'), quiet: stage.client('quiet') };
  for (const scenario of scenarios) {
    const began = performance.now();
    try {
      const saw = await scenario(cast);
      say({ step: scenario.name, ok: true, ms: Math.round(performance.now() - began), ...saw });
    } catch (error) {
      say({ step: scenario.name, ok: false, error: error.stack });
      return 1;
    }
    cast.device.forget();
    cast.publisher.forget();
  }
  return 0;
}

// Plays the scenarios on the stage that the command line names, and ends the process.
function play(scenarios) {
  playAll(scenarios).then((status) => process.exit(status));
}

module.exports = { play, refusal };

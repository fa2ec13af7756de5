// A streampush client, written from docs/protocol.md and the schema alone: it shows that the page suffices. It keeps one connection
// open, reconnects as it is advised, resumes its channels by position, and drops repeats. Left out: the degraded mode of short
// connections (section 12), repeating a request by itself on the advice RETRY (section 8), and knowing again in another epoch what the
// application is still at work on (section 11.6).
'use strict';

const { EventEmitter } = require('node:events');
const { Channel } = require('./channel');
const { Connection } = require('./connection');
const { Reconnect } = require('./reconnect');
const { enumeration } = require('./schema');

const Outcome = enumeration('Outcome');
const MAX_REQUESTS = 256;
const REQUEST_TIMEOUT = 10000;

// A request that the server refused, or that the connection did not survive (code 0).
class RequestFailed extends Error {
  constructor({ code = 0, advice = 0, detail = '' }) {
    super(`${code} ${detail}`);
    Object.assign(this, { code, advice, detail });
  }
}

// Events: 'welcome' (message), 'delivery' (message), 'recall' (a Delivery with `recalls`; acknowledged like the others), 'repeat'
// (message; dropped), 'subscribed' (message), 'loss' (Subscribed), 'backlogEnd', 'receipt', 'fault' (an Error with id 0), 'goAway' (message), 'end' ({goAway, refused, error, established}, one per
// connection), and 'stopped' when no new connection will be tried.
class Client extends EventEmitter {
  // addresses: [{host, port}]. serverName: if it is not the host. credentials: {ca, cert, key}, PEM. hello: fields of Hello besides
  // resume.
  constructor({ addresses, serverName, credentials, hello = {}, random = Math.random }) {
    super();
    this.addresses = addresses;
    this.connection = null;
    this.repeats = 0;
    this._serverName = serverName;
    this._credentials = credentials;
    this._hello = { protocol_min: 1, protocol_max: 1, sdk: 'streampush-node-interop', ...hello };
    this._random = random;
    this._reconnect = new Reconnect(random);
    this._channels = new Map();
    this._own = new Set(); // channels that the server follows for us: our own, and durable subscriptions
    this._requests = new Map();
    this._lastId = 1n; // 1 is Hello
    this._address = 0;
    this._doublings = 0;
    this._wanted = false;
    this._timer = null; // while we wait for the next try
  }

  start() {
    this._wanted = true;
    this._try();
  }

  // Leaves with GoAway, for good.
  stop() {
    this._wanted = false;
    if (this.connection?.finished === false) this.connection.leave();
    else if (this._timer) this.emit('stopped', { goAway: null, refused: false, error: null, established: false });
    clearTimeout(this._timer);
    this._timer = null;
  }

  async subscribe(channel, { start = 0, durable = false } = {}) {
    const known = this._channels.get(channel);
    const entry = known ?? new Channel(channel);
    entry.anew = true;
    this._channels.set(channel, entry);
    try {
      return (await this.request('subscribe', { channel, start, durable })).message;
    } catch (error) {
      if (error.code !== 0 && !known) this._channels.delete(channel);
      throw error;
    }
  }

  async unsubscribe(channel) {
    this._channels.delete(channel);
    await this.request('unsubscribe', { channel });
  }

  async publish(channel, payload, fields = {}) {
    return (await this.request('publish', { channel, payload: Buffer.from(payload), ...fields })).message;
  }

  acknowledge({ channel, offset }, outcome = Outcome.OUTCOME_PROCESSED) {
    const entry = this._channels.get(channel);
    if (!entry?.acknowledge(offset, outcome)) return;
    this.connection.send('ack', entry.ack(offset, outcome));
    this._acknowledgeRepeats(entry);
  }

  // What is dropped is acknowledged again, or its room in the window would never be free.
  _acknowledgeRepeats(entry) {
    const ack = entry.owed();
    if (ack !== null) this.connection.send('ack', ack);
  }

  credit(messages, bytes = 0) {
    this.connection.send('credit', { messages, bytes });
  }

  // Resolves with the reply, {id, kind, message}; rejects with RequestFailed.
  request(kind, message) {
    if (this.connection?.state !== 'established') return Promise.reject(new RequestFailed({ detail: 'not connected' }));
    if (this._requests.size >= MAX_REQUESTS) return Promise.reject(new RequestFailed({ detail: 'too many open requests' }));
    this._lastId += 1n;
    const id = this._lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this._fail(id, 'no answer'), REQUEST_TIMEOUT);
      this._requests.set(id, { resolve, reject, timer });
      this.connection.send(kind, message, id);
    });
  }

  _fail(id, detail) {
    this._answer(id, (request) => request.reject(new RequestFailed({ detail })));
  }

  _answer(id, tell) {
    const request = this._requests.get(id);
    if (!request) return; // timed out
    clearTimeout(request.timer);
    this._requests.delete(id);
    tell(request);
    this._leaveIfDone();
  }

  _try() {
    this._timer = null;
    const connection = new Connection({
      address: this.addresses[this._address % this.addresses.length],
      serverName: this._serverName,
      credentials: this._credentials,
      session: this._session,
      hello: { ...this._hello, resume: this._resumes() },
      doublings: this._doublings,
      random: this._random,
    });
    this.connection = connection;
    connection.on('session', (ticket) => (this._session = ticket));
    connection.on('welcome', (welcome) => this._welcomed(welcome));
    connection.on('message', (envelope) => this._received(envelope));
    connection.on('end', (end) => this._ended(connection, end));
  }

  // A channel that the server follows for us is resumed by the stored cursor if we have no position; all others must be named.
  _resumes() {
    const resumes = [...this._channels.values()].map((channel) => channel.resume());
    return resumes.filter((resume) => resume.position || !this._own.has(resume.channel));
  }

  _welcomed(welcome) {
    this._welcomedAt = performance.now();
    this._reconnect.welcomed(welcome.reconnect);
    for (const subscribed of welcome.subscribed) this._told(subscribed);
    this.emit('welcome', welcome);
  }

  // The server says by itself what we follow, or no longer: in Welcome, or because a backend wants it so.
  _told(subscribed) {
    const { channel, code } = subscribed;
    if (code !== 0) this._channels.delete(channel);
    else if (!this._channels.has(channel)) {
      this._channels.set(channel, new Channel(channel));
      this._own.add(channel);
    }
    this._subscribed(subscribed);
  }

  _subscribed(subscribed) {
    const lost = this._channels.get(subscribed.channel)?.subscribed(subscribed);
    this.emit('subscribed', subscribed);
    if (lost) this.emit('loss', subscribed);
  }

  _received(envelope) {
    const { id, kind, message } = envelope;
    if (kind === 'delivery') this._delivered(message);
    else if (kind === 'backlog_end') this.emit('backlogEnd', message);
    else if (kind === 'receipt') this.emit('receipt', message);
    else if (kind === 'go_away') {
      this.emit('goAway', message);
      this._leaveIfDone();
    } else if (kind === 'subscribed') {
      // At once, not when the promise is looked at: a Delivery may stand right behind it.
      if (id === 0n) this._told(message);
      else {
        const asked = this._channels.get(message.channel);
        if (asked) asked.anew = true; // we asked for that place; a backend may have subscribed us to another meanwhile
        this._subscribed(message);
      }
      this._answer(id, (request) => request.resolve(envelope));
    } else if (kind === 'error' && id === 0n) this.emit('fault', message);
    else if (kind === 'error') this._answer(id, (request) => request.reject(new RequestFailed(message)));
    else this._answer(id, (request) => request.resolve(envelope));
  }

  _delivered(delivery) {
    const channel = this._channels.get(delivery.channel);
    if (!channel) return; // crossed our Unsubscribe
    if (channel.take(delivery)) {
      this.emit(delivery.recalls === '' ? 'delivery' : 'recall', delivery);
      return;
    }
    this.repeats += 1;
    this.emit('repeat', delivery);
    this._acknowledgeRepeats(channel);
  }

  // After a GoAway: once no request is open there is nothing to stay for.
  _leaveIfDone() {
    if (this.connection.state === 'draining' && this._requests.size === 0) this.connection.leave();
  }

  _ended(connection, end) {
    this._doublings = connection.doublings;
    for (const id of [...this._requests.keys()]) this._fail(id, 'connection lost');
    for (const channel of this._channels.values()) channel.disconnected();
    const next = this._reconnect.after(end, performance.now() - this._welcomedAt);
    this.emit('end', end);
    if (!this._wanted || next === null) {
      this._wanted = false;
      this.emit('stopped', end);
      return;
    }
    if (next.elsewhere) this._address += 1;
    this._timer = setTimeout(() => this._try(), next.wait);
  }
}

module.exports = { Client, RequestFailed, enumeration };

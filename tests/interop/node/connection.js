// One connection, from connect to close: docs/protocol.md sections 2, 3, 6.2, 7.
'use strict';

const { EventEmitter } = require('node:events');
const net = require('node:net');
const tls = require('node:tls');
const { FrameDecoder, encodeFrame } = require('./frames');
const { Heartbeat } = require('./heartbeat');
const { decodeEnvelope, encodeEnvelope, enumeration } = require('./schema');

const Code = enumeration('Code');
const HELLO_MAX_FRAME = 1048576;
const HELLO_TIMEOUT = 10000;
const TRY_TIMEOUT = 30000;
const DRAIN_TIMEOUT = 10000;
const CLOSE_TIMEOUT = 2000;
const REFUSING_ALERT =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA|ACCESS_DENIED)$/;
const UNVERIFIED_SERVER = /^(ERR_TLS_CERT_ALTNAME_INVALID|.*CERT.*|.*ISSUER.*|.*SIGNATURE.*|INVALID_PURPOSE)$/;

// What a server may send, by state; all else is answered by closing with 2010.
const BEFORE_WELCOME = new Set(['ping', 'pong', 'welcome', 'error', 'go_away']);
const AFTER_WELCOME = new Set([
  'ping', 'pong', 'ok', 'publish_ok', 'subscribed', 'delivery', 'backlog_end', 'receipt', 'error', 'go_away', null,
]);
const DRAINING = new Set([...AFTER_WELCOME, 'welcome']); // a GoAway may cross the Welcome

// Only subject alternative names count, never the common name.
function checkServerIdentity(name, certificate) {
  if (!certificate.subjectaltname) return Object.assign(new Error('no names'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  return tls.checkServerIdentity(name, certificate);
}

// Events: 'welcome' (message), 'message' ({id, kind, message}), 'jitter', and at the end, exactly once, 'end' with
// {error, refused, goAway, established}. Nothing is emitted after 'end'.
class Connection extends EventEmitter {
  // credentials: {ca, cert, key}. `doublings`: see Heartbeat.
  constructor({ address, serverName, credentials, session, hello, doublings = 0, random = Math.random }) {
    super();
    this.state = 'await_tls';
    this.finished = false; // 'end' was emitted
    this.goAway = null; // the last one that the server sent
    this.pings = { sent: 0, received: 0, pongs: 0 };
    this.maxFrame = HELLO_MAX_FRAME;
    this.doublings = doublings;
    this._random = random;
    this._hello = hello;
    this._error = null;
    this._established = false;
    this._pingId = 0n;
    this._decoder = new FrameDecoder({ maxResyncBytes: 0 });
    this._deadline = setTimeout(() => this.abort(new Error('no Welcome in time')), TRY_TIMEOUT);
    this._connect(address, serverName, credentials, session);
  }

  _connect({ host, port }, serverName, credentials, session) {
    const name = serverName ?? host;
    const socket = tls.connect({
      host,
      port,
      ...credentials,
      session,
      servername: net.isIP(name) ? undefined : name,
      checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate),
      minVersion: 'TLSv1.3',
      rejectUnauthorized: true,
    });
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('secureConnect', () => this._secured());
    socket.on('session', (ticket) => this.emit('session', ticket));
    socket.on('data', (bytes) => this._received(bytes));
    socket.on('error', (error) => (this._error ??= error));
    socket.on('close', () => this._ended());
  }

  get established() {
    return this._established;
  }

  _secured() {
    if (this.state === 'closed') return; // left meanwhile
    this.state = 'await_hello';
    this.send('hello', this._hello, 1n);
    this._helloDeadline = setTimeout(() => this.abort(new Error('no Welcome in time')), HELLO_TIMEOUT);
  }

  send(kind, message, id = 0n) {
    if (this.state === 'closed' || this.state === 'await_tls') return;
    this.socket.write(encodeFrame(encodeEnvelope({ [kind]: message, id }), this.maxFrame));
  }

  ping() {
    this._pingId += 1n;
    this.pings.sent += 1;
    this.send('ping', {}, this._pingId);
    return this._pingId;
  }

  // Bytes as they are, for tests of what the server makes of damage.
  sendRaw(bytes) {
    this.socket.write(bytes);
  }

  // GoAway as the last frame, close_notify, close.
  leave(code = 0, advice = 0) {
    if (this.state === 'closed') return;
    this.send('go_away', { code, advice });
    this._stop();
    this.socket.end();
    // Not destroyed at once: bytes that wait unread would make a reset of it, and the GoAway could be lost.
    this._deadline = setTimeout(() => this.socket.destroy(), CLOSE_TIMEOUT);
  }

  // Without a word, as a network does it.
  abort(error = null) {
    this._error ??= error;
    this._stop();
    this.socket.destroy();
  }

  // Begins to leave: the owner calls `leave` when nothing is open any more; at the latest it happens by itself.
  drain(closeAfter = DRAIN_TIMEOUT) {
    if (this.state === 'closed') return;
    this.state = 'draining';
    clearTimeout(this._closing);
    this._closing = setTimeout(() => this.leave(), closeAfter || DRAIN_TIMEOUT);
  }

  _stop() {
    this.state = 'closed';
    for (const timer of [this._deadline, this._helloDeadline, this._closing]) clearTimeout(timer);
    this._heartbeat?.stop();
  }

  _received(bytes) {
    if (this.state === 'closed') return;
    for (const { payload, damage } of this._decoder.push(bytes)) {
      if (this.state === 'closed') return;
      if (damage !== undefined) return this._broken(damage);
      this._heartbeat?.heard();
      let envelope;
      try {
        envelope = decodeEnvelope(payload);
      } catch {
        return this._broken(Code.CODE_SERIALIZATION_ERROR);
      }
      this._handle(envelope);
    }
    if (this._decoder.failure !== null) this._broken(this._decoder.failure);
  }

  // TLS delivers no damaged bytes: the server is broken, and reading on would not mend it.
  _broken(code) {
    this._error ??= Object.assign(new Error(`bad frame, code ${code}`), { code });
    this.leave(code);
  }

  _handle(envelope) {
    const { id, kind, message } = envelope;
    const allowed = { await_hello: BEFORE_WELCOME, established: AFTER_WELCOME, draining: DRAINING }[this.state];
    if (!allowed.has(kind)) {
      this._broken(Code.CODE_UNEXPECTED_MESSAGE);
    } else if (kind === 'ping') {
      this.pings.received += 1;
      this.send('pong', {}, id);
    } else if (kind === 'welcome') {
      this._welcomed(message);
    } else {
      if (kind === 'pong') this.pings.pongs += 1;
      if (kind === 'error' || kind === 'go_away') this._faulted(kind, message);
      this.emit('message', envelope);
    }
  }

  _faulted(kind, fault) {
    if (fault.code === Code.CODE_TOO_MANY_PINGS) {
      this.doublings += 1;
      this._heartbeat?.slowDown(this.doublings);
    }
    if (kind === 'error') return;
    this.goAway = fault;
    this.drain(fault.close_after_ms);
  }

  _welcomed(welcome) {
    if (this._established) return;
    this._established = true;
    if (this.state === 'await_hello') this.state = 'established';
    clearTimeout(this._deadline);
    clearTimeout(this._helloDeadline);
    if (welcome.limits) this.maxFrame = welcome.limits.max_frame;
    const on = {
      ping: () => this.ping(),
      jitter: () => this.emit('jitter'),
      lost: () => this.leave(Code.CODE_HEARTBEAT_LOST),
    };
    this._heartbeat = new Heartbeat(welcome.heartbeat, this.doublings, on, this._random);
    this.emit('welcome', welcome);
  }

  _ended() {
    this._stop();
    this.finished = true;
    const code = String(this._error?.code ?? '');
    const unverified = !this.socket.authorized && !code.startsWith('ERR_SSL') && UNVERIFIED_SERVER.test(code);
    this.emit('end', {
      error: this._error,
      refused: REFUSING_ALERT.test(code) || unverified,
      goAway: this.goAway,
      established: this._established,
    });
  }
}

module.exports = { Connection };

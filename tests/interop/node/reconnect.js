// When the next connection is tried: docs/protocol.md sections 8 and 12, without the degraded mode of short connections.
'use strict';

const { enumeration } = require('./schema');

const Advice = enumeration('Advice');
const DEFAULT_POLICY = { first_jitter_ms: 5000, backoff_initial_ms: 1000, backoff_max_ms: 60000 };
const FIRST_TRIES = 3;
const FIRST_TRIES_MS = 500;
const LIVED_MS = 10000;
const STOPPING = new Set([
  Advice.ADVICE_REAUTHENTICATE,
  Advice.ADVICE_RENEW_CERTIFICATE,
  Advice.ADVICE_UPGRADE,
  Advice.ADVICE_DO_NOT_RECONNECT,
]);

class Reconnect {
  constructor(random = Math.random) {
    this.policy = DEFAULT_POLICY;
    this._random = random;
    this._step = 0;
    this._firstTries = FIRST_TRIES;
  }

  welcomed(policy) {
    if (policy) this.policy = policy;
    this._firstTries = 0;
  }

  // What to do after a connection that ended: null (stop), or {wait, elsewhere} with the wait in milliseconds.
  after({ refused, goAway, established }, livedMs) {
    if (refused || (goAway && STOPPING.has(goAway.advice))) return null;
    const elsewhere = goAway?.advice === Advice.ADVICE_RECONNECT_ELSEWHERE;
    if (!established) return { wait: Math.max(this._failedTry(), goAway ? this._advised(goAway) : 0), elsewhere: true };
    if (goAway?.advice === Advice.ADVICE_SLOW_DOWN) return { wait: Math.max(this._advised(goAway), this._backoff()), elsewhere };
    if (goAway?.advice && goAway.retry_after_ms + goAway.jitter_ms > 0) return { wait: this._advised(goAway), elsewhere };
    if (livedMs < LIVED_MS) return { wait: this._backoff(), elsewhere };
    this._step = 0;
    return { wait: this._random() * this.policy.first_jitter_ms, elsewhere };
  }

  _failedTry() {
    if (this._firstTries === 0) return this._backoff();
    this._firstTries -= 1;
    return FIRST_TRIES_MS;
  }

  _advised({ retry_after_ms: after, jitter_ms: jitter }) {
    return after + this._random() * jitter;
  }

  _backoff() {
    const { backoff_initial_ms: initial, backoff_max_ms: most } = this.policy;
    const wait = this._random() * Math.min(most, initial * 2 ** this._step);
    this._step = Math.min(this._step + 1, 31);
    return wait;
  }
}

module.exports = { Reconnect };

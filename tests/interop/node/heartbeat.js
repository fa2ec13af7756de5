// The client's side of the heartbeat: docs/protocol.md section 7.
'use strict';

const DEFAULT_POLICY = { interval_ms: 30000, reply_timeout_ms: 10000, misses: 3, min_ping_interval_ms: 10000 };
const LONGEST_INTERVAL = 3600 * 1000;

function sensible(policy) {
  const { interval_ms: interval, reply_timeout_ms: reply, misses } = policy || DEFAULT_POLICY;
  const bad = reply === 0 || reply > interval || misses === 0 || (misses === 1 && reply > interval / 2);
  return bad || !policy ? DEFAULT_POLICY : policy;
}

// When to act, in milliseconds of silence: [{at, what}] with what 'ping', 'jitter' or 'lost'.
function scheduleOf(interval, replyTimeout, misses) {
  const steps = [];
  for (let k = 1; k < misses; k += 1) steps.push({ at: k * interval, what: 'ping' });
  if (misses > 1) steps.push({ at: (misses - 1) * interval, what: 'jitter' });
  steps.push({ at: misses * interval - replyTimeout, what: 'ping' });
  steps.push({ at: misses * interval, what: 'lost' });
  return steps.sort((a, b) => a.at - b.at); // stable: a ping goes out before its window is judged
}

class Heartbeat {
  // `doublings`: how often the server has said 2008 to this program. `on` has ping(), jitter() and lost().
  constructor(policy, doublings, on, random = Math.random) {
    this._policy = sensible(policy);
    this._on = on;
    this._lastPing = -Infinity;
    this._begin(doublings);
    this._first = setTimeout(() => this._ping(), random() * this._interval);
  }

  _begin(doublings) {
    const { interval_ms: interval, reply_timeout_ms: reply, misses } = this._policy;
    const own = interval + reply;
    this._interval = Math.min(own * 2 ** doublings, Math.max(own, LONGEST_INTERVAL));
    this._steps = scheduleOf(this._interval, reply, misses);
    this.heard();
  }

  // The server said 2008: the new interval counts from now on.
  slowDown(doublings) {
    clearTimeout(this._first);
    this._begin(doublings);
  }

  heard() {
    this._silentSince = performance.now();
    this._next = 0;
    this._arm();
  }

  stop() {
    clearTimeout(this._first);
    clearTimeout(this._timer);
  }

  _arm() {
    clearTimeout(this._timer);
    const due = this._silentSince + this._steps[this._next].at;
    this._timer = setTimeout(() => this._act(due), Math.max(0, due - performance.now()));
  }

  _act(due) {
    const { what } = this._steps[this._next];
    if (what === 'lost') {
      this._on.lost();
      return;
    }
    // A late ping moves the rest, so that it has its full reply timeout.
    if (what === 'ping') {
      this._silentSince += Math.max(0, performance.now() - due);
      this._ping();
    } else this._on.jitter();
    this._next += 1;
    this._arm();
  }

  // The random first ping may fall close to one of the schedule; the minimum between two pings wins.
  _ping() {
    const now = performance.now();
    if (now - this._lastPing < this._policy.min_ping_interval_ms) return;
    this._lastPing = now;
    this._on.ping();
  }
}

module.exports = { Heartbeat, scheduleOf };

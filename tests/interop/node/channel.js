// What a client remembers of one channel: its position, and what it has taken. docs/protocol.md sections 10.4, 10.5 and 11.
'use strict';

const { enumeration } = require('./schema');
const { OUTCOME_RETRY_LATER: RETRY_LATER, OUTCOME_REJECTED: REJECTED } = enumeration('Outcome');

function isOpen({ finished, retry }) {
  return !finished && !retry;
}

class Channel {
  constructor(name) {
    this.name = name;
    this.epoch = '';
    this.anew = true; // the next Subscribed says where to begin, whatever was taken before
    this._reset(0n, '');
  }

  _reset(offset, messageId) {
    this._position = { offset, messageId }; // everything up to here is finished
    this._taken = []; // above the position, in order: {offset, messageId, finished, retry}
    this._owed = []; // repeats of what is finished, not yet acknowledged on this connection
  }

  // For Hello.resume. Without a proof (the server did not know the id of the publication where we began) there is no position.
  resume() {
    const { offset, messageId } = this._position;
    if (this.epoch === '' || (offset > 0n && messageId === '')) return { channel: this.name };
    return { channel: this.name, position: { epoch: this.epoch, offset, last_message_id: messageId } };
  }

  // Takes a Subscribed; says whether something may be lost. Where we could give no position the server has nothing to prove, and
  // says nothing of a new epoch; we see it ourselves.
  subscribed({ epoch, offset, last_message_id: messageId, loss }) {
    const lost = loss !== 0 || (!this.anew && epoch !== this.epoch);
    if (this.anew || lost) {
      this.epoch = epoch;
      this.anew = false;
      this._reset(offset, messageId);
    }
    return lost;
  }

  // Says whether the delivery is new, not a repeat.
  take({ offset, message_id: messageId }) {
    const known = this._taken.find((taken) => taken.offset === offset);
    if (offset <= this._position.offset || known?.finished) this._owed.push(offset);
    else if (!known) {
      this._taken.push({ offset, messageId, finished: false, retry: false });
      this._taken.sort((a, b) => (a.offset < b.offset ? -1 : 1));
      return true;
    }
    return false;
  }

  // Says whether there is something to acknowledge: not so if the log was begun anew since.
  acknowledge(offset, outcome) {
    const upTo = this._taken.filter((taken) => taken.offset <= offset);
    const last = upTo.at(-1);
    if (last?.offset !== offset) return false;
    if (outcome === RETRY_LATER || outcome === REJECTED) {
      if (upTo.some((taken) => taken !== last && isOpen(taken))) throw new RangeError('earlier deliveries are open');
      if (outcome === RETRY_LATER) last.retry = true;
      else last.finished = true;
    } else upTo.forEach((taken) => (taken.finished = true));
    while (this._taken.length > 0 && this._taken[0].finished && !this._taken[0].retry) this._position = this._taken.shift();
    this._owed = this._owed.filter((owed) => owed > offset);
    return true;
  }

  // The offset up to which repeats can be acknowledged now, or null. An Ack is cumulative: it must not run over what is open.
  owed() {
    const open = this._taken.find(isOpen);
    const due = this._owed.filter((owed) => !open || owed < open.offset);
    this._owed = this._owed.filter((owed) => open && owed > open.offset);
    return due.length > 0 ? due[due.length - 1] : null;
  }

  // The connection is gone: what was answered with RETRY_LATER comes again, as new.
  disconnected() {
    this._taken = this._taken.filter((taken) => !taken.retry);
    this._owed = [];
  }
}

module.exports = { Channel };

// What a client remembers of one channel: its position, and what it has taken. docs/protocol.md sections 10.4, 10.5 and 11.
'use strict';

const { enumeration } = require('./schema');
const { OUTCOME_DELIVERED: DELIVERED, OUTCOME_PROCESSED: PROCESSED, OUTCOME_RETRY_LATER: RETRY_LATER, OUTCOME_REJECTED: REJECTED } = enumeration('Outcome');

const GOES_BACK = ['EPOCH_CHANGED', 'REWOUND', 'ID_MISMATCH'].map((name) => enumeration('LossReason')[`LOSS_REASON_${name}`]);
const EXPIRED = enumeration('LossReason').LOSS_REASON_EXPIRED;
const MAX_ANSWERED = 10000; // of each channel; what is above is forgotten, and given again if it comes again

// Whether the application has not answered it, neither for good nor for now.
function isOpen({ finished, later }) {
  return !finished && !later;
}

class Channel {
  constructor(name) {
    this.name = name;
    this.epoch = '';
    this.anew = true; // the next Subscribed says where to begin, whatever was taken before
    this._answers = new Map(); // message id to {offset, outcome} of what was answered for good; offset 0n: not seen in this log
    this._here = false; // a Subscribed has come on this connection,
    this._newEpoch = false; // and another one that named another epoch
    this._reset(0n, '');
  }

  _reset(offset, messageId) {
    this._position = { offset, messageId }; // everything up to here is finished
    // Above the position, in order: {offset, messageId, finished, later, held}. `later`: the application wants it when it comes
    // again. `held`: it was answered with RETRY_LATER on this connection, and not otherwise since.
    this._taken = [];
    this._processed = 0n; // the highest that was answered with PROCESSED
    this._owed = []; // repeats of what is finished, not yet acknowledged on this connection
    this._proven = offset; // what comes behind is known by its id when it comes first on a connection
    this._sent = offset;
  }

  // For Hello.resume. Without a proof (the server did not know the id of the publication where we began) there is no position.
  resume() {
    const { offset, messageId } = this._position;
    if (this.epoch === '' || (offset > 0n && messageId === '')) return { channel: this.name };
    return { channel: this.name, position: { epoch: this.epoch, offset, last_message_id: messageId } };
  }

  // Takes a Subscribed; says whether something may be lost. Where we could give no position the server has nothing to prove, and
  // says nothing of a new epoch; we see it ourselves.
  subscribed({ epoch, offset, last_message_id: messageId, loss, recovered }) {
    const otherLog = epoch !== this.epoch;
    const lost = loss !== 0 || (!this.anew && otherLog && !recovered);
    this._newEpoch ||= this._here && otherLog;
    if (this._here && otherLog && recovered) this.epoch = epoch; // it goes on from where we are
    else if (this.anew || otherLog || GOES_BACK.includes(loss)) {
      if (this.anew) this._answers.clear();
      else this._inAnotherLog();
      this.epoch = epoch;
      this._reset(offset, messageId);
    } else {
      if (offset > this._position.offset) { // a dead letter, for instance: the server has done with it
        this._position = { offset, messageId };
        this._taken = this._taken.filter((taken) => taken.offset > offset);
      }
      this._proven = this._position.offset;
      this._sent = offset;
    }
    this._here = true;
    this.anew = false;
    return lost;
  }

  // What was answered is known by its id alone from now on.
  _inAnotherLog() {
    for (const answer of this._answers.values()) {
      if (answer.offset > 0n && answer.offset <= this._processed && answer.outcome === DELIVERED) answer.outcome = PROCESSED;
      answer.offset = 0n;
    }
  }

  _answered({ offset, messageId }, outcome) {
    this._answers.delete(messageId); // so that it becomes the newest
    this._answers.set(messageId, { offset, outcome });
    if (this._answers.size > MAX_ANSWERED) this._answers.delete(this._answers.keys().next().value);
  }

  // The Ack to send; it names the epoch once there was more than one on this connection.
  ack(offset, outcome) {
    return { channel: this.name, offset, outcome, epoch: this._newEpoch ? this.epoch : '' };
  }

  // Says whether the delivery is for the application: new, or wanted again. Otherwise it is a repeat.
  take({ offset, message_id: messageId }) {
    const first = offset > this._sent && offset > this._proven;
    if (offset > this._sent) this._sent = offset;
    const known = this._taken.find((taken) => taken.offset === offset);
    const answer = this._answers.get(messageId);
    if (first && !answer && known?.messageId !== messageId) {
      this._taken = this._taken.filter((taken) => taken !== known); // the store was put back: there is another message now
      this._add({ offset, messageId, finished: false, later: false, held: false });
      return true;
    }
    if (first && answer && !known && offset > this._position.offset) { // from another log
      this._add({ offset, messageId, finished: true, later: false, held: false });
      if (answer.outcome === PROCESSED && offset > this._processed) this._processed = offset;
      this._answered({ offset, messageId }, answer.outcome);
      this._advance();
    } else if (known?.later) {
      known.later = false;
      return true;
    } else if (known && !known.finished) return false; // the application is at it
    this._owed.push(offset);
    return false;
  }

  _add(taken) {
    this._taken.push(taken);
    this._taken.sort((a, b) => (a.offset < b.offset ? -1 : 1));
  }

  _advance() {
    while (this._taken[0]?.finished) {
      const { offset, messageId } = this._taken.shift();
      if (offset > this._position.offset) this._position = { offset, messageId };
    }
  }

  // Says whether there is something to acknowledge: not so if the log was begun anew since.
  acknowledge(offset, outcome) {
    const upTo = this._taken.filter((taken) => taken.offset <= offset);
    const last = upTo.at(-1);
    if (outcome === PROCESSED && offset > this._processed) this._processed = offset;
    if (last?.offset !== offset) return outcome === PROCESSED && offset <= this._position.offset; // was DELIVERED before
    const open = upTo.filter((taken) => !taken.finished && !taken.later);
    if (last.held) last.finished = true; // this answer is for this one alone
    else if (outcome === RETRY_LATER || outcome === REJECTED) {
      if (upTo.some((taken) => taken !== last && isOpen(taken) && !taken.held)) throw new RangeError('earlier deliveries are open');
      last.finished = true;
    } else upTo.filter((taken) => !taken.held).forEach((taken) => (taken.finished = true));
    if (outcome === RETRY_LATER) Object.assign(last, { finished: false, later: true, held: true });
    else last.held = false;
    open.filter((taken) => taken.finished).forEach((taken) => this._answered(taken, outcome));
    this._advance();
    this._owed = this._owed.filter((owed) => owed > offset);
    return true;
  }

  // The answer that repeats get now, or null: the outcome that the application gave, as far as a cumulative Ack can say it. An Ack is cumulative: it must not run over what is open. What is
  // held it does not cover.
  owed() {
    const open = this._taken.find((taken) => isOpen(taken) && !taken.held);
    const due = this._owed.filter((owed) => !open || owed < open.offset);
    this._owed = this._owed.filter((owed) => open && owed > open.offset);
    if (due.length === 0) return null;
    return this.ack(due.at(-1), due.at(-1) <= this._processed ? PROCESSED : DELIVERED);
  }

  // The connection is gone: what is wanted later comes again, as new.
  disconnected() {
    this._taken = this._taken.filter((taken) => !taken.later);
    this._taken.forEach((taken) => (taken.held = false));
    this._owed = [];
    this._here = false;
    this._newEpoch = false;
  }
}

module.exports = { Channel };

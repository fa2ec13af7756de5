// Frames: docs/protocol.md section 3.
'use strict';

// CRC-32 as in IEEE 802.3. Our own table: zlib.crc32 is younger than some Node 20.
const TABLE = new Uint32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i += 1) crc = TABLE[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const DAMAGE = { CHECKSUM_MISMATCH: 2003, FRAME_TOO_LARGE: 2004, EMPTY_FRAME: 2005 };
const LARGEST_MAX_FRAME = 16777215;
const OVERHEAD = 8;

// The frame of a payload, as one Buffer.
function encodeFrame(payload, maxFrame = LARGEST_MAX_FRAME) {
  if (payload.length < 1 || payload.length > maxFrame) throw new RangeError(`a payload of ${payload.length} bytes`);
  const frame = Buffer.allocUnsafe(payload.length + OVERHEAD);
  frame.writeUInt32BE(payload.length, 0);
  frame.set(payload, 4);
  frame.writeUInt32BE(crc32(payload), 4 + payload.length);
  return frame;
}

// The decoder of section 3.1. `push` gives the results that the bytes so far complete: {payload} or {damage: code}. `failure` is
// the code it ended with, after which `push` gives nothing more; `waiting` says whether it waits in the middle of a frame or of a
// scan.
class FrameDecoder {
  constructor({ maxFrame = LARGEST_MAX_FRAME, maxResyncBytes = 0 } = {}) {
    this.maxFrame = maxFrame;
    this.maxResyncBytes = maxResyncBytes;
    this.failure = null;
    this._buffer = Buffer.alloc(4096);
    this._start = 0; // "p" of the page, an index of _buffer
    this._stop = 0; // behind the last byte that is there
    this._windowLeft = null; // while scanning: how far behind p the window ends
    this._wasted = 0; // bytes of false frames, less those of whole ones since
  }

  get waiting() {
    return this.failure === null && (this._windowLeft !== null || this._start < this._stop);
  }

  push(chunk) {
    const results = [];
    if (this.failure !== null) return results;
    this._append(chunk);
    // Each step moves p or changes the state, and says false if it has to wait.
    while (this.failure === null && (this._windowLeft === null ? this._aligned(results) : this._scan()));
    return results;
  }

  _append(chunk) {
    const held = this._stop - this._start;
    if (this._stop + chunk.length > this._buffer.length) {
      const room = held + chunk.length > this._buffer.length ? Buffer.allocUnsafe(2 * (held + chunk.length)) : this._buffer;
      this._buffer.copy(room, 0, this._start, this._stop);
      this._buffer = room;
      this._start = 0;
      this._stop = held;
    }
    this._buffer.set(chunk, this._stop);
    this._stop += chunk.length;
  }

  _has(count) {
    return this._stop - this._start >= count;
  }

  // The payload of n bytes at p if its checksum is right, else null.
  _checked(n) {
    const payload = this._buffer.subarray(this._start + 4, this._start + 4 + n);
    return this._buffer.readUInt32BE(this._start + 4 + n) === crc32(payload) ? payload : null;
  }

  _aligned(results) {
    if (!this._has(4)) return false;
    const n = this._buffer.readUInt32BE(this._start);
    if (n >= 1 && n <= this.maxFrame) {
      if (!this._has(OVERHEAD + n)) return false;
      const payload = this._checked(n);
      // A copy, because the buffer is used again.
      results.push(payload ? { payload: Buffer.from(payload) } : { damage: DAMAGE.CHECKSUM_MISMATCH });
      this._start += OVERHEAD + n;
      this._wasted = Math.max(0, this._wasted - (OVERHEAD + n));
      return true;
    }
    const code = n === 0 ? DAMAGE.EMPTY_FRAME : DAMAGE.FRAME_TOO_LARGE;
    if (this.maxResyncBytes === 0) {
      this.failure = code;
      return false;
    }
    results.push({ damage: code });
    this._start += 1;
    this._windowLeft = this.maxResyncBytes;
    return true;
  }

  _scan() {
    if (this._windowLeft < OVERHEAD + 1) {
      this.failure = DAMAGE.FRAME_TOO_LARGE;
      return false;
    }
    if (!this._has(4)) return false;
    const n = this._buffer.readUInt32BE(this._start);
    if (n >= 1 && n <= this.maxFrame && OVERHEAD + n <= this._windowLeft) {
      if (!this._has(OVERHEAD + n)) return false;
      if (this._checked(n)) {
        this._windowLeft = null;
        return true;
      }
      this._wasted += n;
      if (this._wasted > 16 * this.maxResyncBytes) {
        this.failure = DAMAGE.CHECKSUM_MISMATCH;
        return false;
      }
    }
    this._start += 1;
    this._windowLeft -= 1;
    return true;
  }
}

module.exports = { DAMAGE, FrameDecoder, LARGEST_MAX_FRAME, OVERHEAD, crc32, encodeFrame };

-- The logs of the channels, the devices and their cursors. Times are Unix milliseconds; 0 is "never" or "none".

-- One row: what is counted is never counted again by looking at all rows.
CREATE TABLE store (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    epoch        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    channels     INTEGER NOT NULL DEFAULT 0,
    publications INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL DEFAULT 0,
    devices      INTEGER NOT NULL DEFAULT 0,
    moves        INTEGER NOT NULL DEFAULT 0   -- moves of cursors so far: their order, whatever the clock does
) STRICT;

-- Ids are 1, 2, 3 ...: a channel is never removed. Entries are at floor < offset <= top, without a hole.
CREATE TABLE channels (
    id        INTEGER PRIMARY KEY,
    name      TEXT    NOT NULL UNIQUE,
    top       INTEGER NOT NULL,
    floor     INTEGER NOT NULL,
    floor_id  TEXT    NOT NULL,   -- message id of the entry at the floor, which is gone
    size      INTEGER NOT NULL,   -- sum of the entries' weight
    expiring  INTEGER NOT NULL,   -- entries that expire, or have
    urgent    INTEGER NOT NULL,   -- newest offset of high priority
    receipted INTEGER NOT NULL,   -- newest offset that wants a receipt
    oldest_at INTEGER NOT NULL    -- when the oldest entry was published
) STRICT;

-- For the sweep by age; the newest entry of a channel stays whatever its age.
CREATE INDEX channels_by_age ON channels (oldest_at) WHERE top > floor + 1;

-- id = channel << 39 | offset: one tree for all logs, each of them in one piece of it. The payload is the last column, so that
-- the others are read without it.
CREATE TABLE entries (
    id             INTEGER PRIMARY KEY,
    message_id     TEXT    NOT NULL,
    published_at   INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    deliver_at     INTEGER NOT NULL,   -- what it was scheduled for
    priority       INTEGER NOT NULL,
    flags          INTEGER NOT NULL,   -- 1: wants a receipt, 2: cleared when processed, 4: payload and headers are freed
    size           INTEGER NOT NULL,   -- bytes of the payload as published
    weight         INTEGER NOT NULL,   -- bytes that count against the limits now
    version        INTEGER NOT NULL,
    superseded_by  INTEGER NOT NULL,   -- offset of the newer one of the same collapse key
    recalled_at    INTEGER NOT NULL,
    recalls        TEXT    NOT NULL,   -- message id that this recall notice takes back
    collapse_key   TEXT    NOT NULL,
    publisher      TEXT    NOT NULL,
    content_type   TEXT    NOT NULL,
    headers        TEXT    NOT NULL,   -- JSON object, empty for none
    payload        BLOB    NOT NULL
) STRICT;

CREATE INDEX entries_by_message ON entries (message_id);
-- What expires: counted behind an offset, and freed when it has.
CREATE INDEX entries_that_expire ON entries (id, expires_at, superseded_by, recalled_at) WHERE expires_at > 0;
CREATE INDEX entries_to_free ON entries (expires_at) WHERE expires_at > 0 AND flags < 4;

CREATE TABLE devices (
    id            TEXT    PRIMARY KEY,
    user_id       TEXT    NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    push_token    BLOB,               -- NULL: none
    push_topic    TEXT    NOT NULL,
    push_sandbox  INTEGER NOT NULL,
    attributes    TEXT    NOT NULL,   -- JSON object, empty for none
    close_code    INTEGER,            -- NULL: it was never closed
    close_advice  INTEGER NOT NULL,
    close_detail  TEXT    NOT NULL,
    close_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_by_user ON devices (user_id, id) WHERE user_id <> '';

CREATE TABLE cursors (
    device    TEXT    NOT NULL,
    channel   TEXT    NOT NULL,       -- a name: a cursor may be of a log that is not begun
    epoch     TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    processed INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    moved     INTEGER NOT NULL,       -- store.moves when it moved
    PRIMARY KEY (device, channel)
) STRICT, WITHOUT ROWID;

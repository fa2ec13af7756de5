-- What makes repeated, collapsed and versioned publishing safe, and what became of each message on each device.

-- Publishers, by number, and how many keys of each are remembered.
CREATE TABLE scopes (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE,
    keys INTEGER NOT NULL
) STRICT;

-- The first answer to each idempotency key; rows are in order of their age.
CREATE TABLE idempotency (
    id           INTEGER PRIMARY KEY,
    scope        INTEGER NOT NULL,
    key          TEXT    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    expires_at   INTEGER NOT NULL,
    message_id   TEXT    NOT NULL,
    channel      TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    epoch        TEXT    NOT NULL,
    superseded   INTEGER NOT NULL,
    deliver_at   INTEGER NOT NULL,
    UNIQUE (scope, key)
) STRICT;

CREATE INDEX idempotency_by_age ON idempotency (scope);   -- and, as every index, by id

-- The newest entry of each collapse key that is still in its log; the empty key is that of versions without one.
CREATE TABLE collapses (
    channel   INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    version   INTEGER NOT NULL,       -- the newest of the key that is in the log, 0: none
    versioned INTEGER NOT NULL,       -- offset of the entry with that version
    PRIMARY KEY (channel, key)
) STRICT, WITHOUT ROWID;

-- entry: entries.id. Times of the first occurrence, NULL: not yet.
CREATE TABLE receipts (
    entry         INTEGER NOT NULL,
    device        TEXT    NOT NULL,
    written       INTEGER,
    delivered     INTEGER,
    processed     INTEGER,
    rejected      INTEGER,
    dead_lettered INTEGER,
    PRIMARY KEY (entry, device)
) STRICT, WITHOUT ROWID;

-- Of topics: how many devices.
CREATE TABLE receipt_counts (
    entry         INTEGER PRIMARY KEY,
    written       INTEGER NOT NULL DEFAULT 0,
    delivered     INTEGER NOT NULL DEFAULT 0,
    processed     INTEGER NOT NULL DEFAULT 0,
    rejected      INTEGER NOT NULL DEFAULT 0,
    dead_lettered INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What waits: for its time, for a device that comes back, for a person to look at it, for a sender.

ALTER TABLE store ADD COLUMN scheduled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN dead_letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN outbox INTEGER NOT NULL DEFAULT 0;

CREATE TABLE scheduled (
    id             INTEGER PRIMARY KEY,
    deliver_at     INTEGER NOT NULL,
    message_id     TEXT    NOT NULL,
    channel        TEXT    NOT NULL,
    published_at   INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    priority       INTEGER NOT NULL,
    flags          INTEGER NOT NULL,
    weight         INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    collapse_key   TEXT    NOT NULL,
    publisher      TEXT    NOT NULL,
    content_type   TEXT    NOT NULL,
    headers        TEXT    NOT NULL,
    payload        BLOB    NOT NULL
) STRICT;

CREATE INDEX scheduled_by_time ON scheduled (deliver_at);
CREATE INDEX scheduled_by_message ON scheduled (message_id);

CREATE TABLE subscriptions (
    device   TEXT    NOT NULL,
    channel  TEXT    NOT NULL,
    since_at INTEGER NOT NULL,
    PRIMARY KEY (device, channel)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id           INTEGER PRIMARY KEY,
    device       TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    weight       INTEGER NOT NULL,
    channel      TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    published_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    flags        INTEGER NOT NULL,
    collapse_key TEXT    NOT NULL,
    recalls      TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    headers      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    UNIQUE (device, message_id)
) STRICT;

CREATE INDEX dead_letters_by_time ON dead_letters (device, at);

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again: it is a part of lease tokens
    kind         TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    due_at       INTEGER NOT NULL,   -- while it is leased, when the lease ends
    attempts     INTEGER NOT NULL,
    token        TEXT    NOT NULL,   -- of the lease, empty: none
    body         BLOB    NOT NULL,
    UNIQUE (kind, key)
) STRICT;

CREATE INDEX outbox_by_time ON outbox (kind, due_at);
CREATE INDEX outbox_by_token ON outbox (token) WHERE token <> '';

-- Pushes to devices that are away: what waits for its time with a message, who is to be reached, and what became of it.

-- Counts in `weight` as the payload does.
ALTER TABLE scheduled ADD COLUMN fallback BLOB NOT NULL DEFAULT x'';

-- The followers of a topic, in order.
CREATE INDEX subscriptions_by_channel ON subscriptions (channel, device);

-- A token is that of one device: of two that had the same one, it stays with the one that was seen last.
ALTER TABLE devices ADD COLUMN push_registered_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX devices_by_push_token ON devices (push_token) WHERE push_token IS NOT NULL;
UPDATE devices SET push_token = NULL, push_topic = '', push_sandbox = 0 WHERE push_token IS NOT NULL AND EXISTS (
    SELECT 1 FROM devices AS other
    WHERE other.push_token = devices.push_token AND (other.last_seen_at, other.id) > (devices.last_seen_at, devices.id)
);

-- How the push to a device ended, NULL: it has not yet.
ALTER TABLE receipts ADD COLUMN pushed_at INTEGER;
ALTER TABLE receipts ADD COLUMN push_outcome TEXT;
ALTER TABLE receipts ADD COLUMN push_reason TEXT;
ALTER TABLE receipts ADD COLUMN apns_id TEXT;
CREATE INDEX receipts_by_apns_id ON receipts (apns_id) WHERE apns_id <> '';

-- Of topics: how many devices.
CREATE TABLE push_counts (
    entry     INTEGER PRIMARY KEY,
    delivered INTEGER NOT NULL,
    rejected  INTEGER NOT NULL,
    not_sent  INTEGER NOT NULL,
    unknown   INTEGER NOT NULL,
    cancelled INTEGER NOT NULL
) STRICT;

-- The newest offset that has a row in push_counts.
ALTER TABLE channels ADD COLUMN pushed INTEGER NOT NULL DEFAULT 0;

-- How many idempotency keys there are, of all publishers together: they have a limit.

ALTER TABLE store ADD COLUMN keys INTEGER NOT NULL DEFAULT 0;
UPDATE store SET keys = (SELECT count(*) FROM idempotency);

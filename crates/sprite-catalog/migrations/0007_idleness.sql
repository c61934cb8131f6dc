-- When a sprite is idle. Milliseconds; 0: never; NULL: as the server says.
ALTER TABLE sprites ADD COLUMN idle_timeout_ms BIGINT CHECK (idle_timeout_ms >= 0);
-- Which connections keep it awake.
ALTER TABLE sprites ADD COLUMN connections TEXT NOT NULL DEFAULT 'open' CHECK (connections IN ('open', 'traffic'));

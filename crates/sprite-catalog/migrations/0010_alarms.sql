-- Moments at which a sprite wants to be awake. due_at is when that is tried next: at itself, and later after a failure.
CREATE TABLE alarms (
    sprite_id TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    at        BIGINT NOT NULL,
    due_at    BIGINT NOT NULL,
    PRIMARY KEY (sprite_id, at)
) WITHOUT ROWID;

CREATE INDEX alarms_by_due ON alarms (due_at);

-- Reasons of a sprite's own to stay awake. One that has expired counts as gone, whether its row still stands or not.
CREATE TABLE tasks (
    sprite_id  TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    name       TEXT   NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (sprite_id, name)
) WITHOUT ROWID;

CREATE INDEX tasks_by_end ON tasks (expires_at);

-- States of sprites' disks that they can go back to. Times are microseconds.
CREATE TABLE checkpoints (
    sprite_id  TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    id         TEXT   NOT NULL,
    -- making: there may be a file, which nothing counts on; kept: there is one; going: there may be one yet.
    state      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    -- The checkpoint that this state goes back to.
    source     TEXT,
    comment    TEXT   NOT NULL,
    PRIMARY KEY (sprite_id, id)
) WITHOUT ROWID;

CREATE INDEX checkpoints_unfinished ON checkpoints (state) WHERE state <> 'kept';

-- Of a sprite that ever had a checkpoint: the numbers given last, and the checkpoint that its disk goes back to.
CREATE TABLE checkpoint_lines (
    sprite_id TEXT   NOT NULL PRIMARY KEY REFERENCES sprites (id) ON DELETE CASCADE,
    asked     BIGINT NOT NULL DEFAULT 0,
    automatic BIGINT NOT NULL DEFAULT 0,
    source    TEXT
) WITHOUT ROWID;

-- Restores that were begun: the next boot puts the checkpoint's state on the disk, whose own it keeps first.
CREATE TABLE restores (
    sprite_id  TEXT   NOT NULL PRIMARY KEY REFERENCES sprites (id) ON DELETE CASCADE,
    checkpoint TEXT   NOT NULL,
    kept       TEXT   NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

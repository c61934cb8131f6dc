-- Programs that sprites keep running. What a service is is JSON; 'run' says whether a person stopped it.
CREATE TABLE services (
    sprite_id  TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    name       TEXT   NOT NULL,
    spec       TEXT   NOT NULL,
    run        TEXT   NOT NULL CHECK (run IN ('started', 'stopped')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (sprite_id, name)
) WITHOUT ROWID;

-- Counts the changes of a sprite's services, so that its machine knows which of two sets is the later one.
CREATE TABLE service_revisions (
    sprite_id TEXT   NOT NULL PRIMARY KEY REFERENCES sprites (id) ON DELETE CASCADE,
    revision  BIGINT NOT NULL
) WITHOUT ROWID;

-- What sprites may, where that differs from the default. Each policy is JSON, as the API shows it.
CREATE TABLE policies (
    sprite_id  TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    kind       TEXT   NOT NULL CHECK (kind IN ('network', 'privileges', 'resources')),
    policy     TEXT   NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (sprite_id, kind)
) WITHOUT ROWID;

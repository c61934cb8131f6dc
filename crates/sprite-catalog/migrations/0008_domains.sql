-- Domains of people's own that lead to sprites.
CREATE TABLE domains (
    domain     TEXT   NOT NULL PRIMARY KEY,
    sprite_id  TEXT   NOT NULL REFERENCES sprites (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX domains_by_sprite ON domains (sprite_id, domain);

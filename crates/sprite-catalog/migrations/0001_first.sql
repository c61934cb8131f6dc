-- Times are microseconds since 1970 in UTC. Lists and maps are JSON. Names compare byte by byte
-- (SQLite's default; PostgreSQL needs COLLATE "C" on the name).

CREATE TABLE organisations (
    id         TEXT   NOT NULL PRIMARY KEY,
    slug       TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    id          TEXT   NOT NULL PRIMARY KEY,
    org_id      TEXT   NOT NULL REFERENCES organisations (id),
    -- BLAKE3 of the secret, in hexadecimal. The secret is random and long: it needs no salt and no slow hash.
    hash        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT
);

CREATE INDEX tokens_by_org ON tokens (org_id);

CREATE TABLE sprites (
    id              TEXT   NOT NULL PRIMARY KEY,
    org_id          TEXT   NOT NULL REFERENCES organisations (id),
    name            TEXT   NOT NULL,
    driver          TEXT   NOT NULL,
    image           TEXT   NOT NULL,
    -- The fence: who may write this row, and which run of the sprite it speaks of.
    generation      BIGINT NOT NULL,
    incarnation     BIGINT NOT NULL,
    -- 'running' is written before a machine runs, 'warm' and 'cold' after it ceased to.
    status          TEXT   NOT NULL CHECK (status IN ('running', 'warm', 'cold')),
    machine_id      TEXT,
    labels          TEXT   NOT NULL,
    url_auth        TEXT   NOT NULL,
    private_access  TEXT   NOT NULL,
    cpus            BIGINT NOT NULL,
    memory_mib      BIGINT NOT NULL,
    storage_gb      BIGINT NOT NULL,
    pids            BIGINT NOT NULL,
    environment     TEXT   NOT NULL,
    failure         TEXT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    last_running_at BIGINT,
    last_warming_at BIGINT,
    CHECK ((status = 'cold') = (machine_id IS NULL)),
    UNIQUE (org_id, name)
);

CREATE INDEX sprites_by_status ON sprites (org_id, status);
CREATE INDEX sprites_active ON sprites (status) WHERE status <> 'cold';

-- What was announced and not finished. A wake needs none: the row that says 'running' is its announcement.
CREATE TABLE intents (
    sprite_id  TEXT   NOT NULL PRIMARY KEY REFERENCES sprites (id) ON DELETE CASCADE,
    operation  TEXT   NOT NULL CHECK (operation IN ('create', 'destroy')),
    created_at BIGINT NOT NULL
);

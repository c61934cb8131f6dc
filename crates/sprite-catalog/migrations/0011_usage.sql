-- What sprites have used since a moment and until another; see the lifecycle's metering. Times are microseconds.
CREATE TABLE usage (
    sprite_id         TEXT   NOT NULL PRIMARY KEY REFERENCES sprites (id) ON DELETE CASCADE,
    since             BIGINT NOT NULL,
    until             BIGINT NOT NULL,
    running_micros    BIGINT NOT NULL DEFAULT 0,
    warm_micros       BIGINT NOT NULL DEFAULT 0,
    cold_micros       BIGINT NOT NULL DEFAULT 0,
    cpu_micros        BIGINT NOT NULL DEFAULT 0,
    -- MiB × seconds, and the MiB × microseconds beyond them.
    memory_mib_secs   BIGINT NOT NULL DEFAULT 0,
    memory_mib_micros BIGINT NOT NULL DEFAULT 0,
    bytes_in          BIGINT NOT NULL DEFAULT 0,
    bytes_out         BIGINT NOT NULL DEFAULT 0,
    -- How far the counters of which machine are counted. Absent: there is nothing to go on from.
    counted_machine   TEXT,
    counted_cpu       BIGINT,
    counted_memory    BIGINT,
    counted_in        BIGINT,
    counted_out       BIGINT
) WITHOUT ROWID;

-- Nobody counted what those used that there are.
INSERT INTO usage (sprite_id, since, until)
SELECT id, CAST(unixepoch('subsec') * 1000000 AS BIGINT), CAST(unixepoch('subsec') * 1000000 AS BIGINT) FROM sprites;

-- The sprites that have, or may have, a machine: what a start looks at, however many sleep on disk alone.
DROP INDEX sprites_active;
CREATE INDEX sprites_with_machine ON sprites (id)
    WHERE status = 'running' OR (status = 'warm' AND driver = 'container');

-- Whether programs in a sprite may make sprites of their own through its socket, and which sprite made this one. The
-- maker may be gone: ids are never used again, so that its id then stands for nobody.
ALTER TABLE sprites ADD COLUMN api_access BIGINT NOT NULL DEFAULT 0 CHECK (api_access IN (0, 1));
ALTER TABLE sprites ADD COLUMN made_by TEXT;

CREATE INDEX sprites_by_maker ON sprites (made_by, name) WHERE made_by IS NOT NULL;

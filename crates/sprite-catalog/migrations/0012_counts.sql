-- How many sprites an organisation has of each status: told with every page of a list, however many there are.
CREATE TABLE sprite_counts (
    org_id  TEXT   NOT NULL REFERENCES organisations (id),
    status  TEXT   NOT NULL,
    sprites BIGINT NOT NULL,
    PRIMARY KEY (org_id, status)
);

INSERT INTO sprite_counts SELECT org_id, status, COUNT(*) FROM sprites GROUP BY org_id, status;

CREATE TRIGGER sprite_counted AFTER INSERT ON sprites BEGIN
    INSERT INTO sprite_counts VALUES (NEW.org_id, NEW.status, 1)
        ON CONFLICT (org_id, status) DO UPDATE SET sprites = sprites + 1;
END;

CREATE TRIGGER sprite_not_counted AFTER DELETE ON sprites BEGIN
    UPDATE sprite_counts SET sprites = sprites - 1 WHERE org_id = OLD.org_id AND status = OLD.status;
END;

CREATE TRIGGER sprite_counted_anew AFTER UPDATE OF status ON sprites WHEN OLD.status <> NEW.status BEGIN
    UPDATE sprite_counts SET sprites = sprites - 1 WHERE org_id = OLD.org_id AND status = OLD.status;
    INSERT INTO sprite_counts VALUES (NEW.org_id, NEW.status, 1)
        ON CONFLICT (org_id, status) DO UPDATE SET sprites = sprites + 1;
END;

-- It was there to be counted by.
DROP INDEX sprites_by_status;

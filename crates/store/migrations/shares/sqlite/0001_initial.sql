-- Shares: without its share, what was sealed under a key cannot be opened. What was destroyed stays as
-- a row without a share, so that a copy from before says what happened.
CREATE TABLE share (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    share        BLOB CHECK (length(share) = 32),
    destroyed_at INTEGER,
    CHECK ((share IS NULL) = (destroyed_at IS NOT NULL))
) STRICT;

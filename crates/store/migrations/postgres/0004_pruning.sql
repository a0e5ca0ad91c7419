-- What is left of pruned records: the leaf hashes of each whole bundle of 256, one after another, as
-- a hash tile has them. The log is pruned up to and with the last bundle here. Of the pruned records,
-- those of changes stay in `record`, where only replay reads them.
CREATE TABLE pruned_bundle (
    bundle BIGINT PRIMARY KEY,
    leaves BYTEA  NOT NULL CHECK (octet_length(leaves) = 8192)
);

-- Which program may run beside which schema. Every later migration adds its row: a program that knows migrations up to
-- `oldest` at least may run on a database that has `version`; an older one refuses.
CREATE TABLE schema_versions (
    version BIGINT PRIMARY KEY,
    oldest BIGINT NOT NULL
);

-- What the detectors know of each partition of the telemetry bus, where the bus outlives the process (Redis).

CREATE TABLE partitions (
    id BIGINT PRIMARY KEY,
    -- Made with the row: fences of leases count within one database, and Redis may have seen another.
    era TEXT NOT NULL,
    -- JSON: up to where `state` knows the stream.
    mark TEXT,
    state BYTEA,
    saved_at BIGINT
);

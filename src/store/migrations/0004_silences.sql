-- Silences made at run time; an ended one is kept as long as incidents are.

CREATE TABLE silences (
    id TEXT PRIMARY KEY,
    matches TEXT NOT NULL,
    reason TEXT NOT NULL,
    made_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
);
CREATE INDEX silences_by_end ON silences (ends_at);

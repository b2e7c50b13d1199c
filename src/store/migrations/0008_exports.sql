-- Records whose copy in a search index is behind: appended in the transaction of the change, deleted when the copy is there.
CREATE TABLE exports (
    -- Also the version of the copy: it grows with every change of a record.
    seq BIGSERIAL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- Why the index refused it for good; it waits for somebody to mend that.
    refused TEXT
);
CREATE INDEX exports_waiting ON exports (seq) WHERE refused IS NULL;
CREATE INDEX exports_by_subject ON exports (kind, subject, seq);

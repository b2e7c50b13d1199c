-- Correlation in batches: what a batch looks for at once.

-- How many alerts a delivery brought: a batch is bounded by these.
ALTER TABLE inbox ADD COLUMN items BIGINT NOT NULL DEFAULT 1;
-- Where the inbox is a file of its own (SQLite): the last row of it that this state holds the effects of.
CREATE TABLE inbox_applied (id BIGINT NOT NULL);
INSERT INTO inbox_applied (id) VALUES (0);

-- Few incidents of a service are open, or were resolved lately; many are history.
CREATE INDEX incidents_open ON incidents (service) WHERE state <> 'resolved';
CREATE INDEX incidents_resolved ON incidents (service, resolved_at);
CREATE INDEX anomalies_by_start ON anomalies (started_at);
CREATE INDEX alerts_firing ON alerts (source) WHERE state = 'firing';

-- How fast correlation is: how long what waits in the inbox will wait.

-- How many alerts and anomalies it has taken off the inbox in all.
ALTER TABLE inbox_applied ADD COLUMN items BIGINT NOT NULL DEFAULT 0;

-- What is asked for at every incident, page or look is found by an index, whatever else is stored.

-- Lists go by id, newest first.
DROP INDEX incidents_by_state;
DROP INDEX incidents_by_service;
CREATE INDEX incidents_by_service ON incidents (service, id);
CREATE INDEX incidents_open_by_id ON incidents (id) WHERE state <> 'resolved';

-- The one by state was rewritten by every repeat of an alert, and read by nobody but retention.
DROP INDEX alerts_by_state;
-- In the order in which an incident's alerts are looked at: of a flood, only the first ones are.
DROP INDEX alerts_by_incident;
CREATE INDEX alerts_by_incident ON alerts (incident_id, state, starts_at, fingerprint);
CREATE INDEX alerts_by_start ON alerts (starts_at DESC, fingerprint);

CREATE INDEX changes_by_time ON changes (at);

-- In the order in which they are claimed: what is due may be much.
DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (run_at, id);
DROP INDEX messages_due;
CREATE INDEX messages_due ON messages (channel, next_at) WHERE state = 'due';
CREATE INDEX messages_waiting ON messages (channel, (CASE WHEN sent_version = 0 THEN 0 ELSE 1 END), due_since) WHERE state = 'due';
CREATE INDEX messages_unreached ON messages (channel) WHERE unreached;

-- Buttons under messages, what people pressed and wrote in chats, and what a message in delivery needs to survive a kill.

CREATE TABLE buttons (
    id TEXT PRIMARY KEY,
    verb TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    approval_id TEXT,
    plan_hash TEXT,
    channel TEXT NOT NULL,
    place TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX buttons_by_incident ON buttons (incident_id, channel);

CREATE TABLE chat_events (
    id TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    handled_at BIGINT,
    body TEXT NOT NULL
);
CREATE INDEX chat_events_waiting ON chat_events (channel, handled_at);

-- The version that is being posted anew: found set by the next owner, nobody knows whether the provider has it.
ALTER TABLE messages ADD COLUMN posting BIGINT NOT NULL DEFAULT 0;
-- What the provider shows says that the incident is flapping.
ALTER TABLE messages ADD COLUMN shows_flapping BOOLEAN NOT NULL DEFAULT FALSE;
-- The last try ended for good without success; other channels say so.
ALTER TABLE messages ADD COLUMN unreached BOOLEAN NOT NULL DEFAULT FALSE;

-- One text for SQLite and PostgreSQL: `BIGSERIAL PRIMARY KEY` is rewritten for SQLite. Times are microseconds since the epoch;
-- structures are JSON in TEXT.

CREATE TABLE inbox (
    id BIGSERIAL PRIMARY KEY,
    kind TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE inbox_dead (
    id BIGINT PRIMARY KEY,
    kind TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    error TEXT NOT NULL
);

CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    service TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    opened_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_signal_at BIGINT NOT NULL,
    resolved_at BIGINT,
    alert_count BIGINT NOT NULL,
    firing_count BIGINT NOT NULL,
    version BIGINT NOT NULL,
    episode BIGINT NOT NULL,
    flapping BOOLEAN NOT NULL,
    flips TEXT NOT NULL,
    suppressed TEXT,
    acknowledged_by TEXT,
    resolved_by TEXT
);
CREATE INDEX incidents_by_state ON incidents (state, opened_at);
CREATE INDEX incidents_by_service ON incidents (service, opened_at);

CREATE TABLE alerts (
    fingerprint TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    state TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT,
    expires_at BIGINT,
    generator_url TEXT NOT NULL,
    incident_id TEXT,
    last_seen_at BIGINT NOT NULL
);
CREATE INDEX alerts_by_incident ON alerts (incident_id);
CREATE INDEX alerts_by_state ON alerts (state, last_seen_at);

CREATE TABLE anomalies (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    detail TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    incident_id TEXT
);
CREATE INDEX anomalies_by_key ON anomalies (key, started_at);
CREATE INDEX anomalies_by_service ON anomalies (service, started_at);
CREATE INDEX anomalies_by_incident ON anomalies (incident_id);

CREATE TABLE changes (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    service TEXT NOT NULL,
    summary TEXT NOT NULL,
    author TEXT,
    url TEXT,
    at BIGINT NOT NULL
);
CREATE INDEX changes_by_service ON changes (service, at);

CREATE TABLE timeline (
    seq BIGSERIAL PRIMARY KEY,
    incident_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    actor TEXT
);
CREATE INDEX timeline_by_incident ON timeline (incident_id, seq);

CREATE TABLE evidence (
    incident_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    service TEXT NOT NULL,
    summary TEXT NOT NULL,
    data TEXT NOT NULL,
    observed_at BIGINT NOT NULL,
    PRIMARY KEY (incident_id, number)
);

CREATE TABLE diagnoses (
    id TEXT PRIMARY KEY,
    incident_id TEXT NOT NULL,
    tier TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX diagnoses_by_incident ON diagnoses (incident_id, created_at);

CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    incident_id TEXT NOT NULL,
    state TEXT NOT NULL,
    plan TEXT NOT NULL,
    plan_hash TEXT NOT NULL,
    requested_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    decided_by TEXT,
    decided_at BIGINT,
    reason TEXT
);
CREATE INDEX approvals_by_incident ON approvals (incident_id, requested_at);
CREATE INDEX approvals_by_state ON approvals (state, requested_at);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    incident_id TEXT,
    state TEXT NOT NULL,
    playbook TEXT NOT NULL,
    target TEXT NOT NULL,
    plan TEXT NOT NULL,
    plan_hash TEXT NOT NULL,
    allowed_by TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    outcome TEXT NOT NULL
);
CREATE INDEX runs_by_incident ON runs (incident_id, started_at);
CREATE INDEX runs_by_playbook ON runs (playbook, started_at);
-- The lock per target: one run that is not over.
CREATE UNIQUE INDEX runs_one_per_target ON runs (target)
    WHERE state IN ('running', 'needs_human', 'verifying', 'rolling_back');

CREATE TABLE run_steps (
    run_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    position BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    step_id TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    output TEXT NOT NULL,
    PRIMARY KEY (run_id, phase, position, attempt)
);

CREATE TABLE messages (
    incident_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    state TEXT NOT NULL,
    wanted_version BIGINT NOT NULL,
    sent_version BIGINT NOT NULL,
    episode BIGINT NOT NULL,
    reference TEXT,
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    due_since BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    last_error TEXT,
    delivered_at BIGINT,
    PRIMARY KEY (incident_id, channel)
);
CREATE INDEX messages_due ON messages (state, next_at);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    run_at BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (kind, subject)
);
CREATE INDEX jobs_due ON jobs (run_at, lease_until);

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL,
    fence BIGINT NOT NULL
);

CREATE TABLE flags (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX tokens_by_hash ON tokens (hash);

CREATE TABLE decisions (
    id BIGSERIAL PRIMARY KEY,
    at BIGINT NOT NULL,
    stage TEXT NOT NULL,
    fingerprint TEXT,
    incident_id TEXT,
    outcome TEXT NOT NULL,
    clause TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE INDEX decisions_by_fingerprint ON decisions (fingerprint, id);
CREATE INDEX decisions_by_incident ON decisions (incident_id, id);

CREATE TABLE audit (
    seq BIGSERIAL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

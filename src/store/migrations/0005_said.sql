-- What a sentence says, so that people read it in their language: beside its English, a phrase as JSON; for a
-- diagnosis a list of them. Rows that have none are shown as they are.
ALTER TABLE timeline ADD COLUMN said TEXT;
ALTER TABLE evidence ADD COLUMN said TEXT;
ALTER TABLE diagnoses ADD COLUMN said TEXT;
ALTER TABLE runs ADD COLUMN said TEXT;
ALTER TABLE incidents ADD COLUMN title_said TEXT;
ALTER TABLE incidents ADD COLUMN resolved_by_said TEXT;
ALTER TABLE anomalies ADD COLUMN said TEXT;

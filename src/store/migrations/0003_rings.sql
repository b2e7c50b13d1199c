-- An edit rings no phone: which moments of need people were rung for (JSON), and the one for which a ring is owed.
ALTER TABLE messages ADD COLUMN rung TEXT NOT NULL DEFAULT '[]';
ALTER TABLE messages ADD COLUMN ring TEXT;

-- The call graph that spans teach, as counts of a day: replicas add to the same rows, and what is old fades by its age.
CREATE TABLE calls (
    caller TEXT NOT NULL,
    callee TEXT NOT NULL,
    -- Since 1970, in UTC.
    day BIGINT NOT NULL,
    count DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (day, caller, callee)
);

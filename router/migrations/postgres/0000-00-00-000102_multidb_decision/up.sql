-- The outcome of transactions, written by each in its own commit. State `c`: committed.
CREATE TABLE multidb_decision (
    gid TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    participants TEXT NOT NULL,
    created BIGINT NOT NULL,
    closed BIGINT
);
CREATE INDEX multidb_decision_created ON multidb_decision (created);

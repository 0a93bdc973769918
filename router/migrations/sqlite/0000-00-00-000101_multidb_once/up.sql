-- Idempotency keys of `once`, each with the result of the call that committed.
CREATE TABLE multidb_once (
    id TEXT NOT NULL PRIMARY KEY,
    function TEXT NOT NULL,
    body TEXT NOT NULL,
    result TEXT,
    created BIGINT NOT NULL
);
CREATE INDEX multidb_once_created ON multidb_once (created);

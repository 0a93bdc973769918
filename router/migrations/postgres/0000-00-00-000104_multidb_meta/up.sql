-- What this database is, for transactions over several databases. One row, written by `schema::install`.
CREATE TABLE multidb_meta (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    database_id TEXT NOT NULL,
    environment TEXT NOT NULL,
    -- The server on which it was installed or adopted, and the incarnation that was adopted with those before it.
    server TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    -- The greatest id of a decision that was deleted.
    forgotten_up_to TEXT COLLATE "C" NOT NULL
);

-- What this database is, for transactions over several databases. One row, written by `schema::install`.
CREATE TABLE multidb_meta (
    id SMALLINT NOT NULL PRIMARY KEY,
    database_id VARBINARY(64) NOT NULL,
    environment VARBINARY(64) NOT NULL,
    -- The server on which it was installed or adopted, and the incarnation that was adopted with those before it.
    server VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
    incarnation VARBINARY(64) NOT NULL,
    -- The greatest id of a decision that was deleted.
    forgotten_up_to VARBINARY(64) NOT NULL
) ENGINE = InnoDB;

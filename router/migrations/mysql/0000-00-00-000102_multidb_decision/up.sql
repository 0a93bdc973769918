-- The outcome of transactions, written by each in its own commit. State `c`: committed.
CREATE TABLE multidb_decision (
    gid VARBINARY(64) NOT NULL PRIMARY KEY,
    state VARCHAR(8) CHARACTER SET utf8mb4 NOT NULL,
    participants TEXT CHARACTER SET utf8mb4 NOT NULL,
    created BIGINT NOT NULL,
    closed BIGINT,
    INDEX multidb_decision_created (created)
) ENGINE = InnoDB;

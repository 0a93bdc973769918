-- Idempotency keys of `once`, each with the result of the call that committed. Binary, since a collation would take
-- keys for equal that differ.
CREATE TABLE multidb_once (
    id VARBINARY(255) NOT NULL PRIMARY KEY,
    function TEXT CHARACTER SET utf8mb4 NOT NULL,
    body TEXT CHARACTER SET utf8mb4 NOT NULL,
    result LONGTEXT CHARACTER SET utf8mb4,
    created BIGINT NOT NULL,
    INDEX multidb_once_created (created)
) ENGINE = InnoDB;

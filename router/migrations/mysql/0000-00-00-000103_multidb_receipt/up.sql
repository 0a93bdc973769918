-- Written by each branch of a transaction over several databases, in its own part: once it can be read, the branch is
-- committed. The decision stands in another database.
CREATE TABLE multidb_receipt (
    gid VARBINARY(64) NOT NULL,
    branch VARBINARY(64) NOT NULL,
    participants TEXT CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (gid, branch)
) ENGINE = InnoDB;

-- Written by each branch of a transaction over several databases, in its own part: once it can be read, the branch is
-- committed. The decision stands in another database.
CREATE TABLE multidb_receipt (
    gid TEXT NOT NULL,
    branch TEXT NOT NULL,
    participants TEXT NOT NULL,
    PRIMARY KEY (gid, branch)
);

-- As on the other backends, where a branch writes its receipt. A SQLite file is always home, so here it stays empty.
CREATE TABLE multidb_receipt (
    gid TEXT NOT NULL,
    branch TEXT NOT NULL,
    participants TEXT NOT NULL,
    PRIMARY KEY (gid, branch)
);

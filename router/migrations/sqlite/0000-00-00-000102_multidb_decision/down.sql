DROP TABLE multidb_decision;

DROP TABLE multidb_once;

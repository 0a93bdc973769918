DROP TABLE multidb_meta;

DROP TABLE multidb_receipt;

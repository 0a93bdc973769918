//! Files that change after their connection was made.

use super::*;

/// Both files of a pool that has been used.
fn used() -> Files {
    let files = files(2);
    let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
    put(0, 1).expect("a row");
    put(1, 1).expect("a row");
    leave(ticket, Verdict::Keep).expect("committed");
    files
}

/// What the end of a transaction that has written to both says.
fn write_both(files: &Files) -> Result<(), Error> {
    let ticket = open(&files.databases, &[0, 1])?;
    put(0, 2)?;
    put(1, 2)?;
    leave(ticket, Verdict::Keep)
}

#[test]
fn a_file_that_was_switched_to_wal_meanwhile_is_not_committed_to() {
    let files = used();
    for at in [1, 0] {
        // A pooled connection has the file open, and holds no lock.
        write(&files.paths[at], "PRAGMA journal_mode = WAL");
        let error = write_both(&files).expect_err("it would be committed file by file");
        let text = error.to_string();
        assert!(matches!(error, Error::NotAtomic { .. }), "{text}");
        assert!(text.contains(&format!("`{}` (", NAMES[at])) && text.contains("WAL"), "{text}");
        assert_eq!((files.rows(0), files.rows(1)), (vec![1], vec![1]));
        // Its connection is not kept, and a new one is refused before the first statement.
        let ticket = open(&files.databases, &[0, 1]).expect("nothing is sent yet");
        assert!(matches!(put(0, 2), Err(Error::NotAtomic { .. })));
        leave(ticket, Verdict::Undo).expect("undone");
        write(&files.paths[at], "PRAGMA journal_mode = DELETE");
    }
    write_both(&files).expect("committed");
    assert_eq!((files.rows(0), files.rows(1)), (vec![1, 2], vec![1, 2]));
}

#[test]
fn while_a_transaction_is_open_no_other_connection_can_switch_a_file_to_wal() {
    let files = used();
    let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
    put(0, 2).expect("a row");
    // The one that nothing was written to is locked as well.
    let switched = observer(&files.paths[1]).batch_execute("PRAGMA journal_mode = WAL");
    assert!(switched.is_err(), "BEGIN IMMEDIATE locks every file");
    leave(ticket, Verdict::Keep).expect("committed");
    assert_eq!(files.rows(0), [1, 2]);
}

#[test]
fn a_journal_that_the_body_takes_away_keeps_the_transaction_from_committing() {
    for mode in ["OFF", "MEMORY"] {
        let files = used();
        let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
        conn(1).batch_execute(&format!("PRAGMA multidb_1.journal_mode = {mode}")).expect("SQLite lets it");
        let written = put(0, 2).and_then(|_| put(1, 2));
        let ended = leave(ticket, Verdict::Keep);
        let Err(error @ Error::NotAtomic { .. }) = ended else { panic!("{mode}: {written:?} {ended:?}") };
        let text = error.to_string();
        assert!(text.contains(&format!("journal_mode = {}", mode.to_lowercase())), "{text}");
        assert_eq!(files.rows(0), [1], "{mode}");
        write_both(&files).expect("another connection");
    }
}

#[test]
fn a_table_that_appears_in_a_second_file_keeps_the_transaction_from_committing() {
    let files = used();
    write(&files.paths[1], "CREATE TABLE items_a (id BIGINT)");
    let error = write_both(&files).expect_err("`items_a` means the first of two");
    assert!(error.to_string().contains("`items_a` is in both `a` and `b`"), "{error}");
    write(&files.paths[1], "DROP TABLE items_a");
    // Made by the transaction itself.
    let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
    conn(1).batch_execute("CREATE TABLE multidb_1.items_a (id BIGINT)").expect("a table");
    assert!(matches!(leave(ticket, Verdict::Keep), Err(Error::NotAtomic { .. })));
    assert_eq!((files.rows(0), files.rows(1)), (vec![1], vec![1]));
    write_both(&files).expect("committed");
}

#[test]
fn a_transaction_on_one_file_is_asked_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    write(&path, "PRAGMA journal_mode = WAL; CREATE TABLE items_a (id BIGINT)");
    let databases = Databases::builder().sqlite("a", &path).build_lazy().expect("the database");
    let ticket = open(&databases, &[0, 0]).expect("a transaction");
    put(0, 1).expect("a row");
    leave(ticket, Verdict::Keep).expect("committed in WAL mode");
    assert_eq!(numbers(&mut observer(&path), "SELECT id AS n FROM items_a"), [1]);
}

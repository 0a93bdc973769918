//! What is refused when the connection of several files is asked for.

use super::*;

#[test]
fn a_file_in_wal_mode_is_refused_with_the_pragma_to_run() {
    let files = files(2);
    write(&files.paths[1], "PRAGMA journal_mode = WAL");
    let text = refusal(&files.databases, &[0, 1]);
    let path = files.paths[1].to_str().expect("a plain path");
    for part in ["databases `a`, `b`", &format!("`b` ({path}) is in WAL mode"), "PRAGMA journal_mode = DELETE"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("configuration"), "{text}");
    write(&files.paths[1], "PRAGMA journal_mode = DELETE");
    let ticket = open(&files.databases, &[0, 1]).expect("no refusal is kept");
    put(0, 1).expect("a row");
    put(1, 1).expect("a row");
    leave(ticket, Verdict::Keep).expect("committed");
    assert_eq!((files.rows(0), files.rows(1)), (vec![1], vec![1]));
}

#[test]
fn a_file_that_is_configured_for_wal_is_refused_with_the_key_to_change() {
    let files = files_with(2, |at, config| config.sqlite.journal_mode = (at == 0).then(|| "wal".to_owned()));
    let text = refusal(&files.databases, &[1, 0]);
    for part in ["`a` (", "a.db) is in WAL mode", "`sqlite.journal_mode = \"delete\"` for `a`", "PRAGMA journal_mode"] {
        assert!(text.contains(part), "{text}");
    }
    let mode = words(&mut observer(&files.paths[0]), "SELECT journal_mode AS word FROM pragma_journal_mode");
    assert_eq!(mode, ["delete"], "the file was left alone");
}

#[test]
fn a_database_in_memory_is_refused_wherever_it_stands() {
    let shared = format!("file:attached_{}?mode=memory&cache=shared", std::process::id());
    for url in [":memory:", "file::memory:", &*shared, "file:/never_there?vfs=memdb"] {
        let files = files(1);
        let memory = Databases::builder().sqlite("memory", url).sqlite("file", &files.paths[0]);
        let databases = memory.build_lazy().expect("the databases");
        for indices in [[0, 1], [1, 0]] {
            let text = refusal(&databases, &indices);
            assert!(text.contains("`memory`") && (text.contains("in memory") || text.contains("= memory")), "{text}");
        }
    }
}

#[test]
fn more_files_than_one_transaction_takes_are_refused() {
    let files = files(FILES_LIMIT + 1);
    let all: Vec<usize> = (0..=FILES_LIMIT).collect();
    let text = refusal(&files.databases, &all);
    assert!(text.contains("they are 11 files, and one transaction takes 10"), "{text}");
    let ticket = open(&files.databases, &all[..FILES_LIMIT]).expect("ten files");
    for at in 0..FILES_LIMIT {
        put(at, 1).expect("a row");
    }
    leave(ticket, Verdict::Keep).expect("committed");
    for at in 0..FILES_LIMIT {
        assert_eq!(files.rows(at), [1]);
    }
}

#[test]
fn a_name_in_two_files_is_refused_be_it_of_a_table_or_a_view() {
    for (first, second) in [
        ("CREATE TABLE notes (id BIGINT)", "CREATE TABLE Notes (id BIGINT)"),
        ("CREATE TABLE notes (id BIGINT)", "CREATE VIEW notes AS SELECT 1"),
        ("CREATE VIRTUAL TABLE notes USING fts5(text)", "CREATE TABLE notes (id BIGINT)"),
    ] {
        let files = files(3);
        write(&files.paths[1], first);
        write(&files.paths[2], second);
        let text = refusal(&files.databases, &[0, 1, 2]);
        assert!(text.contains("a table or view `notes` is in both `b` and `c`"), "{text}");
        files.databases.attached(&[0, 1]).expect("no clash in these two");
    }
}

#[test]
fn tables_of_ours_of_diesels_and_of_sqlites_may_be_in_every_file() {
    let files = files(2);
    for path in &files.paths {
        write(path, "CREATE TABLE __diesel_schema_migrations (version TEXT); CREATE TABLE multidb_once (id TEXT)");
        let name = path.file_stem().expect("a name").to_str().expect("plain").to_owned();
        write(path, &format!("CREATE TABLE counted_{name} (id INTEGER PRIMARY KEY AUTOINCREMENT); ANALYZE"));
    }
    files.databases.attached(&[0, 1]).expect("names that may be in both");
}

#[test]
fn what_is_no_sqlite_file_is_refused() {
    let files = files(1);
    let builder = Databases::builder().sqlite("a", &files.paths[0]).postgres("pg", "postgres://localhost:1/x");
    if let Ok(databases) = builder.build_lazy() {
        let text = refusal(&databases, &[0, 1]);
        assert!(text.contains("`pg` is PostgreSQL"), "{text}");
    }
}

#[test]
fn aliases_that_turn_out_to_be_one_file_are_refused_with_the_key_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("the file.db");
    let url = format!("file:{}/the%20file.db", folder.path().display());
    let databases = Databases::builder().sqlite("a", &path).sqlite("b", url).build().expect("the databases");
    assert!(!databases.are_same(0, 1), "otherwise they count once");
    let text = refusal(&databases, &[0, 1]);
    assert!(text.contains("are one file") && text.contains("`same_as = \"a\"` for `b`"), "{text}");
}

#[cfg(feature = "testing")]
#[test]
fn files_whose_work_a_test_rolls_back_are_refused_and_undeclared_ones_stay_undeclared() {
    let files = files(2);
    let (databases, _) = files.databases.for_test(true, None).expect("a test");
    assert!(refusal(&databases, &[0, 1]).contains("`testing::committed`"));
    let (databases, _) = files.databases.for_test(false, Some(&["a"])).expect("a test");
    let ticket = open(&databases, &[0, 1]).expect("nothing is sent yet");
    assert!(matches!(put(0, 1), Err(Error::Config { .. })), "`b` is not declared");
    leave(ticket, Verdict::Undo).expect("undone");
}

#[test]
fn a_file_that_can_not_be_opened_is_an_error_at_once() {
    let files = files(1);
    let missing = files.paths[0].with_file_name("no/such/folder.db");
    let databases = Databases::builder().sqlite("a", &files.paths[0]).sqlite("b", missing).build_lazy();
    let Err(error) = databases.expect("the databases").attached(&[0, 1]).map(|(_, order)| order) else {
        panic!("it is not there")
    };
    assert!(matches!(&error, Error::Pool { .. }) && error.to_string().contains("`a+b`"), "{error}");
}

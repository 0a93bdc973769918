//! What one COMMIT does to all the files.

use std::sync::Barrier;

use super::*;
use crate::connection::characteristics::Characteristics;
use crate::databases::{ATTACHED_POOL_SIZE, ATTACHED_SETS_LIMIT};

#[test]
fn a_transaction_over_two_or_three_files_is_committed_in_all_or_in_none() {
    for count in [2, 3] {
        let files = files(count);
        let all: Vec<usize> = (0..count).collect();
        for (id, verdict) in [(1, Verdict::Undo), (2, Verdict::Keep)] {
            let ticket = open(&files.databases, &all).expect("a transaction");
            for at in &all {
                put(*at, id).expect("a row");
            }
            leave(ticket, verdict).expect("ended");
        }
        for at in all {
            assert_eq!(files.rows(at), [2], "{}", NAMES[at]);
        }
    }
}

#[test]
fn a_reader_of_one_file_that_commit_can_not_wait_for_undoes_both() {
    let files = files(2);
    let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
    put(0, 1).expect("a row");
    put(1, 1).expect("a row");
    let reader = &mut observer(&files.paths[1]);
    reader.batch_execute("BEGIN; SELECT * FROM items_b").expect("a reader");
    conn(0).batch_execute("PRAGMA busy_timeout = 0").expect("no wait");
    assert!(matches!(leave(ticket, Verdict::Keep), Err(Error::Query(_))), "COMMIT has no lock on the second");
    reader.batch_execute("COMMIT").expect("the reader ends");
    assert_eq!((files.rows(0), files.rows(1)), (vec![], vec![]));
}

#[test]
fn a_reader_locks_all_files_at_once_so_that_a_commit_waits_for_it_and_never_it_for_the_commit() {
    let read_only = Limits { read_only: true, timeout: None };
    let files = files(2);
    let mut builder = Databases::builder();
    for (name, path) in NAMES.iter().zip(&files.paths) {
        let mut config = DatabaseConfig::new(*name, path.to_str().expect("a plain path"));
        config.sqlite.busy_timeout = Some("0s".to_owned());
        builder = builder.database(config);
    }
    let impatient = builder.build_lazy().expect("the databases");
    let start =
        Start { characteristics: Characteristics { limits: read_only, ..Characteristics::PLAIN }, ..Start::default() };
    let reader = open_with(&impatient, &[0, 1], &start).expect("a transaction");
    assert_eq!(numbers(&mut conn(1), "SELECT count(*) AS n FROM items_b"), [0]);
    std::thread::scope(|threads| {
        let databases = &files.databases;
        let writer = threads.spawn(move || {
            let ticket = open(databases, &[0, 1]).expect("a transaction");
            put(0, 1).expect("a row");
            put(1, 1).expect("a row");
            leave(ticket, Verdict::Keep)
        });
        // Until COMMIT lets no new reader in.
        while observer(&files.paths[0]).batch_execute("SELECT * FROM items_a").is_ok() {
            assert!(!writer.is_finished(), "it must wait for the reader");
        }
        assert_eq!(numbers(&mut conn(0), "SELECT count(*) AS n FROM items_a"), [0], "not from half of the commit");
        leave(reader, Verdict::Keep).expect("read");
        writer.join().expect("no panic").expect("committed when the reader had ended");
    });
    assert_eq!((files.rows(0), files.rows(1)), (vec![1], vec![1]));
}

#[cfg(feature = "testing")]
#[test]
fn a_failure_that_a_test_plans_for_either_database_happens() {
    use crate::connection::fault::{Fault, Point};
    let files = files(2);
    let (databases, faults) = files.databases.for_test(false, None).expect("a test");
    for (alias, faults) in &faults {
        faults.plan(Point::Commit, 0, Fault::Refused);
        let ticket = open(&databases, &[0, 1]).expect("a transaction");
        put(0, 1).expect("a row");
        assert!(leave(ticket, Verdict::Keep).is_err(), "{alias}");
        assert_eq!(faults.left(), 0);
    }
    assert_eq!(files.rows(0), Vec::<i64>::new());
}

#[test]
fn a_level_that_fails_is_undone_in_all_files() {
    let files = files(3);
    let outer = open(&files.databases, &[0, 1, 2]).expect("a transaction");
    put(0, 1).expect("a row");
    let inner = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
    for at in 0..3 {
        put(at, 2).expect("a row");
    }
    leave(inner, Verdict::Undo).expect("undone");
    let kept = nest(SITE, Kind::Scope, Limits::NONE).expect("a level");
    put(2, 3).expect("a row");
    leave(kept, Verdict::Keep).expect("kept");
    leave(outer, Verdict::Keep).expect("committed");
    assert_eq!((files.rows(0), files.rows(1), files.rows(2)), (vec![1], vec![], vec![3]));
}

#[test]
fn the_order_of_the_files_is_that_of_their_paths_however_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    #[cfg(unix)]
    std::os::unix::fs::symlink(path("1.db"), path("z.db")).expect("a link");
    write(&path("1.db"), "CREATE TABLE t (id BIGINT)");
    let builder = Databases::builder();
    let builder = builder.sqlite("third", path("3.db")).sqlite("first", path("z.db")).sqlite("second", path("2.db"));
    let databases = builder.build_lazy().expect("the databases");
    let (driver, order) = databases.attached(&[0, 1, 2]).expect("three files");
    assert_eq!(order, [1, 2, 0], "by what the link leads to");
    assert_eq!(driver.settings().alias.as_str(), "first+second+third");
    for indices in [[2, 1, 0], [1, 0, 2]] {
        let (again, order) = databases.attached(&indices).expect("three files");
        assert_eq!(order, [1, 2, 0]);
        assert!(Arc::ptr_eq(&driver, &again), "one pool for the set");
    }
    // Of a registry of another process.
    let databases = Databases::builder().sqlite("second", path("2.db")).sqlite("first", path("1.db"));
    let (_, order) = databases.build_lazy().expect("the databases").attached(&[0, 1]).expect("two files");
    assert_eq!(order, [1, 0]);
}

#[test]
fn two_threads_that_name_the_files_in_opposite_orders_both_commit() {
    const ROUNDS: i64 = 20;
    let files = files(2);
    let opposite = Databases::builder().sqlite("b", &files.paths[1]).sqlite("a", &files.paths[0]);
    let opposite = &opposite.build_lazy().expect("as another process may configure them");
    let barrier = &Barrier::new(2);
    std::thread::scope(|threads| {
        for (first, databases) in [(0, &files.databases), (1_000, opposite)] {
            threads.spawn(move || {
                for id in first..first + ROUNDS {
                    barrier.wait();
                    let ticket = open(databases, &[0, 1]).expect("a transaction");
                    for at in 0..2 {
                        put(at, id).expect("waits for the other thread");
                    }
                    leave(ticket, Verdict::Keep).expect("committed");
                }
            });
        }
    });
    let all: Vec<i64> = (0..ROUNDS).chain(1_000..1_000 + ROUNDS).collect();
    assert_eq!((files.rows(0), files.rows(1)), (all.clone(), all));
}

/// Leaves each route to its default.
struct NoOpinion;

impl crate::routing::Router for NoOpinion {}

#[test]
fn the_pool_of_a_set_is_small_and_shared() {
    let files = files_with(4, |at, config| config.pool.max_size = (at == 3).then_some(1));
    let (driver, _) = files.databases.attached(&[0, 1]).expect("two files");
    assert_eq!(driver.state().max_size, ATTACHED_POOL_SIZE);
    assert_eq!(driver.state().connections, 0, "none is opened before it is needed");
    let routed = files.databases.with_router(NoOpinion).attached(&[1, 0]).expect("two files").0;
    assert!(Arc::ptr_eq(&driver, &routed));
    assert!(Arc::ptr_eq(&driver, &files.databases.clone().attached(&[1, 0, 1]).expect("two files").0));
    let (other, _) = files.databases.attached(&[0, 2]).expect("two files");
    assert!(!Arc::ptr_eq(&driver, &other));
    assert_eq!(files.databases.attached(&[0, 3]).expect("two files").0.state().max_size, 1, "as one file wants it");
}

#[test]
fn pools_of_more_sets_than_are_kept_are_closed() {
    let files = files(10);
    let kept = files.databases.attached(&[0, 1]).expect("two files").0;
    let dropped = Arc::downgrade(&files.databases.attached(&[0, 2]).expect("two files").0);
    let pairs = (1..10).flat_map(|a| (a + 1..10).map(move |b| [a, b]));
    for pair in pairs.take(ATTACHED_SETS_LIMIT - 1) {
        files.databases.attached(&pair).expect("two files");
        assert!(Arc::ptr_eq(&kept, &files.databases.attached(&[0, 1]).expect("two files").0), "asked for just now");
    }
    assert!(dropped.upgrade().is_none(), "not asked for longest");
}

#[test]
fn aliases_of_one_file_count_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let builder =
        Databases::builder().sqlite("a", path("a.db")).sqlite("b", path("b.db")).sqlite("also_a", path("a.db"));
    let databases = builder.build().expect("the databases");
    assert_eq!(databases.attached(&[2, 1]).expect("two files").1, [0, 1]);
    let (driver, order) = databases.attached(&[2, 0]).expect("one file");
    assert_eq!(order, [0]);
    assert!(Arc::ptr_eq(&driver.pool(), &databases.at(0).driver().pool()), "the file's own pool");
}

#[test]
fn urls_and_paths_with_quotes_and_percent_signs_are_attached_as_they_stand() {
    let folder = tempfile::tempdir().expect("a folder");
    let odd = folder.path().join("it's \"50%25\"?x=1.db");
    let plain = folder.path().join("plain name.db");
    write(&odd, "CREATE TABLE items_a (id BIGINT)");
    write(&plain, "CREATE TABLE items_b (id BIGINT)");
    let url = format!("file:{}/plain%20name.db?mode=rw", folder.path().display());
    let builder =
        Databases::builder().sqlite("url", url).sqlite("odd", &odd).sqlite("third", folder.path().join("z.db"));
    let databases = builder.build_lazy().expect("the databases");
    let ticket = open(&databases, &[0, 1, 2]).expect("a transaction");
    put(0, 1).expect("a row");
    put(1, 2).expect("a row");
    leave(ticket, Verdict::Keep).expect("committed");
    assert_eq!(numbers(&mut observer(&odd), "SELECT id AS n FROM items_a"), [1]);
    assert_eq!(numbers(&mut observer(&plain), "SELECT id AS n FROM items_b"), [2]);
}

#[test]
fn each_file_has_its_own_journal_and_all_are_synced_as_a_decision_needs_it() {
    let files = files_with(3, |at, config| {
        config.sqlite.journal_mode = [None, Some("persist".to_owned()), Some("truncate".to_owned())][at].clone();
        config.sqlite.synchronous = Some("normal".to_owned());
    });
    let ticket = open(&files.databases, &[0, 1, 2]).expect("a transaction");
    let conn = &mut conn(0);
    for (schema, mode) in [("main", "delete"), ("multidb_1", "persist"), ("multidb_2", "truncate")] {
        let found: Vec<Word> =
            diesel::sql_query(format!("SELECT journal_mode AS word FROM pragma_journal_mode('{schema}')"))
                .load(conn)
                .expect("the mode");
        assert_eq!(found[0].word, mode);
        let level = |raw: &mut Raw| -> Result<i32, Error> {
            #[derive(QueryableByName)]
            struct Level {
                #[diesel(sql_type = diesel::sql_types::Integer)]
                synchronous: i32,
            }
            let found: Level = diesel::sql_query(format!("PRAGMA {schema}.synchronous")).get_result(raw)?;
            Ok(found.synchronous)
        };
        assert_eq!(conn.with_raw(level).expect("the level"), 3, "EXTRA");
    }
    leave(ticket, Verdict::Keep).expect("committed");
}

#[test]
fn foreign_keys_are_checked_in_every_file_where_one_asks_for_it() {
    for (configured, checked) in [([None, None], true), ([Some(false), None], true), ([Some(false); 2], false)] {
        let files = files_with(2, |at, config| config.sqlite.foreign_keys = configured[at]);
        write(&files.paths[1], "CREATE TABLE parts (item BIGINT NOT NULL REFERENCES items_b (id))");
        let ticket = open(&files.databases, &[0, 1]).expect("a transaction");
        let orphan = diesel::sql_query("INSERT INTO parts VALUES (7)").execute(&mut conn(1));
        assert_eq!(orphan.is_err(), checked, "{configured:?}");
        leave(ticket, Verdict::Undo).expect("undone");
    }
}

#[test]
fn own_tables_are_written_in_the_file_that_was_asked_for() {
    let files = files(3);
    for path in &files.paths {
        write(path, "CREATE TABLE multidb_decision (gid TEXT PRIMARY KEY, state TEXT NOT NULL)");
    }
    let ticket = open(&files.databases, &[0, 1, 2]).expect("a transaction");
    // A temporary table would come before those of the files.
    conn(0).batch_execute("CREATE TEMP TABLE multidb_decision (gid TEXT, state TEXT)").expect("a table");
    let slot = the_slot();
    let insert = "INSERT INTO multidb_decision (gid, state) VALUES (?, 'multidb_x')";
    slot.execute_own(insert, &["plain"]).expect("a row");
    for (file, gid) in [(0, "first"), (1, "second"), (2, "third")] {
        slot.execute_own_in(file, insert, &[gid]).expect("a row");
    }
    let select = "SELECT gid AS a, state AS b, NULL AS c FROM multidb_decision WHERE multidb_decision.gid = ?";
    assert_eq!(slot.load_own(select, &["plain"]).expect("read").len(), 1);
    let found = slot.load_own_in(2, select, &["third"]).expect("read");
    assert_eq!(found[0].b.as_deref(), Some("multidb_x"), "no text is rewritten");
    assert_eq!(slot.load_own_in(1, select, &["third"]).expect("read"), []);
    leave(ticket, Verdict::Keep).expect("committed");
    let gids =
        |at: usize| words(&mut observer(&files.paths[at]), "SELECT gid AS word FROM multidb_decision ORDER BY gid");
    assert_eq!((gids(0), gids(1), gids(2)), (words_of("first plain"), words_of("second"), words_of("third")));
}

fn words_of(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

//! Scopes that run once for each key.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, Error, Propagation, atomic, atomic_many, schema, scope, transactional};

use super::*;
use crate::fixture::Kind;

/// How many callers use one key at once, over two processes.
const CALLERS: usize = 100;

pub(super) fn with_tables() -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

/// Puts a row and gives its id, once for the key.
fn put_once(key: &str, id: i64) -> Result<i64, Mishap> {
    atomic::<Item>().label("put_once").once(key).run(|_: &mut H| {
        put(id, 0)?;
        Ok(id)
    })
}

fn ids(fixture: &Fixture) -> Vec<i64> {
    fixture.rows("default").into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_repeat_returns_the_stored_result_and_runs_nothing() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    assert_eq!(put_once("a", 1).unwrap(), 1);
    assert_eq!(put_once("a", 2).unwrap(), 1);
    assert_eq!(put_once("b", 3).unwrap(), 3);
    let texts = || atomic::<Item>().label("texts");
    let text: Result<Vec<String>, Mishap> =
        texts().once(7).run(|_: &mut H| Ok(vec!["ä'\"\\".to_owned(), String::new()]));
    let again = texts().once("7").run(|_: &mut H| -> Result<Vec<String>, Mishap> { panic!("must not run") });
    assert_eq!(text.unwrap(), again.unwrap());
    assert_eq!(ids(&fixture), [1, 3]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn keys_are_compared_byte_for_byte() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    for (id, key) in (1..).zip(["a", "A", "a ", "ä", "a\u{308}", " a"]) {
        assert_eq!(put_once(key, id).unwrap(), id, "{key:?}");
    }
    assert_eq!(ids(&fixture).len(), 6);
    let long = "k".repeat(scope::KEY_LIMIT);
    assert_eq!(put_once(&long, 7).unwrap(), 7);
    assert!(matches!(put_once(&format!("{long}k"), 8), Err(Mishap::Database(Error::Config { .. }))));
}

#[test]
fn an_error_is_not_stored_and_the_next_call_runs() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let failed = atomic::<Item>().label("put_once").once("a").run(|_: &mut H| {
        put(1, 0)?;
        Err::<i64, _>(Mishap::OnPurpose)
    });
    assert!(matches!(failed, Err(Mishap::OnPurpose)));
    let panicked = std::panic::catch_unwind(|| {
        atomic::<Item>().label("put_once").once("a").run(|_: &mut H| -> Result<i64, Mishap> { panic!("on purpose") })
    });
    assert!(panicked.is_err());
    assert_eq!(put_once("a", 2).unwrap(), 2);
    assert_eq!(ids(&fixture), [2]);
}

#[test]
fn a_key_that_was_claimed_in_a_level_goes_with_it() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    for propagation in [Propagation::Nested, Propagation::Join] {
        let run = atomic::<Item>().run(|_: &mut H| {
            let once = atomic::<Item>().label("put_once").propagation(propagation).once("a");
            once.run(|_: &mut H| put(1, 0).map(|()| 1).map_err(Mishap::from))?;
            // Within the transaction the key is taken.
            assert_eq!(put_once("a", 2)?, 1);
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    }
    let run = atomic::<Item>().run(|_: &mut H| put_once("a", 3));
    assert_eq!(run.unwrap(), 3);
    assert_eq!(put_once("a", 4).unwrap(), 3);
    assert_eq!(ids(&fixture), [3]);
}

#[test]
fn what_is_undone_on_purpose_gives_its_key_back() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let run = atomic::<Item>().label("put_once").once("a").run(|_: &mut H| {
        put(1, 0)?;
        scope::set_rollback(true)?;
        Ok::<_, Mishap>(1)
    });
    assert_eq!(run.unwrap(), 1);
    assert_eq!(put_once("a", 2).unwrap(), 2);
    assert_eq!(ids(&fixture), [2]);
}

#[test]
fn another_function_or_another_body_under_a_key_is_an_error() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let labelled = || atomic::<Item>().label("with_body");
    let with_body = |body: &[i64]| labelled().once(("a", body)).run(|_: &mut H| Ok::<_, Mishap>(body.len()));
    assert_eq!(with_body(&[1, 2]).unwrap(), 2);
    assert_eq!(with_body(&[1, 2]).unwrap(), 2);
    let Err(Mishap::Database(error)) = with_body(&[1, 3]) else { panic!("another body") };
    assert!(matches!(&error, Error::OnceMismatch { .. }) && error.to_string().contains("another body"), "{error}");
    let Err(Mishap::Database(error)) = put_once("a", 1) else { panic!("another function") };
    assert!(error.to_string().contains("used by `with_body`"), "{error}");
    // What is stored is no number.
    let read = labelled().once(("a", [1, 2])).run(|_: &mut H| Ok::<String, Mishap>(String::new()));
    let Err(Mishap::Database(error)) = read else { panic!("another type") };
    assert!(error.to_string().contains("can't read"), "{error}");
    assert!(ids(&fixture).is_empty());
}

/// Two that pay, each in its own way.
struct Card;
struct Bank<T>(T);

impl Card {
    #[transactional(Item, once = key)]
    fn pay(&self, key: &str) -> Result<String, Error> {
        Ok("card".into())
    }
}

impl<T: std::fmt::Display> Bank<T> {
    #[transactional(Item, once = key)]
    fn pay(&self, key: &str) -> Result<String, Error> {
        Ok(format!("bank {}", self.0))
    }
}

#[test]
fn methods_of_one_name_and_generic_ones_have_keys_of_their_own() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    assert_eq!(Card.pay("a").unwrap(), "card");
    assert_eq!(Card.pay("a").unwrap(), "card");
    for refused in [Bank(1).pay("a"), Bank("x").pay("a")] {
        assert!(matches!(refused, Err(Error::OnceMismatch { .. })), "{refused:?}");
    }
    assert_eq!(Bank(1).pay("b").unwrap(), "bank 1");
    assert_eq!(Bank(2).pay("b").unwrap(), "bank 1", "the same function with the same key");
    let refused = Bank("x").pay("b").unwrap_err().to_string();
    assert!(refused.contains("Bank<i32>::pay` before"), "{refused}");
}

#[test]
fn without_its_table_or_its_transaction_once_says_what_to_do() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let Err(Mishap::Database(error)) = put_once("a", 1) else { panic!("no table") };
    assert!(error.is_config() && error.to_string().contains("multidb::schema::install"), "{error}");
    schema::install(&databases).unwrap();
    for propagation in [Propagation::Supports, Propagation::Never, Propagation::NotSupported] {
        let scope = atomic::<Item>().propagation(propagation).once("a");
        let run = scope.run(|_: &mut H| -> Result<(), Error> { panic!("must not run") });
        assert!(matches!(run, Err(Error::OptionConflict { .. })), "{run:?}");
    }
    assert_eq!(put_once("a", 1).unwrap(), 1);
}

#[test]
fn installing_twice_and_at_once_makes_the_tables_once() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let report = schema::install(&databases).unwrap();
    assert!(report.applied().all(|(_, versions)| versions.len() == 4), "{report}");
    let report = schema::install(&databases).unwrap();
    assert!(report.applied().all(|(_, versions)| versions.is_empty()), "{report}");
    assert!(report.to_string().contains("`other`: up to date"), "{report}");

    let Some(fixture) = super::fixture() else { return };
    let databases = fixture.databases();
    let barrier = Barrier::new(4);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                barrier.wait();
                schema::install(&databases).unwrap();
            });
        }
    });
}

#[test]
fn the_key_of_several_models_lives_with_the_first() {
    let Some((fixture, databases)) = with_tables() else { return };
    let databases = databases.with_router(Together);
    let _entered = databases.enter();
    for _ in 0..2 {
        let run = atomic_many::<(Item, Record)>().once("a").run(|scope| {
            let mut conn = scope.conn::<Record, H>()?;
            diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(&mut conn)?;
            Ok::<_, Mishap>(5)
        });
        assert_eq!(run.unwrap(), 5);
    }
    assert_eq!(ids(&fixture), [1]);
}

/// Both models on one database.
struct Together;

impl multidb::Router for Together {}

#[test]
fn a_scope_with_a_key_can_be_run_again_too() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let attempts = Cell::new(0);
    let call = || {
        atomic::<Item>().once("a").retry(2).run(|conn: &mut H| {
            attempts.set(attempts.get() + 1);
            put(attempts.get(), 0)?;
            if attempts.get() == 1 {
                conn.batch_execute(match KIND {
                    Kind::Postgres => {
                        "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$"
                    }
                    Kind::Mysql => {
                        "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying'"
                    }
                    Kind::Sqlite => return Ok(attempts.get()),
                })?;
            }
            Ok::<_, Mishap>(attempts.get())
        })
    };
    let expected = if KIND == Kind::Sqlite { 1 } else { 2 };
    assert_eq!((call().unwrap(), call().unwrap()), (expected, expected));
    assert_eq!(ids(&fixture), [expected]);
}

#[test]
fn a_forgotten_key_is_free_again() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    assert_eq!(put_once("a", 1).unwrap(), 1);
    assert_eq!(scope::forget_once(&databases, scope::ONCE_RETENTION).unwrap(), 0);
    let old = "UPDATE multidb_once SET created = created - 100";
    fixture.observer("default").batch_execute(old).unwrap();
    assert_eq!(scope::forget_once(&databases, std::time::Duration::from_secs(50)).unwrap(), 1);
    assert_eq!(put_once("a", 2).unwrap(), 2);
    assert_eq!(ids(&fixture), [1, 2]);
}

#[test]
fn a_result_that_can_not_be_read_back_is_refused_before_it_is_committed() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let call = |result| {
        atomic::<Item>().once("a").run(|_: &mut H| {
            put(1, 0)?;
            Ok::<_, Error>(Even(result))
        })
    };
    assert!(matches!(call(1), Err(Error::OnceMismatch { .. })));
    assert!(ids(&fixture).is_empty());
    assert!(call(2).is_ok() && call(3).is_ok());
    assert_eq!(ids(&fixture), [1]);
}

/// A number that only an even one is read from.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(try_from = "i32")]
struct Even(i32);

impl TryFrom<i32> for Even {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        if number % 2 == 0 { Ok(Self(number)) } else { Err("it is odd".into()) }
    }
}

#[test]
fn a_repeat_gives_the_same_number_to_the_last_bit() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let call = |results: Vec<f64>| atomic::<Item>().once("a").run(|_: &mut H| Ok::<_, Error>(results));
    // Those that a reader in a hurry gets wrong.
    let numbers = vec![2.071_505_803_121_737e-62, 0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX];
    call(numbers.clone()).unwrap();
    assert_eq!(call(Vec::new()).unwrap(), numbers);
}

#[test]
fn a_scope_that_writes_nothing_can_have_no_key() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let refused = |propagation| {
        let scope = atomic::<Item>().read_only().propagation(propagation).once("a");
        let run = scope.run(|_: &mut H| -> Result<(), Error> { panic!("must not run") });
        assert!(run.as_ref().is_err_and(Error::is_config), "{run:?}");
        Ok::<_, Error>(())
    };
    for propagation in [Propagation::Nested, Propagation::Join] {
        refused(propagation).unwrap();
        atomic::<Item>().run(|_: &mut H| refused(propagation)).unwrap();
    }
}

#[test]
fn a_call_without_a_connection_waits_once() {
    /// Counts how often a scope is opened.
    struct Counts(Arc<AtomicU32>);

    impl multidb::Router for Counts {
        fn select_db(&self, _: &multidb::RouteRequest<'_>) -> multidb::Route {
            self.0.fetch_add(1, Ordering::SeqCst);
            multidb::Route::pass()
        }
    }

    let Some((fixture, _)) = with_tables() else { return };
    let opened = Arc::new(AtomicU32::new(0));
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    (config.pool.max_size, config.pool.connection_timeout) = (Some(1), Some("2s".into()));
    let databases = Databases::builder().database(config).router(Counts(Arc::clone(&opened))).build().unwrap();
    // Who waits for one that has panicked hears of it.
    let ((taken, is_taken), (done, is_done)) = (channel(), channel::<()>());
    let run = std::thread::scope(|threads| {
        let databases = &databases;
        threads.spawn(move || {
            let _entered = databases.enter();
            let holds = |_: &mut H| {
                put(1, 0)?;
                taken.send(()).unwrap();
                is_done.recv().unwrap();
                Ok::<_, Error>(())
            };
            atomic::<Item>().run(holds).unwrap();
        });
        is_taken.recv().unwrap();
        let _entered = databases.enter();
        opened.store(0, Ordering::SeqCst);
        let run = put_once("a", 2);
        done.send(()).unwrap();
        run
    });
    assert!(matches!(run, Err(Mishap::Database(Error::PoolExhausted { .. }))), "{run:?}");
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

fn call(databases: &Databases, runs: &AtomicU32, id: i64) -> i64 {
    let _entered = databases.enter();
    let run = atomic::<Item>().label("call").once("the key").run(|_: &mut H| {
        runs.fetch_add(1, Ordering::SeqCst);
        put(id, 0)?;
        Ok::<_, Mishap>(id)
    });
    run.unwrap()
}

/// Many callers at once; gives their results, and how often the body was run.
fn call_at_once(databases: &Databases, callers: usize, start: i64) -> (Vec<i64>, u32) {
    let (results, runs, barrier) = (Mutex::new(Vec::new()), AtomicU32::new(0), Barrier::new(callers));
    std::thread::scope(|threads| {
        for id in start..start + i64::try_from(callers).unwrap() {
            let (results, runs, barrier) = (&results, &runs, &barrier);
            threads.spawn(move || {
                barrier.wait();
                let result = call(databases, runs, id);
                results.lock().unwrap().push(result);
            });
        }
    });
    (results.into_inner().unwrap(), runs.into_inner())
}

/// The databases of a test with several processes: few connections for many callers.
fn few_connections(url: &str) -> Databases {
    let mut config = multidb::DatabaseConfig::new("default", url);
    config.pool.max_size = Some(8);
    Databases::builder().database(config).build().unwrap()
}

/// Runs [`another_process`] in a process of its own.
fn spawn(fixture: &Fixture, stop: &str) -> Child {
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::another_process"), "--exact", "--nocapture"])
        .envs([("MULTIDB_TEST_ONCE", &*fixture.urls[0]), ("MULTIDB_TEST_ONCE_STOP", stop)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for what the other process says after a mark.
fn heard(lines: &mut impl Iterator<Item = std::io::Result<String>>, mark: &str) -> String {
    let found = lines.map(Result::unwrap).find_map(|line| Some(line.split_once(mark)?.1.to_owned()));
    found.unwrap_or_else(|| panic!("the other process never said {mark}"))
}

/// The other process of the tests below. Run by itself it does nothing.
#[test]
fn another_process() {
    let Ok(url) = std::env::var("MULTIDB_TEST_ONCE") else { return };
    let stop = std::env::var("MULTIDB_TEST_ONCE_STOP").unwrap();
    let databases = few_connections(&url);
    if stop.is_empty() {
        println!("[ready]");
        let (results, runs) = call_at_once(&databases, CALLERS / 2, 1_000);
        println!("[results]{runs} {results:?}");
    } else {
        diesel::connection::set_default_instrumentation(|| Some(Box::new(Stop))).unwrap();
        let result = call(&few_connections(&url), &AtomicU32::new(0), 1);
        unreachable!("stopped before {result}");
    }
}

/// Stops the process for ever at the point that it was told.
struct Stop;

impl diesel::connection::Instrumentation for Stop {
    fn on_connection_event(&mut self, event: diesel::connection::InstrumentationEvent<'_>) {
        use diesel::connection::InstrumentationEvent::{FinishQuery, StartQuery};
        let (when, query) = match event {
            StartQuery { query, .. } => ("before", query.to_string()),
            FinishQuery { query, .. } => ("after", query.to_string()),
            _ => return,
        };
        let stop = std::env::var("MULTIDB_TEST_ONCE_STOP").unwrap();
        let mut words = stop.split(' ');
        if words.next() == Some(when) && words.all(|word| query.contains(word)) {
            println!("[stopped]");
            loop {
                std::thread::park();
            }
        }
    }
}

#[test]
fn a_hundred_callers_in_two_processes_run_the_body_once_and_all_get_its_result() {
    let Some((fixture, _)) = with_tables() else { return };
    let mut child = spawn(&fixture, "");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    heard(&mut lines, "[ready]");
    let (mut results, runs) = call_at_once(&few_connections(&fixture.urls[0]), CALLERS / 2, 1);
    let said = heard(&mut lines, "[results]");
    assert!(child.wait().unwrap().success());
    let (others, other_results) = said.split_once(' ').unwrap();
    results.extend(other_results.trim_matches(['[', ']']).split(", ").map(|id| id.parse::<i64>().unwrap()));
    assert_eq!((results.len(), runs + others.parse::<u32>().unwrap()), (CALLERS, 1));
    results.dedup();
    assert_eq!(results, ids(&fixture));
}

#[test]
fn after_a_kill_at_any_point_a_repeat_is_right() {
    for (point, committed) in [
        ("before INSERT multidb_once", false),
        ("after INSERT multidb_once", false),
        ("before INSERT items", false),
        ("after INSERT items", false),
        ("before UPDATE multidb_once", false),
        ("after UPDATE multidb_once", false),
        ("before COMMIT", false),
        ("after COMMIT", true),
    ] {
        let Some((fixture, _)) = with_tables() else { return };
        let mut child = spawn(&fixture, point);
        heard(&mut BufReader::new(child.stdout.take().unwrap()).lines(), "[stopped]");
        child.kill().unwrap();
        child.wait().unwrap();
        let (databases, runs) = (few_connections(&fixture.urls[0]), AtomicU32::new(0));
        let result = call(&databases, &runs, 2);
        assert_eq!((result, runs.into_inner()), if committed { (1, 0) } else { (2, 1) }, "{point}");
        assert_eq!(ids(&fixture), [result], "{point}");
        assert_eq!(call(&databases, &AtomicU32::new(0), 3), result, "{point}");
    }
}

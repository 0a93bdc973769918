//! Each propagation inside each other, against the table in `propagation.txt`.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use multidb::scope::{on_commit, on_rollback};
use multidb::{Atomic, Error, Propagation, atomic, atomic_on, connection, scope, transactional};

use super::*;
use crate::fixture::{Kind, PROPAGATION};

fn propagation(word: &str) -> Propagation {
    match word {
        "nested" => Propagation::Nested,
        "join" => Propagation::Join,
        "durable" => Propagation::Durable,
        "requires_new" => Propagation::RequiresNew,
        "mandatory" => Propagation::Mandatory,
        "supports" => Propagation::Supports,
        "never" => Propagation::Never,
        "not_supported" => Propagation::NotSupported,
        other => panic!("no propagation: {other}"),
    }
}

fn outer_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "opens" => &["nested", "join", "durable", "requires_new"],
        "autocommits" => &["supports", "never", "not_supported"],
        other => panic!("no kind: {other}"),
    }
}

fn word(result: &Result<(), Mishap>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(Mishap::OnPurpose) => "purpose".into(),
        Err(Mishap::Database(Error::Doomed { .. })) => "doomed".into(),
        Err(Mishap::Database(Error::Durable { .. })) => "durable".into(),
        Err(Mishap::Database(Error::Mandatory { .. })) => "mandatory".into(),
        Err(Mishap::Database(Error::Never { .. })) => "never".into(),
        Err(other) => format!("{other:?}"),
    }
}

fn insert(conn: &mut H, id: i64) -> Result<(), Mishap> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
    Ok(())
}

fn listed<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "-".into() } else { words.join(",") }
}

/// What has run, in order.
type Log = Rc<RefCell<Vec<&'static str>>>;

/// Puts a row, and registers a hook of each kind.
fn insert_and_hook(conn: &mut H, id: i64, log: &Log, hooks: [&'static str; 2]) -> Result<(), Mishap> {
    insert(conn, id)?;
    let [committed, rolled_back] = hooks.map(|name| {
        let log = Rc::clone(log);
        move || log.borrow_mut().push(name)
    });
    on_commit(committed);
    on_rollback(rolled_back);
    Ok(())
}

/// What the database holds, which hooks ran, and what the two scopes returned.
type Left = (String, String, String, String);

/// Runs one line. `observers` see the databases in which the rows are.
fn run(observers: &mut [Raw], outer: &Atomic, inner: &Atomic, fails: &str) -> Left {
    let (mut inner_returned, log) = (String::new(), Log::default());
    let outer_returned = outer.clone().run(|conn: &mut H| {
        insert_and_hook(conn, 1, &log, ["c1", "r1"])?;
        let inner = inner.clone().run(|conn: &mut H| {
            insert_and_hook(conn, 2, &log, ["c2", "r2"])?;
            if matches!(fails, "inner" | "swallowed") { Err(Mishap::OnPurpose) } else { Ok(()) }
        });
        inner_returned = word(&inner);
        if fails != "swallowed" {
            inner?;
        }
        if fails == "outer" { Err(Mishap::OnPurpose) } else { Ok(()) }
    });
    let mut rows: Vec<i64> =
        observers.iter_mut().flat_map(|raw| items::table.select(items::id).load(raw).unwrap()).collect();
    rows.sort_unstable();
    let rows: Vec<String> = rows.iter().map(i64::to_string).collect();
    (listed(&rows), listed(&log.take()), inner_returned, word(&outer_returned))
}

#[test]
fn every_pair_of_propagations_keeps_the_rows_and_runs_the_hooks_of_the_table() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    // The same two for all lines: to connect takes longer than a line.
    let mut observers = ["default", "other"].map(|alias| fixture.observer(alias));
    let mut lines = 0;
    for line in PROPAGATION.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [kind, inner, fails, rows, hooks, inner_returns, outer_returns] =
            line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        let want: Left = (rows.into(), hooks.into(), inner_returns.into(), outer_returns.into());
        // On SQLite the outer scope holds the file's only write lock, so an independent write goes to the other file.
        let apart = KIND == Kind::Sqlite && matches!(inner, "requires_new" | "not_supported");
        let inner = atomic_on(if apart { "other" } else { "default" }).propagation(propagation(inner));
        for outer in outer_of(kind) {
            let seen = &mut observers[..if apart { 2 } else { 1 }];
            let got = run(seen, &atomic_on("default").propagation(propagation(outer)), &inner, fails);
            assert_eq!(got, want, "{outer}: {line}");
            assert_eq!(
                (scope::depth(), in_use(&databases, "default"), in_use(&databases, "other")),
                (0, 0, 0),
                "{line}"
            );
            for observer in &mut observers {
                diesel::delete(items::table).execute(observer).unwrap();
            }
        }
        lines += 1;
    }
    assert_eq!(lines, 2 * 8 * 4, "the table is complete");
}

/// Both models on `default`.
struct Together;

impl multidb::Router for Together {}

#[test]
fn the_table_holds_in_every_layout_of_two_models_or_the_inner_scope_is_not_atomic() {
    let Some(fixture) = fixture() else { return };
    let mut twice = multidb::DatabaseConfig::new("other", fixture.urls[0].clone());
    twice.pool.max_size = Some(4);
    for (layout, databases) in [
        ("merged", fixture.databases().with_router(Together)),
        ("two aliases of one database", fixture.builder(4).database(twice).build().unwrap()),
        ("split", fixture.databases()),
    ] {
        multidb::schema::install(&databases).unwrap();
        let _entered = databases.enter();
        let split = layout == "split" && KIND == Kind::Sqlite;
        let mut observers = ["default", "other"].map(|alias| fixture.observer(alias));
        let mut refused = 0;
        for line in PROPAGATION.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let [kind, inner, fails, rows, hooks, inner_returns, outer_returns] =
                line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            if !split && KIND == Kind::Sqlite && matches!(inner, "requires_new" | "not_supported") {
                // It has one write lock, which the outer scope holds.
                continue;
            }
            let inner = atomic::<Record>().propagation(propagation(inner));
            for outer in outer_of(kind) {
                let got = run(&mut observers, &atomic::<Item>().propagation(propagation(outer)), &inner, fails);
                let want: Left = (rows.into(), hooks.into(), inner_returns.into(), outer_returns.into());
                if split && got.2.contains("NotAtomic") {
                    refused += 1;
                    let (rows, hooks) = if fails == "swallowed" { ("1", "c1") } else { ("-", "r1") };
                    assert_eq!((&*got.0, &*got.1), (rows, hooks), "{layout}, {outer}: {line}");
                } else {
                    assert_eq!(got, want, "{layout}, {outer}: {line}");
                }
                for observer in &mut observers {
                    diesel::delete(items::table).execute(observer).unwrap();
                }
            }
        }
        // Each of the four outer scopes that open one, with `nested`, `join`, `mandatory` and `supports`.
        assert_eq!(refused, if split { 4 * 4 * 4 } else { 0 }, "{layout}");
    }
}

#[test]
fn a_mandatory_scope_outside_of_any_transaction_is_an_error_and_runs_nothing() {
    #[transactional(Item, propagation = mandatory)]
    fn inner() -> Result<(), Error> {
        panic!("must not run")
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let text = inner().unwrap_err().to_string();
    assert!(text.contains("`inner`") && text.contains("transactional"), "{text}");
}

#[test]
fn a_swallowed_sql_error_in_a_joined_scope_dooms_the_level_that_it_joined() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(2, 20)?;
        let level = atomic::<Item>().run(|_: &mut H| {
            atomic::<Item>().propagation(Propagation::Join).run(|conn: &mut H| {
                assert_eq!(scope::depth(), 2);
                put(3, 30)?;
                assert!(insert(conn, 1).is_err());
                Ok::<_, Mishap>(())
            })
        });
        assert_eq!(word(&level), "doomed");
        put(4, 40).map_err(Mishap::from)
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn inside_not_supported_no_transaction_is_seen_and_a_nested_scope_opens_its_own() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        atomic::<Record>().propagation(Propagation::NotSupported).run(|_: &mut H| {
            assert_eq!((scope::depth(), scope::current()), (0, None));
            put_record(2, 20)?;
            assert_eq!(fixture.rows("other"), [(2, 20)]);
            insert(&mut connection::<Record, H>()?, 3)
        })?;
        assert_eq!(scope::depth(), 1);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![(2, 20), (3, 0)]));
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
}

#[test]
fn a_panic_in_each_propagation_leaves_nothing_open() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for inner in ["nested", "join", "requires_new", "supports", "not_supported"] {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            atomic::<Item>().run(|_: &mut H| {
                put(1, 10)?;
                let inner = atomic::<Item>().propagation(propagation(inner));
                inner.run(|_: &mut H| -> Result<(), Mishap> { panic!("on purpose") })
            })
        }));
        // On SQLite the outer scope holds the file's only write lock, and an independent transaction is refused.
        let refused = KIND == Kind::Sqlite && inner == "requires_new";
        assert_eq!(panicked.is_err(), !refused, "{inner}");
        assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0), "{inner}");
        assert_eq!(fixture.rows("default"), [], "{inner}");
    }
}

//! Transactions on two databases: all or nothing, whatever the outermost scope lists.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use multidb::{
    CrossDatabase, Databases, Error, Propagation, atomic, atomic_many, connection, schema, scope, transactional,
};

use super::*;
use crate::fixture::Kind;

/// The databases with the library's tables, and the observer's view of these.
fn installed() -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.databases();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// How many rows of the library's stand in a database, in these tables.
pub(crate) fn own_rows(fixture: &Fixture, alias: &str) -> i64 {
    let count = |table| {
        let query = format!("SELECT COUNT(*) AS n FROM {table}");
        diesel::sql_query(query).get_result::<Count>(&mut fixture.observer(alias)).unwrap().n
    };
    count("multidb_decision") + count("multidb_receipt")
}

/// Every connection is back in its pool and fit for use.
fn all_are_back(databases: &Databases) {
    assert_eq!((in_use(databases, "default"), in_use(databases, "other")), (0, 0));
}

#[transactional(Item, Record)]
fn put_both(#[conn(Item)] item: &mut H, #[conn(Record)] record: &mut H, id: i64, fails: bool) -> Result<(), Mishap> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(10))).execute(item)?;
    if super::KIND == Kind::Sqlite {
        // One table name in two files would be ambiguous: the other file has its own tables, made by each test.
        let _ = record;
        return if fails { Err(Mishap::OnPurpose) } else { Ok(()) };
    }
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(20))).execute(record)?;
    if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
}

fn is_server() -> bool {
    super::KIND != Kind::Sqlite
}

#[test]
fn listed_models_of_two_databases_are_committed_on_both_or_on_none() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    put_both(1, false).unwrap();
    assert!(matches!(put_both(2, true), Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert_eq!(fixture.rows("other"), [(1, 20)]);
    all_are_back(&databases);
}

#[test]
fn a_nested_scope_on_another_database_commits_with_the_outer_one() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let run = |id: i64, fails: bool| {
        atomic::<Item>().run(|_: &mut H| {
            put(id, 10)?;
            put_record(id, 20)?;
            assert_eq!(fixture.rows("other").len(), usize::from(id > 1), "not committed by itself");
            if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
        })
    };
    run(1, false).unwrap();
    run(2, true).unwrap_err();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(1, 20)]));
    all_are_back(&databases);
}

#[test]
fn a_single_file_of_sqlite_that_is_needed_later_is_refused_before_anything_is_sent_to_it() {
    let Some((fixture, databases)) = installed().filter(|_| !is_server()) else { return };
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        let error = put_record(2, 20).unwrap_err();
        let text = error.to_string();
        let Error::NotAtomic { databases: involved, .. } = error else { panic!("{text}") };
        assert_eq!(involved, ["default", "other"]);
        for named in ["put_record", "atomic", "requires_new", "`Record`", "#[transactional(..)]"] {
            assert!(text.contains(named), "{named} is missing in: {text}");
        }
        assert!(matches!(connection::<Record, H>(), Err(Error::NotAtomic { .. })));
        put(1, 10)
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![]));
}

#[test]
fn where_the_configuration_refuses_it_no_second_database_joins() {
    let Some((fixture, _)) = installed() else { return };
    let databases = fixture.builder(2).cross_database(CrossDatabase::Refuse).build().unwrap();
    let _entered = databases.enter();
    let text = put_both(1, false).unwrap_err().to_string();
    for named in ["put_both", "`default`", "`other`", "cross_database", "requires_new"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
    let run = atomic::<Item>().run(|_: &mut H| {
        let text = put_record(2, 20).unwrap_err().to_string();
        assert!(text.contains("cross_database"), "{text}");
        put(1, 10)
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![]));
}

#[test]
fn where_one_database_alone_has_written_nothing_of_the_library_is_written() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let write = |id: i64, home: bool, other: bool| {
        atomic_many::<(Item, Record)>().run(|scope| {
            let (mut first, mut second) = (scope.conn::<Item, H>()?, scope.conn::<Record, H>()?);
            for (conn, writes) in [(&mut first, home), (&mut second, other)] {
                items::table.count().get_result::<i64>(conn)?;
                if writes {
                    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
                }
            }
            Ok::<_, Mishap>(())
        })
    };
    write(1, true, false).unwrap();
    write(2, false, true).unwrap();
    write(3, false, false).unwrap();
    // MariaDB doesn't tell who has only read, so there both count as writers.
    let told = super::KIND == Kind::Postgres;
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 0)], vec![(2, 0)]));
    assert_eq!(own_rows(&fixture, "default") + own_rows(&fixture, "other"), if told { 0 } else { 6 });
    // An empty one, and one that touches one database alone.
    atomic_many::<(Item, Record)>().run(|_| Ok::<_, Error>(())).unwrap();
    let alone = |model: bool| {
        atomic_many::<(Item, Record)>().run(|scope| {
            let mut conn = if model { scope.conn::<Item, H>()? } else { scope.conn::<Record, H>()? };
            diesel::insert_into(items::table).values((items::id.eq(9), items::value.eq(0))).execute(&mut conn)?;
            Ok::<_, Mishap>(())
        })
    };
    let before = own_rows(&fixture, "default") + own_rows(&fixture, "other");
    alone(true).unwrap();
    alone(false).unwrap();
    assert_eq!(own_rows(&fixture, "default") + own_rows(&fixture, "other"), before);
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (2, 2));
    all_are_back(&databases);
}

#[test]
fn a_level_that_fails_takes_the_database_with_it_that_joined_in_it() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let inner = atomic::<Item>().run(|_: &mut H| {
            put(2, 20)?;
            put_record(2, 20)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(inner, Err(Mishap::OnPurpose)));
        assert_eq!(in_use(&databases, "other"), 0, "it is no part of the transaction any more");
        // It may join again, under another number.
        atomic::<Item>().run(|_: &mut H| put_record(3, 30))?;
        let again = atomic::<Record>().run(|_: &mut H| {
            put_record(4, 40)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(again, Err(Mishap::OnPurpose)));
        put_record(5, 50)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(3, 30), (5, 50)]));
    all_are_back(&databases);
}

#[test]
fn while_a_transaction_is_doomed_another_database_joins_it_without_being_sent_anything() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let doomed = |conn: &mut H| {
        let refused = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(conn);
        assert!(refused.is_err(), "a duplicate");
        let conn = &mut connection::<Record, H>()?;
        let next = items::table.count().get_result::<i64>(conn).map_err(Error::from);
        assert!(matches!(next, Err(Error::Doomed { .. })), "{next:?}");
        let inner = put_record(2, 20);
        assert!(matches!(inner, Err(Error::Doomed { .. })), "{inner:?}");
        Ok::<_, Error>(())
    };
    let run = atomic::<Item>().run(|_: &mut H| {
        let level = atomic::<Item>().run(|conn: &mut H| doomed(conn));
        assert!(matches!(level, Err(Error::Doomed { .. })), "{level:?}");
        put_record(3, 30)?;
        if super::KIND == Kind::Postgres {
            // What the first attempt to join could not send is sent by the next.
            let limited = "SELECT COUNT(*) AS n FROM pg_settings WHERE name = 'lock_timeout' AND setting <> '0'";
            let limited: Count = diesel::sql_query(limited).get_result(&mut connection::<Item, H>()?)?;
            assert_eq!(limited.n, 1);
        }
        put(3, 30)
    });
    run.unwrap();
    let manual = atomic::<Item>().manual().run(|conn: &mut H| {
        doomed(conn)?;
        scope::rollback()?;
        put(4, 40)?;
        put_record(4, 40)?;
        scope::commit()?;
        put(5, 50)?;
        put_record(5, 50)?;
        scope::rollback()
    });
    manual.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30), (4, 40)]);
    assert_eq!(fixture.rows("other"), [(3, 30), (4, 40)]);
    assert_eq!(own_rows(&fixture, "default"), 2, "each commit was one of both");
    all_are_back(&databases);
}

#[test]
fn set_rollback_dooms_and_panics_undo_both_databases() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let marked = atomic_many::<(Item, Record)>().run(|_| {
        put(2, 20)?;
        put_record(2, 20)?;
        scope::set_rollback(true)?;
        Ok::<_, Error>(7)
    });
    assert_eq!(marked.unwrap(), 7);
    let doomed = atomic_many::<(Item, Record)>().run(|scope| {
        put_record(3, 30)?;
        let conn = &mut scope.conn::<Item, H>()?;
        let refused = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(conn);
        assert!(refused.is_err(), "a duplicate");
        Ok::<_, Error>(())
    });
    assert!(matches!(doomed, Err(Error::Doomed { .. })), "{doomed:?}");
    let panicked = std::panic::catch_unwind(|| {
        atomic_many::<(Item, Record)>().run(|_| -> Result<(), Error> {
            put(4, 40)?;
            put_record(4, 40)?;
            panic!("on purpose")
        })
    });
    assert!(panicked.is_err());
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![]));
    assert_eq!(own_rows(&fixture, "default") + own_rows(&fixture, "other"), 0);
    all_are_back(&databases);
}

#[test]
fn hooks_run_once_after_both_databases_are_committed() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (rows, urls) = (Rc::clone(&seen), fixture.urls.clone());
    let run = atomic_many::<(Item, Record)>().run(|_| {
        scope::on_commit(move || {
            let count = |url: &String| items::table.count().get_result::<i64>(&mut Raw::establish(url).unwrap());
            rows.borrow_mut().push(urls.each_ref().map(|url| count(url).unwrap()));
        });
        put(1, 10)?;
        put_record(1, 10)
    });
    run.unwrap();
    assert_eq!(*seen.borrow(), [[1, 1]]);
}

#[test]
fn a_manual_scope_commits_both_databases_each_time() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().manual().run(|_| {
        put(1, 10)?;
        put_record(1, 10)?;
        scope::commit()?;
        assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (1, 1));
        put(2, 20)?;
        put_record(2, 20)?;
        scope::rollback()?;
        put_record(3, 30)?;
        put(3, 30)?;
        scope::commit()?;
        put(4, 40)?;
        put_record(4, 40)?;
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::PendingWork { .. })), "{run:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10), (3, 30)], vec![(1, 10), (3, 30)]));
    all_are_back(&databases);
}

#[test]
fn an_independent_transaction_is_none_of_the_two() {
    let Some((fixture, databases)) = installed().filter(|_| is_server()) else { return };
    let _entered = databases.enter();
    let run = atomic_many::<(Item, Record)>().run(|_| {
        put(1, 10)?;
        put_record(1, 10)?;
        atomic::<Record>().propagation(Propagation::RequiresNew).run(|_: &mut H| put_record(2, 20))?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)));
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![(2, 20)]));
}

#[test]
fn a_read_only_scope_on_two_databases_writes_nothing_of_the_library() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put_record(2, 20).unwrap();
    let run = atomic_many::<(Item, Record)>().read_only().run(|scope| {
        let found: Vec<i64> = items::table.select(items::id).load(&mut scope.conn::<Item, H>()?)?;
        let other: Vec<i64> = items::table.select(items::id).load(&mut scope.conn::<Record, H>()?)?;
        Ok::<_, Mishap>((found, other))
    });
    assert_eq!(run.unwrap(), (vec![1], vec![2]));
    let refused = atomic_many::<(Item, Record)>().read_only().run(|scope| {
        let conn = &mut scope.conn::<Record, H>()?;
        diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(conn)?;
        Ok::<_, Error>(())
    });
    assert!(refused.is_err());
    assert_eq!(fixture.rows("other"), [(2, 20)]);
    assert_eq!(own_rows(&fixture, "default") + own_rows(&fixture, "other"), 0);
}

#[test]
fn what_is_only_read_there_may_join_without_being_able_to_prepare() {
    let Some((fixture, databases)) = installed().filter(|_| !is_server()) else { return };
    let _entered = databases.enter();
    put_record(2, 20).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let read = atomic::<Record>()
            .read_only()
            .run(|conn: &mut H| Ok::<Vec<i64>, Mishap>(items::table.select(items::id).load(conn)?))?;
        assert_eq!(read, [2]);
        let text = put_record(3, 30).unwrap_err().to_string();
        assert!(text.contains("read_only") && text.contains("`other`"), "{text}");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(2, 20)]));
    all_are_back(&databases);
}

#[test]
fn without_the_librarys_tables_the_error_says_what_to_call_and_nothing_is_kept() {
    let Some(fixture) = fixture().filter(|_| is_server()) else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let text = put_both(1, false).unwrap_err().to_string();
    assert!(text.contains("schema::install"), "{text}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    all_are_back(&databases);
}

#[test]
fn a_copy_of_another_environment_is_refused() {
    let Some((fixture, _)) = installed().filter(|_| is_server()) else { return };
    let databases = fixture.builder(2).environment("staging").build().unwrap();
    let _entered = databases.enter();
    let text = put_both(1, false).unwrap_err().to_string();
    for named in ["`default`", "`staging`", "adopt"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
}

#[test]
fn rows_that_prove_commits_are_deleted_by_the_hundred() {
    let Some((fixture, databases)) = installed() else { return };
    let _entered = databases.enter();
    let verified = |id| atomic::<Item>().verify_commit().run(|_: &mut H| put(id, 0));
    (1..100).for_each(|id| verified(id).unwrap());
    assert_eq!(own_rows(&fixture, "default"), 99, "somebody may ask");
    verified(100).unwrap();
    assert_eq!((own_rows(&fixture, "default"), fixture.rows("default").len()), (0, 100));
}

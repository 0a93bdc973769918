//! What is sent, and when: levels are opened by the first statement in them, and RELEASE waits.

use diesel::connection::Connection;
use diesel::prelude::*;
use multidb::{Error, atomic, connection};

use super::*;
use crate::fixture::Kind;
use crate::recorder::Recorder;

const BEGIN: &str = match KIND {
    Kind::Sqlite => "BEGIN IMMEDIATE",
    Kind::Postgres => "BEGIN",
    Kind::Mysql => "START TRANSACTION; SAVEPOINT multidb_0",
};
const COMMIT: &str = match KIND {
    Kind::Mysql => "RELEASE SAVEPOINT multidb_0; COMMIT",
    _ => "COMMIT",
};
const ROLLBACK: &str = match KIND {
    Kind::Mysql => "ROLLBACK TO SAVEPOINT multidb_0; ROLLBACK",
    _ => "ROLLBACK",
};

/// The control statements that `body` sends, with `.` for any other statement.
fn sent(fixture: &Fixture, body: impl FnOnce(&mut H) -> Result<(), Mishap>) -> (Vec<String>, Result<(), Mishap>) {
    let _entered = fixture.databases().enter();
    let recorder = Recorder::default();
    let result = atomic::<Item>().run(|conn: &mut H| {
        conn.set_instrumentation(recorder.clone());
        body(conn)
    });
    let control = ["BEGIN", "START", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT"];
    let sent = recorder.take().into_iter().map(|text| {
        if control.iter().any(|word| text.starts_with(word)) {
            text.replace(" TO SAVEPOINT", " TO").replace("RELEASE SAVEPOINT", "RELEASE")
        } else {
            ".".into()
        }
    });
    (sent.collect(), result)
}

fn expected(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.replace(" TO SAVEPOINT", " TO").replace("RELEASE SAVEPOINT", "RELEASE")).collect()
}

fn touch(conn: &mut H) -> Result<(), Mishap> {
    items::table.count().get_result::<i64>(conn)?;
    Ok(())
}

#[test]
fn an_empty_scope_sends_nothing_and_takes_no_connection() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build_lazy().unwrap();
    let _entered = databases.enter();
    atomic::<Item>().run(|_: &mut H| atomic::<Item>().run(|_: &mut H| Ok::<_, Error>(()))).unwrap();
    let failed = atomic::<Item>().run(|_: &mut H| Err::<(), _>(Mishap::OnPurpose));
    assert!(failed.is_err());
    assert_eq!(databases.database("default").unwrap().pool_state().connections, 0);
}

#[test]
fn a_statement_opens_all_pending_levels_in_one_batch() {
    let Some(fixture) = fixture() else { return };
    let (sent, result) = sent(&fixture, |conn| conn.transaction(|conn| conn.transaction(touch)));
    result.unwrap();
    let begin = format!("{BEGIN}; SAVEPOINT multidb_2; SAVEPOINT multidb_3");
    let rest: &[&str] = match KIND {
        Kind::Mysql => &[".", "RELEASE multidb_3", "RELEASE multidb_2", COMMIT],
        _ => &[".", COMMIT],
    };
    assert_eq!(sent, expected(&[&[&begin[..]], rest].concat()));
}

#[test]
fn a_release_rides_with_the_next_level_or_not_at_all() {
    let Some(fixture) = fixture() else { return };
    let (sent, result) = sent(&fixture, |conn| {
        touch(conn)?;
        conn.transaction(touch)?;
        touch(conn)?;
        conn.transaction(touch)?;
        conn.transaction(|_| Ok(()))
    });
    result.unwrap();
    let want: &[&str] = match KIND {
        Kind::Mysql => &[
            BEGIN,
            ".",
            "SAVEPOINT multidb_2",
            ".",
            "RELEASE multidb_2",
            ".",
            "SAVEPOINT multidb_2",
            ".",
            "RELEASE multidb_2",
            COMMIT,
        ],
        Kind::Postgres | Kind::Sqlite => {
            &[BEGIN, ".", "SAVEPOINT multidb_2", ".", ".", "RELEASE multidb_2; SAVEPOINT multidb_2", ".", COMMIT]
        }
    };
    assert_eq!(sent, expected(want));
}

#[test]
fn only_levels_that_the_server_has_are_rolled_back() {
    let Some(fixture) = fixture() else { return };
    let fail = |_: &mut H| Err::<(), _>(Mishap::OnPurpose);
    let (sent, result) = sent(&fixture, |conn| {
        touch(conn)?;
        let _ = conn.transaction(fail);
        let _ = conn.transaction(|conn| {
            touch(conn)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        Err(Mishap::OnPurpose)
    });
    assert!(matches!(result, Err(Mishap::OnPurpose)));
    let undo = match KIND {
        Kind::Mysql => "ROLLBACK TO multidb_2; RELEASE multidb_2",
        _ => "ROLLBACK TO multidb_2",
    };
    assert_eq!(sent, expected(&[BEGIN, ".", "SAVEPOINT multidb_2", ".", undo, ROLLBACK]));
}

#[test]
fn levels_nest_to_their_limit_and_an_endless_recursion_is_an_error() {
    fn descend(left: u32) -> Result<u32, Error> {
        if left == 0 {
            return Ok(0);
        }
        atomic::<Item>().run(|_: &mut H| descend(left - 1)).map(|below| below + 1)
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let databases = fixture.databases();
    let ran = thread.spawn(move || {
        let _entered = databases.enter();
        assert_eq!(descend(1_000).unwrap(), 1_000);
        assert!(matches!(descend(1_001), Err(Error::LimitExceeded { limit: 1_000, .. })));
    });
    ran.unwrap().join().unwrap();
}

#[test]
fn an_autocommit_handle_sends_its_statement_and_nothing_else() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let recorder = Recorder::default();
    let mut conn = connection::<Item, H>().unwrap();
    conn.set_instrumentation(recorder.clone());
    assert_eq!(databases.database("default").unwrap().pool_state().connections, 0);
    diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(10))).execute(&mut conn).unwrap();
    assert_eq!(recorder.take().len(), 1);
    assert_eq!(in_use(&databases, "default"), 0);
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

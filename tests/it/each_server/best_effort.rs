//! Replies of a commit in parts that get lost on the network, on servers that see what the library sends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{CommitMode, Error, atomic, atomic_many, connection, scope};

use super::in_doubt::Far;
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::Loses;

const COMMIT: &[u8] = b"COMMIT";

/// What a server has sent once it has answered the first statement of a batch: on MariaDB a RELEASE goes ahead.
const REPLY: Loses = Loses::ReplyAfter(if matches!(KIND, Kind::Mysql) { 11 } else { 0 });

/// What a caller sees: the result, how often the body ran, and which hooks.
struct Seen {
    result: Result<(), Error>,
    runs: u32,
    hooks: Vec<&'static str>,
}

impl Far {
    /// Puts a row into each database, and tries again where that is allowed.
    fn put_in_parts(&self, id: i64) -> Seen {
        let (runs, hooks) = (Cell::new(0), Rc::new(RefCell::new(Vec::new())));
        let _entered = self.databases.enter();
        let result = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).retry(2).run(|_| {
            runs.set(runs.get() + 1);
            let [committed, rolled_back] = [Rc::clone(&hooks), Rc::clone(&hooks)];
            scope::on_commit(move || committed.borrow_mut().push("committed"));
            scope::on_rollback(move || rolled_back.borrow_mut().push("rolled back"));
            put(id, 10)?;
            put_record(id, 20)
        });
        let hooks = hooks.take();
        Seen { result, runs: runs.get(), hooks }
    }

    fn has(&self, id: i64) -> [bool; 2] {
        ["default", "other"].map(|alias| self.fixture.rows(alias).iter().any(|row| row.0 == id))
    }

    /// Nothing of the library is left, and both databases can be used.
    fn is_clean(&self, what: &str) {
        self.proxies.iter().for_each(crate::support::proxy::Proxy::clear);
        assert_eq!((self.prepared(), self.own_rows()), (0, [0, 0]), "{what}");
        assert_eq!((in_use(&self.databases, "default"), in_use(&self.databases, "other")), (0, 0), "{what}");
        let next = 1_000 + i64::try_from(self.fixture.rows("other").len()).unwrap();
        let seen = self.put_in_parts(next);
        seen.result.unwrap_or_else(|error| panic!("{what}: the next one: {error}"));
        assert_eq!((seen.runs, seen.hooks, self.has(next)), (1, vec!["committed"], [true, true]), "{what}");
    }

    fn own_rows(&self) -> [i64; 2] {
        self.fixture.own_rows()
    }
}

#[test]
fn a_lost_commit_of_the_second_database_is_told_as_a_part_that_may_have_failed() {
    let Some(far) = Far::new() else { return };
    far.put_in_parts(100).result.unwrap();
    for (id, loses) in [(1, Loses::Request), (2, REPLY)] {
        let what = format!("{loses:?}");
        far.proxies[0].lose_once(COMMIT, loses);
        let seen = far.put_in_parts(id);
        assert!(far.proxies[0].hit(), "{what}");
        let Err(Error::PartialCommit { committed, failed }) = seen.result else { panic!("{what}: {:?}", seen.result) };
        assert_eq!((committed, failed), (vec!["other".into()], vec!["default".into()]), "{what}");
        assert_eq!((seen.runs, seen.hooks.len()), (1, 0), "{what}: no hook of either kind runs");
        assert_eq!(far.has(id), [loses == REPLY, true], "{what}");
        far.is_clean(&what);
    }
}

#[test]
fn a_lost_commit_of_the_first_database_is_an_unknown_outcome_and_the_second_is_rolled_back() {
    let Some(far) = Far::new() else { return };
    far.put_in_parts(100).result.unwrap();
    for (id, loses) in [(1, Loses::Request), (2, REPLY)] {
        let what = format!("{loses:?}");
        far.proxies[1].lose_once(COMMIT, loses);
        let seen = far.put_in_parts(id);
        assert!(far.proxies[1].hit(), "{what}");
        let Err(Error::OutcomeUnknown { databases, .. }) = seen.result else { panic!("{what}: {:?}", seen.result) };
        assert_eq!((databases, seen.runs, seen.hooks.len()), (vec!["other".into()], 1, 0), "{what}");
        assert_eq!(far.has(id), [false, loses == REPLY], "{what}");
        far.is_clean(&what);
    }
}

#[test]
fn a_connection_that_is_lost_before_the_commits_undoes_both_and_is_run_again() {
    for at in [0, 1] {
        let Some(far) = Far::new() else { return };
        far.proxies[at].lose_once(b"items", Loses::Request);
        let seen = far.put_in_parts(1);
        assert!(far.proxies[at].hit(), "{at}");
        seen.result.unwrap();
        assert_eq!((seen.runs, seen.hooks, far.has(1)), (2, vec!["committed"], [true, true]), "{at}");
        far.is_clean("a statement is lost");
    }
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

/// No server sees a deadlock that spans two.
#[test]
fn a_lock_is_waited_for_and_held_no_longer_than_in_an_atomic_transaction() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    let query = if KIND == Kind::Mysql {
        "SELECT CONCAT(@@innodb_lock_wait_timeout, ' ', @@wait_timeout, ' ', @@lock_wait_timeout) AS value"
    } else {
        "SELECT current_setting('lock_timeout') || ' ' || current_setting('idle_in_transaction_session_timeout') AS value"
    };
    let limits = |conn: &mut H| diesel::sql_query(query).get_result::<Setting>(conn).unwrap().value;
    let before = limits(&mut connection::<Item, H>().unwrap());
    let expected = if KIND == Kind::Mysql { "5 60 5" } else { "5s 1min" };
    let listed = atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|scope| {
        for mut conn in [scope.conn::<Item, H>()?, scope.conn::<Record, H>()?] {
            assert_eq!(limits(&mut conn), expected);
        }
        Ok::<_, Error>(())
    });
    listed.unwrap();
    let late = atomic::<Item>().commit(CommitMode::BestEffort).run(|conn: &mut H| {
        assert_eq!(limits(conn), before);
        assert_eq!(limits(&mut connection::<Record, H>()?), expected);
        assert_eq!(limits(conn), expected);
        Ok::<_, Error>(())
    });
    late.unwrap();
    for mut conn in [connection::<Item, H>().unwrap(), connection::<Record, H>().unwrap()] {
        assert_eq!(limits(&mut conn), before);
    }
}

//! Requests and replies of the commit over two databases that get lost.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{Databases, Error, TransactionId, TransactionStatus, atomic_many, schema, scope, status};

use super::witness::POLL;
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::{Loses, Proxy, Then};

pub(crate) const PREPARE: &[u8] = if matches!(KIND, Kind::Mysql) { b"XA PREPARE" } else { b"PREPARE TRANSACTION" };
const COMMIT: &[u8] = if matches!(KIND, Kind::Mysql) { b"XA COMMIT" } else { b"COMMIT" };
pub(crate) const COMMIT_PREPARED: &[u8] = if matches!(KIND, Kind::Mysql) { b"XA COMMIT" } else { b"COMMIT PREPARED" };

/// What a server has sent once it has answered the first statement of a batch: on MariaDB XA END goes ahead.
pub(crate) const REPLY: Loses = Loses::ReplyAfter(if matches!(KIND, Kind::Mysql) { 11 } else { 0 });

/// How long recovery may take.
const LIMIT: Duration = Duration::from_secs(30);

impl Fixture {
    /// How many rows of the library's stand in each database.
    pub(crate) fn own_rows(&self) -> [i64; 2] {
        ["default", "other"].map(|alias| super::across::own_rows(self, alias))
    }
}

/// Two databases, each behind a proxy of its own.
pub(crate) struct Far {
    pub(crate) fixture: Fixture,
    pub(crate) proxies: [Proxy; 2],
    pub(crate) databases: Databases,
    /// The same databases without a proxy.
    pub(crate) near: Databases,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Recovered {
    #[diesel(sql_type = Text)]
    data: String,
}

impl Far {
    pub(crate) fn new() -> Option<Self> {
        fixture().map(Self::of)
    }

    pub(crate) fn of(fixture: Fixture) -> Self {
        Self::with_pools(fixture, 2)
    }

    /// The pools behind the proxies have this size.
    pub(crate) fn with_pools(fixture: Fixture, size: u32) -> Self {
        let near = fixture.databases();
        schema::install(&near).unwrap();
        let proxies = [0, 1].map(|at| {
            let url: &str = &fixture.urls[at];
            let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
            Proxy::start(address.parse().unwrap())
        });
        let mut builder = Databases::builder().router(ByApp);
        for (at, alias) in ["default", "other"].into_iter().enumerate() {
            let mut config = multidb::DatabaseConfig::new(alias, proxies[at].url(&fixture.urls[at]));
            config.pool.max_size = Some(size);
            builder = builder.database(config);
        }
        let databases = builder.build().unwrap();
        Self { fixture, proxies, databases, near }
    }

    /// Puts a row into each database.
    pub(crate) fn put_both(&self, id: i64) -> Seen {
        let hooks = Rc::new(Cell::new([0, 0]));
        let named = Cell::new(None);
        let _entered = self.databases.enter();
        let result = atomic_many::<(Item, Record)>().run(|_| {
            named.set(scope::current());
            let [committed, rolled_back] = [Rc::clone(&hooks), Rc::clone(&hooks)];
            scope::on_commit(move || committed.set([committed.get()[0] + 1, committed.get()[1]]));
            scope::on_rollback(move || rolled_back.set([rolled_back.get()[0], rolled_back.get()[1] + 1]));
            put(id, 10)?;
            put_record(id, 20)
        });
        Seen { id: named.take().unwrap(), result, hooks: hooks.get() }
    }

    /// The library's prepared branches of both databases.
    pub(crate) fn prepared(&self) -> usize {
        ["default", "other"].into_iter().map(|alias| self.prepared_in(alias)).sum()
    }

    fn prepared_in(&self, alias: &str) -> usize {
        let mut raw = self.fixture.observer(alias);
        let own = diesel::sql_query("SELECT CAST(database_id AS CHAR(12)) AS name FROM multidb_meta");
        let own: Name = own.get_result(&mut raw).unwrap();
        let listed: Vec<String> = if KIND == Kind::Mysql {
            let found: Vec<Recovered> = diesel::sql_query("XA RECOVER").load(&mut raw).unwrap();
            found.into_iter().map(|row| row.data).collect()
        } else {
            let found = diesel::sql_query("SELECT gid AS name FROM pg_prepared_xacts");
            found.load::<Name>(&mut raw).unwrap().into_iter().map(|row| row.name).collect()
        };
        listed.into_iter().filter(|gid| gid.ends_with(&own.name)).count()
    }

    /// Recovers until nothing is in doubt: a server needs a moment to see that a client has gone.
    pub(crate) fn recover(&self) {
        self.until_lost_are_gone();
        let begin = Instant::now();
        loop {
            let report = self.near.recover().unwrap();
            if report.is_clear() {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "{report}");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the servers know no sessions but those of the pools. While a session ends, MariaDB may tell who finishes its
    /// branch that this is done, and it is not.
    pub(crate) fn until_lost_are_gone(&self) {
        if KIND != Kind::Mysql {
            return;
        }
        for alias in ["default", "other"] {
            let connections = |databases: &Databases| databases.database(alias).unwrap().pool_state().connections;
            let pools = || connections(&self.near) + connections(&self.databases);
            self.fixture.witness_of(alias).until_at_most(pools);
        }
    }

    /// What became of a transaction.
    pub(crate) fn status(&self, id: &TransactionId) -> TransactionStatus {
        let _entered = self.near.enter();
        let long = status(id).unwrap();
        let read: TransactionId = id.to_string().parse().unwrap();
        assert_eq!(status(&read).unwrap(), long);
        long
    }

    /// The row is on both databases or on none, nothing is prepared, and both can be used.
    pub(crate) fn agree(&self, id: i64, what: &str) -> bool {
        for proxy in &self.proxies {
            proxy.clear();
        }
        self.recover();
        let has = |alias| self.fixture.rows(alias).iter().any(|row| row.0 == id);
        assert_eq!(has("default"), has("other"), "{what}: split");
        assert_eq!(self.prepared(), 0, "{what}: a branch is left prepared");
        assert_eq!((in_use(&self.databases, "default"), in_use(&self.databases, "other")), (0, 0), "{what}");
        // Every connection that is left in the pools.
        for next in 1..4 {
            self.put_both(1_000 * next + id).result.unwrap_or_else(|error| panic!("{what}: the next one: {error}"));
        }
        has("default")
    }
}

/// What the caller of a transaction sees.
pub(crate) struct Seen {
    pub(crate) id: TransactionId,
    pub(crate) result: Result<(), Error>,
    /// How often hooks ran: those of the commit and those of the rollback.
    pub(crate) hooks: [u32; 2],
}

#[test]
fn a_lost_prepare_rolls_both_databases_back() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    for (id, loses) in [(1, Loses::Request), (2, REPLY), (3, Loses::ReplyAfter(0))] {
        let what = format!("{loses:?}");
        far.proxies[1].lose_once(PREPARE, loses);
        let seen = far.put_both(id);
        assert!(far.proxies[1].hit(), "{what}");
        let error = seen.result.unwrap_err();
        assert!(!error.is_in_doubt(), "{what}: {error}");
        assert_eq!(seen.hooks, [0, 1], "{what}");
        assert_eq!(far.status(&seen.id), TransactionStatus::RolledBack, "{what}");
        assert!(!far.agree(id, &what));
        assert_eq!(far.status(&seen.id), TransactionStatus::RolledBack, "{what}");
    }
}

#[test]
fn a_lost_commit_of_home_is_asked_for_and_the_call_says_what_became_of_it() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let mut outcomes = Vec::new();
    for (id, loses) in [(1, Loses::Request), (2, REPLY), (3, Loses::ReplyAfter(0))] {
        let what = format!("{loses:?}");
        far.proxies[0].lose_once(COMMIT, loses);
        let seen = far.put_both(id);
        assert!(far.proxies[0].hit(), "{what}");
        if let Err(error) = &seen.result {
            assert!(error.is_retryable() && !error.is_in_doubt(), "{what}: {error}");
        }
        let committed = seen.result.is_ok();
        assert_eq!(seen.hooks, if committed { [1, 0] } else { [0, 1] }, "{what}");
        let expected = if committed { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
        assert_eq!(far.status(&seen.id), expected, "{what}");
        assert_eq!(far.prepared(), 0, "{what}: recovery is not needed");
        assert_eq!(far.agree(id, &what), committed, "{what}");
        outcomes.push(committed);
    }
    assert!(!outcomes[0] && outcomes[1..].contains(&true), "{outcomes:?}");
}

#[test]
fn a_lost_commit_of_a_home_that_cannot_be_reached_is_an_unknown_outcome_until_recovery() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    for (id, loses, then) in [(1, Loses::Request, Then::Refuses), (2, REPLY, Then::IsSilent)] {
        let what = format!("{loses:?}, {then:?}");
        far.proxies[0].lose_and_then(COMMIT, loses, then);
        let seen = far.put_both(id);
        assert!(far.proxies[0].hit(), "{what}");
        let error = seen.result.unwrap_err();
        assert!(error.is_in_doubt() && !error.is_retryable(), "{what}: {error}");
        let text = error.to_string();
        let Error::OutcomeUnknown { id: named, databases } = error else { panic!("{text}") };
        assert_eq!(
            (named.to_string(), seen.hooks),
            (seen.id.to_string(), [0, 0]),
            "{what}: no hook of either kind runs"
        );
        assert_eq!(databases, ["default", "other"], "{what}");
        assert_eq!(far.prepared(), 1, "{what}");
        // A recoverer that doesn't reach home leaves it.
        let report = far.databases.recover().unwrap();
        assert_eq!((report.left().len(), report.problems().len()), (1, 1), "{what}: {report}");
        assert_eq!(far.prepared(), 1, "{what}");
        let committed = far.agree(id, &what);
        assert_eq!(committed, loses == REPLY, "{what}");
        let expected = if committed { TransactionStatus::Committed } else { TransactionStatus::RolledBack };
        assert_eq!(far.status(&named), expected, "{what}");
    }
}

#[test]
fn while_the_lost_session_of_home_lives_nothing_is_decided() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    far.proxies[0].lose_once(COMMIT, Loses::Client);
    let seen = far.put_both(1);
    assert!(far.proxies[0].hit());
    assert!(seen.result.as_ref().is_err_and(Error::is_in_doubt), "{:?}", seen.result);
    assert_eq!((seen.hooks, far.status(&seen.id)), ([0, 0], TransactionStatus::InDoubt));
    let report = far.near.recover().unwrap();
    let left: Vec<_> = report.left().iter().map(|left| (left.id.clone(), left.reason)).collect();
    assert_eq!(left, [(seen.id.clone(), multidb::Reason::Alive)], "{report}");
    assert!(report.rolled_back().is_empty() && far.prepared() == 1, "{report}");
    // Its session ends.
    far.proxies[0].let_go();
    far.recover();
    assert_eq!((far.fixture.rows("default").len(), far.fixture.rows("other").len()), (1, 1));
    assert_eq!((far.prepared(), far.status(&seen.id)), (0, TransactionStatus::RolledBack));
}

#[test]
fn a_lost_second_phase_is_ok_and_recovery_finishes_it() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    for (id, loses) in [(1, Loses::Request), (2, Loses::ReplyAfter(0))] {
        let what = format!("{loses:?}");
        far.proxies[1].lose_once(COMMIT_PREPARED, loses);
        let seen = far.put_both(id);
        assert!(far.proxies[1].hit(), "{what}");
        seen.result.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((seen.hooks, far.status(&seen.id)), ([1, 0], TransactionStatus::Committed), "{what}");
        assert_eq!(far.prepared(), usize::from(loses == Loses::Request), "{what}");
        assert!(far.agree(id, &what), "{what}");
        assert_eq!(far.status(&seen.id), TransactionStatus::Committed, "{what}");
    }
}

#[test]
fn what_is_left_to_recovery_is_not_complete_before_it_is_finished() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    far.proxies[1].lose_and_then(COMMIT_PREPARED, Loses::Request, Then::Refuses);
    let seen = far.put_both(1);
    assert!(seen.result.is_ok() && far.proxies[1].hit());
    // Its own registry, which deletes the rows of what is complete, doesn't reach the other database.
    far.databases.recover().unwrap();
    let closed = format!("SELECT gid AS name FROM multidb_decision WHERE closed IS NOT NULL AND gid = '{}'", seen.id);
    let closed: Vec<Name> = diesel::sql_query(closed).load(&mut far.fixture.observer("default")).unwrap();
    assert_eq!((closed.len(), far.prepared()), (0, 1));
    assert_eq!(far.fixture.own_rows()[0], 2, "nor is the complete one deleted: its receipt can't be");
    assert!(far.agree(1, "it is reached"));
}

#[test]
fn a_lost_receipt_or_intent_rolls_both_databases_back() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let cases: [(usize, &[u8]); 2] = [(1, b"multidb_receipt (gid"), (0, b"multidb_decision (gid")];
    for (id, (at, needle)) in (1..).zip(cases) {
        for (id, loses) in [(id, Loses::Request), (id + 10, Loses::ReplyAfter(0))] {
            let what = format!("{loses:?} of {}", String::from_utf8_lossy(needle));
            far.proxies[at].lose_once(needle, loses);
            let seen = far.put_both(id);
            assert!(far.proxies[at].hit(), "{what}");
            let error = seen.result.unwrap_err();
            assert!(!error.is_in_doubt(), "{what}: {error}");
            assert_eq!((seen.hooks, far.status(&seen.id)), ([0, 1], TransactionStatus::RolledBack), "{what}");
            assert_eq!(far.prepared(), 0, "{what}");
            assert!(!far.agree(id, &what));
        }
    }
}

#[test]
fn a_lost_commit_of_the_only_database_that_has_written_is_resolved_where_it_can_be_verified() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    let only = |id: i64, verifies: bool| {
        let _entered = far.databases.enter();
        let scope = atomic_many::<(Item, Record)>();
        let scope = if verifies { scope.verify_commit() } else { scope };
        scope.run(|_| put_record(id, 20))
    };
    for (id, loses, verifies) in
        [(1, Loses::Request, true), (2, REPLY, true), (3, Loses::Request, false), (4, REPLY, false)]
    {
        let what = format!("{loses:?}, verifies: {verifies}");
        far.proxies[1].lose_once(COMMIT, loses);
        let run = only(id, verifies);
        assert!(far.proxies[1].hit(), "{what}");
        match (&run, verifies) {
            (Err(error), false) => assert!(matches!(error, Error::OutcomeUnknown { .. }), "{what}: {error}"),
            (Err(error), true) => assert!(error.is_retryable() && !error.is_in_doubt(), "{what}: {error}"),
            (Ok(()), _) => assert!(verifies, "{what}"),
        }
        far.proxies[1].clear();
        far.recover();
        let is_there = far.fixture.rows("other").iter().any(|row| row.0 == id);
        if verifies {
            assert_eq!(is_there, run.is_ok(), "{what}");
        }
        assert_eq!((far.prepared(), in_use(&far.databases, "other")), (0, 0), "{what}");
    }
}

/// Only PostgreSQL tells that a branch has only read, so elsewhere it is prepared like the others.
#[test]
fn where_the_end_of_a_branch_that_has_only_read_is_lost_nothing_is_committed() {
    let Some(far) = Far::new().filter(|_| KIND == Kind::Postgres) else { return };
    for (id, loses) in [(1, Loses::Request), (2, Loses::ReplyAfter(0))] {
        let _entered = far.databases.enter();
        far.proxies[1].lose_once(COMMIT, loses);
        let run = atomic_many::<(Item, Record)>().run(|scope| {
            items::table.count().get_result::<i64>(&mut scope.conn::<Record, H>()?)?;
            put(id, 10)
        });
        assert!(far.proxies[1].hit(), "{loses:?}");
        let error = run.unwrap_err();
        assert!(!error.is_in_doubt(), "{loses:?}: {error}");
        assert!(!far.agree(id, "its end is lost"), "{loses:?}");
    }
}

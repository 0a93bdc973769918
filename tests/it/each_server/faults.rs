//! Every control point of a scope, hit by every fault: never a false `Ok`, and never a connection in the pool that is
//! inside a transaction.

use std::cell::Cell;
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, atomic, scope};

use super::witness::{Witness, behind_proxy};
use super::*;
use crate::fixture::Kind;
use crate::support::proxy::{Loses, Proxy};

/// What the fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// BEGIN for a statement of the outermost level.
    Begin,
    /// The savepoint that follows BEGIN in the same batch, on MySQL.
    Tripwire,
    /// BEGIN and SAVEPOINT in one batch, for a statement in a nested scope.
    BeginNested,
    Savepoint,
    /// On PostgreSQL it waits for the next control statement.
    Release,
    RollbackTo,
    /// A statement sent as a text.
    Statement,
    /// A statement that is prepared first, while it is prepared.
    Prepare,
    /// The same, when it runs.
    Execute,
    Commit,
    /// ROLLBACK of a scope that fails.
    Rollback,
}

const POINTS: [Point; 11] = [
    Point::Begin,
    Point::Tripwire,
    Point::BeginNested,
    Point::Savepoint,
    Point::Release,
    Point::RollbackTo,
    Point::Statement,
    Point::Prepare,
    Point::Execute,
    Point::Commit,
    Point::Rollback,
];

/// A value whose bytes read the same from both ends, because the two clients send them in opposite orders.
const MARK: &[u8; 8] = b"m<=++=<m";

/// What MySQL's driver sends right after each batch: the option for several statements in one text, off.
const AFTER_BATCH: &[u8] = &[3, 0, 0, 0, 0x1b, 1, 0];

impl Point {
    /// What the client sends at this point first, after the point's moment has come.
    fn needle(self) -> &'static [u8] {
        match (self, KIND) {
            (Self::Begin | Self::BeginNested, Kind::Mysql) => b"START TRANSACTION",
            (Self::Begin | Self::BeginNested, _) => b"BEGIN",
            (Self::Tripwire, _) => b"SAVEPOINT multidb_0",
            (Self::Savepoint, _) => b"SAVEPOINT multidb_2",
            (Self::Release, _) => b"RELEASE SAVEPOINT multidb_2",
            (Self::RollbackTo, _) => b"ROLLBACK TO SAVEPOINT multidb_2",
            (Self::Statement, _) => b"(4, 40)",
            (Self::Prepare, _) => b"UPDATE",
            (Self::Execute, _) => MARK,
            (Self::Commit, _) => b"COMMIT",
            (Self::Rollback, _) => b"ROLLBACK",
        }
    }

    /// The first step that must tell of a fault here.
    fn told_at(self) -> Step {
        match self {
            Self::Begin | Self::Tripwire => Step::First,
            Self::BeginNested | Self::Savepoint => Step::Nested,
            Self::Release if KIND == Kind::Mysql => Step::NestedEnd,
            Self::Release => Step::Undone,
            // The nested scope's own error comes back unchanged, so the next statement is the first that can tell.
            Self::RollbackTo | Self::Statement => Step::Text,
            Self::Prepare | Self::Execute => Step::Prepared,
            Self::Commit | Self::Rollback => Step::End,
        }
    }
}

/// What is done to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The server ends the session just before the point.
    Killed,
    Once(Loses),
    /// Also when a new connection comes by.
    Always(Loses),
    /// The point itself goes well, and what the driver sends right after it gets no reply.
    Afterwards,
}

/// The first part of a reply to several statements, or to one: a whole message of the server, and not the last one.
const FIRST_MESSAGE: usize = match KIND {
    // A header, and `OK` with no rows.
    Kind::Mysql => 4 + 7,
    _ => "C....COMMIT.".len(),
};

/// What the body does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    First,
    Nested,
    NestedEnd,
    Undone,
    UndoneEnd,
    Text,
    Prepared,
    End,
}

/// One run.
struct Case<'a> {
    point: Point,
    fault: Fault,
    /// Whether the body swallows what fails. Otherwise it passes the error on.
    swallows: bool,
    proxy: &'a Proxy,
    /// The first step that failed.
    failed: Cell<Option<Step>>,
}

impl Case<'_> {
    /// The moment just before a point.
    fn before(&self, point: Point, witness: &mut Witness) {
        if point != self.point {
            return;
        }
        match self.fault {
            Fault::Killed => witness.kill_all(1),
            Fault::Once(loses) => self.proxy.lose_once(point.needle(), loses),
            Fault::Always(loses) => self.proxy.lose_always(point.needle(), loses),
            Fault::Afterwards => self.proxy.lose_once(AFTER_BATCH, Loses::ReplyAfter(0)),
        }
    }

    fn name(&self) -> String {
        let body = if self.swallows { "swallowed" } else { "passed on" };
        format!("{:?} at {:?}, {body}", self.fault, self.point)
    }

    /// Notes a failure, and passes it on or swallows it.
    fn pass(&self, step: Step, result: Result<(), impl Into<Mishap>>) -> Result<(), Mishap> {
        let Err(error) = result else { return Ok(()) };
        self.failed.set(self.failed.get().or(Some(step)));
        if self.swallows { Ok(()) } else { Err(error.into()) }
    }

    fn body(&self, conn: &mut H, witness: &mut Witness) -> Result<(), Mishap> {
        let insert = |conn: &mut H, id: i64| conn.batch_execute(&format!("INSERT INTO items VALUES ({id}, {id}0)"));
        self.before(Point::Begin, witness);
        self.before(Point::Tripwire, witness);
        self.before(Point::BeginNested, witness);
        if self.point != Point::BeginNested {
            self.pass(Step::First, insert(conn, 1))?;
        }
        self.before(Point::Savepoint, witness);
        let nested = atomic::<Item>().run(|conn: &mut H| {
            self.pass(Step::Nested, insert(conn, 2))?;
            self.before(Point::Release, witness);
            Ok::<_, Mishap>(())
        });
        self.pass(Step::NestedEnd, nested)?;
        let undone = atomic::<Item>().run(|conn: &mut H| {
            self.pass(Step::Undone, insert(conn, 3))?;
            self.before(Point::RollbackTo, witness);
            Err::<(), _>(Mishap::OnPurpose)
        });
        match undone {
            Err(Mishap::OnPurpose) => {}
            other => self.pass(Step::UndoneEnd, other)?,
        }
        self.before(Point::Statement, witness);
        self.pass(Step::Text, insert(conn, 4))?;
        self.before(Point::Prepare, witness);
        self.before(Point::Execute, witness);
        let mark = items::value.eq(i64::from_be_bytes(*MARK));
        self.pass(Step::Prepared, diesel::update(items::table.find(4)).set(mark).execute(conn).map(drop))?;
        self.before(Point::Commit, witness);
        self.before(Point::Rollback, witness);
        if self.point == Point::Rollback { Err(Mishap::OnPurpose) } else { Ok(()) }
    }

    fn run(&self, databases: &Databases, witness: &mut Witness) {
        let name = self.name();
        witness.empty();
        let hooks = [Rc::new(Cell::new(0_u8)), Rc::default()];
        let run = atomic::<Item>().run(|conn: &mut H| {
            let [committed, rolled_back] = hooks.clone();
            scope::on_commit(move || committed.set(committed.get() + 1));
            scope::on_rollback(move || rolled_back.set(rolled_back.get() + 1));
            self.body(conn, witness)
        });
        if self.fault != Fault::Killed {
            assert!(self.proxy.hit(), "{name}: the proxy saw nothing of it");
        }
        self.proxy.clear();
        // Only then is it sure what became of the transaction.
        witness.settle(databases, &name);
        let rows = witness.rows();
        let first = (self.point != Point::BeginNested).then_some((1, 10));
        let whole: Vec<_> = first.into_iter().chain([(2, 20), (4, i64::from_be_bytes(*MARK))]).collect();

        let begins = matches!(self.point, Point::Begin | Point::Tripwire | Point::BeginNested);
        let refused = matches!(self.fault, Fault::Once(Loses::Sense) | Fault::Always(Loses::Sense));
        let replaced = begins && !refused && !matches!(self.fault, Fault::Always(_));
        let in_doubt = matches!(&run, Err(Mishap::Database(error)) if error.is_in_doubt());
        if run.is_ok() {
            assert!(replaced, "{name}: a false Ok");
            assert_eq!(rows, whole, "{name}: Ok");
        } else if in_doubt {
            assert!(self.point == Point::Commit && !refused, "{name}: {run:?}");
            assert!(rows == whole || rows.is_empty(), "{name}: in part: {rows:?}");
        } else {
            assert!(!replaced, "{name}: BEGIN lost nothing, and another connection was to be had: {run:?}");
            assert_eq!(rows, [], "{name}: {run:?}");
        }
        if self.point == Point::Commit && !refused {
            assert!(in_doubt, "{name}: nobody can know: {run:?}");
            let is_there =
                !matches!(self.fault, Fault::Killed | Fault::Once(Loses::Request) | Fault::Always(Loses::Request));
            assert_eq!(!rows.is_empty(), is_there, "{name}: the server carries out what it gets");
        }
        if self.point == Point::Rollback {
            assert!(matches!(run, Err(Mishap::OnPurpose)), "{name}: the user's own error is hidden: {run:?}");
        }
        let ran = hooks.map(|hook| hook.get());
        assert_eq!(ran, [run.is_ok(), run.is_err() && !in_doubt].map(u8::from), "{name}: hooks on commit, on rollback");

        // The fault was where it was meant to be.
        let told = if replaced || self.point.told_at() == Step::End { None } else { Some(self.point.told_at()) };
        assert_eq!(self.failed.get(), told, "{name}: {run:?}");
        assert_eq!(in_use(databases, "default"), 0, "{name}");
        witness.assert_clean(databases, &name);
    }
}

/// Hits each point with the fault, both with a body that swallows what fails and one that passes it on.
fn hit_every_point_with(fault: Fault) {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 1);
    let mut witness = fixture.witness();
    let _entered = databases.enter();
    witness.assert_clean(&databases, "at the start");
    let refused = matches!(fault, Fault::Once(Loses::Sense) | Fault::Always(Loses::Sense));
    let points = POINTS.into_iter().filter(|point| match point {
        Point::Tripwire => KIND == Kind::Mysql,
        // It is not sent in a batch.
        Point::Prepare => fault != Fault::Afterwards,
        // And another value is no error.
        Point::Execute => fault != Fault::Afterwards && !refused,
        _ => true,
    });
    for point in points {
        for swallows in [false, true] {
            Case { point, fault, swallows, proxy: &proxy, failed: Cell::new(None) }.run(&databases, &mut witness);
        }
    }
}

#[test]
fn a_session_killed_at_any_point_is_never_a_false_ok() {
    hit_every_point_with(Fault::Killed);
}

#[test]
fn a_request_lost_at_any_point_is_never_a_false_ok() {
    hit_every_point_with(Fault::Once(Loses::Request));
}

#[test]
fn a_reply_lost_at_any_point_is_never_a_false_ok() {
    hit_every_point_with(Fault::Once(Loses::ReplyAfter(0)));
}

#[test]
fn a_reply_cut_after_its_first_message_is_never_a_false_ok() {
    hit_every_point_with(Fault::Once(Loses::ReplyAfter(FIRST_MESSAGE)));
}

#[test]
fn requests_lost_again_and_again_at_any_point_are_never_a_false_ok() {
    hit_every_point_with(Fault::Always(Loses::Request));
}

#[test]
fn replies_lost_again_and_again_at_any_point_are_never_a_false_ok() {
    hit_every_point_with(Fault::Always(Loses::ReplyAfter(0)));
}

#[test]
fn what_the_server_refuses_at_any_point_is_never_a_false_ok() {
    hit_every_point_with(Fault::Once(Loses::Sense));
    hit_every_point_with(Fault::Always(Loses::Sense));
}

#[test]
fn a_connection_lost_right_after_any_point_is_never_a_false_ok() {
    if KIND == Kind::Mysql {
        hit_every_point_with(Fault::Afterwards);
    }
}

//! Failures that a test asks for, at the points where a database may fail.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::control::Control;

/// Where a failure is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Point {
    /// The BEGIN of a transaction.
    Begin,
    /// A statement of the user's.
    Statement,
    /// The SAVEPOINT of a nested level, which is sent in front of its first statement.
    Savepoint,
    /// The RELEASE of a nested level, which on PostgreSQL and SQLite waits for the next level.
    Release,
    /// The ROLLBACK TO of a nested level.
    RollbackTo,
    /// The COMMIT.
    Commit,
    /// The ROLLBACK.
    Rollback,
    /// The first phase of a commit over several databases, on one that is not home: PREPARE TRANSACTION, XA PREPARE.
    Prepare,
    /// Its second phase: COMMIT PREPARED, XA COMMIT.
    CommitPrepared,
    /// Its second phase where the transaction is rolled back: ROLLBACK PREPARED, XA ROLLBACK.
    RollbackPrepared,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The database refuses it, for no reason that passes.
    Refused,
    /// A unique constraint refuses it.
    UniqueViolation,
    /// The database could not order the transaction among others.
    Serialization,
    /// The database chose the transaction to break a deadlock.
    Deadlock,
    /// A lock was not granted in time.
    LockTimeout,
    /// The connection is lost before it is sent.
    ConnectionLost,
    /// It is sent and carried out, and the connection is lost before the answer.
    ReplyLost,
}

impl Fault {
    /// The error that a driver would give.
    pub fn error(self) -> DieselError {
        let (kind, text) = match self {
            Self::Refused => (DatabaseErrorKind::Unknown, "injected: refused"),
            Self::UniqueViolation => (DatabaseErrorKind::UniqueViolation, "injected: duplicate key"),
            Self::Serialization => (DatabaseErrorKind::SerializationFailure, "injected: could not serialize access"),
            Self::Deadlock => (DatabaseErrorKind::Unknown, "injected: deadlock detected"),
            Self::LockTimeout => (DatabaseErrorKind::Unknown, "injected: lock timeout"),
            Self::ConnectionLost | Self::ReplyLost => {
                (DatabaseErrorKind::ClosedConnection, "injected: server closed the connection")
            }
        };
        DieselError::DatabaseError(kind, Box::new(text.to_owned()))
    }

    /// Whether the connection is lost with it.
    pub fn loses_connection(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::ReplyLost)
    }
}

/// The failures that are planned for one database.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Planned>>);

struct Planned {
    point: Point,
    fault: Fault,
    /// How many times the point is passed before.
    skip: u32,
}

impl Faults {
    /// Plans a failure at a point, after it was passed `skip` times.
    pub fn plan(&self, point: Point, skip: u32, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Planned { point, fault, skip });
    }

    /// How many planned failures have not happened.
    pub fn left(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The failure that happens now at this point, if there is one.
    pub fn at(&self, point: Point) -> Option<Fault> {
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = planned.iter().position(|plan| plan.point == point && plan.skip == 0);
        let due = due.map(|at| planned.remove(at).fault);
        // Each plan counts each time that its point is passed.
        for plan in planned.iter_mut().filter(|plan| plan.point == point) {
            plan.skip = plan.skip.saturating_sub(1);
        }
        due
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// The point that a control statement is.
pub fn point_of(control: Control<'_>) -> Option<Point> {
    Some(match control {
        Control::Begin(_) => Point::Begin,
        Control::Savepoint(_) => Point::Savepoint,
        Control::Release(_) => Point::Release,
        Control::RollbackTo(_) => Point::RollbackTo,
        Control::Commit(_) => Point::Commit,
        Control::Rollback(_) => Point::Rollback,
        Control::Prepare(_) => Point::Prepare,
        Control::CommitPrepared(_) => Point::CommitPrepared,
        Control::RollbackPrepared(_) => Point::RollbackPrepared,
        Control::Across(_) | Control::Decide(_) | Control::Narrow { .. } | Control::Widen { .. } => return None,
    })
}

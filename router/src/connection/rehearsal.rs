//! Connections of tests: one whose transactions are levels of another one that is rolled back at the end of the test, and
//! one that fails where the test wants it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{AnsiTransactionManager, SimpleConnection};
use diesel::result::QueryResult;

use super::backend::Dialect;
use super::characteristics::Limits;
use super::control::{Control, Start};
use super::fault::{Fault, Faults, Point, point_of};
use super::instrument::Seen;
use super::link::Link;
use crate::error::{Error, Result};

/// How a connection serves a test.
#[derive(Debug, Clone, Default)]
pub struct Test {
    /// Its transactions are levels of a transaction that is never committed.
    pub rolled_back: bool,
    /// The test has not declared the database: nobody may have a connection.
    pub undeclared: bool,
    /// The failures that the test has planned.
    pub faults: Arc<Faults>,
    /// Those of the other databases that its connections hold.
    pub more_faults: Vec<Arc<Faults>>,
    /// Its connection was lost, with all that the test did.
    pub lost: Arc<AtomicBool>,
}

impl Test {
    /// The connection is lost. Only where it held the test's work does that count.
    pub fn lose(&self) {
        self.lost.fetch_or(self.rolled_back, Ordering::Relaxed);
    }

    /// Whether the test's work is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The state of a connection of a test.
#[expect(clippy::struct_excessive_bools, reason = "each changes by itself")]
pub struct Rehearsal {
    test: Test,
    /// A transaction of the library's is open, inside of the one that is never committed.
    inside: bool,
    /// It is one that stands for the autocommit of a single statement, and ends when the connection is given back.
    autocommit: bool,
    /// A planned failure has taken the connection away.
    lost: bool,
    /// A text has taken from the session what others need.
    unfit: bool,
}

/// The savepoint that stands for BEGIN.
const BEGIN: &str = "SAVEPOINT multidb_test";
/// The savepoint that tells whether the transaction is still the one that is never committed.
const WHOLE: &str = "SAVEPOINT multidb_whole";
const STILL_OPEN: &str = "RELEASE SAVEPOINT multidb_whole; SAVEPOINT multidb_whole";
const COMMIT: &str = "RELEASE SAVEPOINT multidb_test";
const ROLLBACK: &str = "ROLLBACK TO SAVEPOINT multidb_test; RELEASE SAVEPOINT multidb_test";

impl Rehearsal {
    /// A connection that was just opened.
    pub fn new(test: Test) -> Self {
        Self { test, inside: false, autocommit: false, lost: false, unfit: false }
    }
}

impl<B: Dialect> Link<B> {
    /// Begins the transaction that is never committed.
    pub fn rehearse(&mut self) -> QueryResult<()> {
        if !self.is_rolled_back() {
            return Ok(());
        }
        let mut sql = String::new();
        B::write(Control::Begin(&Start::default()), &mut sql);
        sql.push_str("; ");
        sql.push_str(WHOLE);
        AnsiTransactionManager::begin_transaction_sql(self.raw(), &sql)
    }

    /// Whether its transactions are levels of one that is never committed.
    pub fn is_rolled_back(&self) -> bool {
        self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.test.rolled_back)
    }

    /// Whether a transaction of the library's is open in the one that is never committed; `None` outside of such a test.
    pub fn inside(&self) -> Option<bool> {
        self.rehearsal.as_ref().filter(|rehearsal| rehearsal.test.rolled_back).map(|rehearsal| rehearsal.inside)
    }

    /// Whether a planned failure has taken the connection away.
    pub fn is_lost(&self) -> bool {
        self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.lost)
    }

    /// A connection that is given up takes its open transaction with it, and nothing that was committed before: so this one
    /// stays, without what is open, where its server still knows the savepoint. `false` where all that the test did is gone.
    pub fn revive(&mut self) -> bool {
        let Some(Rehearsal { inside, unfit, .. }) = self.rehearsal else { return false };
        let sql = if inside { ROLLBACK } else { STILL_OPEN };
        let revived = !unfit && self.is_rolled_back() && self.raw().batch_execute(sql).is_ok();
        if let Some(rehearsal) = &mut self.rehearsal
            && revived
        {
            (rehearsal.inside, rehearsal.autocommit, rehearsal.lost) = (false, false, false);
        }
        revived
    }

    /// Nobody may have the connection after this.
    pub fn never_revive(&mut self) {
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.unfit = true;
        }
    }

    /// Fails a statement of the user's, if that is planned.
    pub fn fail_statement(&mut self) -> QueryResult<()> {
        match self.fault(Point::Statement)? {
            // The answer to a statement is lost before it is carried out, as far as anybody can tell.
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    /// The failure that happens now; one that loses only the answer is given back, for its caller to send first.
    fn fault(&mut self, point: Point) -> QueryResult<Option<Fault>> {
        let Some(rehearsal) = &mut self.rehearsal else { return Ok(None) };
        if rehearsal.lost {
            return Err(Fault::ConnectionLost.error());
        }
        let Test { faults, more_faults, .. } = &rehearsal.test;
        let mut planned = std::iter::once(faults).chain(more_faults).filter_map(|faults| faults.at(point));
        let Some(fault) = planned.next() else { return Ok(None) };
        rehearsal.lost = fault.loses_connection();
        if fault == Fault::ReplyLost { Ok(Some(fault)) } else { Err(fault.error()) }
    }

    /// As [`Link::control`], for a connection of a test.
    pub fn control_in_test(&mut self, controls: &mut dyn Iterator<Item = Control<'_>>) -> QueryResult<()> {
        let controls: Vec<Control<'_>> = controls.collect();
        let mut lost = None;
        for point in controls.iter().filter_map(|control| point_of(*control)) {
            lost = self.fault(point)?.or(lost);
        }
        let result = match self.inside() {
            Some(_) => self.control_inside(&controls),
            None => self.control_plainly(controls),
        };
        result.and(lost.map_or(Ok(()), |fault| Err(fault.error())))
    }

    /// Sends what stands for control statements inside of the transaction that is never committed.
    fn control_inside(&mut self, controls: &[Control<'_>]) -> QueryResult<()> {
        let mut texts = Vec::new();
        let (mut begins, mut ends) = (false, false);
        for control in controls {
            let mut text = String::new();
            match control {
                Control::Begin(start) => {
                    begins = true;
                    text.push_str(BEGIN);
                    let limits = start.characteristics.limits;
                    if limits != Limits::NONE {
                        self.note_limits();
                        text.push_str("; ");
                        B::write(Control::Narrow { to: limits, locks_limited: start.limits_locks() }, &mut text);
                    }
                }
                Control::Commit(start) | Control::Rollback(start) => {
                    ends = true;
                    let undone = matches!(control, Control::Rollback(_));
                    if !undone {
                        text.push_str(B::CHECK_DEFERRED);
                    }
                    text.push_str(if undone { ROLLBACK } else { COMMIT });
                    if start.characteristics.limits != Limits::NONE {
                        text.push_str("; ");
                        let locks_limited = start.limits_locks();
                        B::write(Control::Widen { to: Limits::NONE, undone, locks_limited }, &mut text);
                    }
                }
                // Nobody will ask what became of it.
                Control::Across(_) | Control::Decide(_) => {}
                // PREPARE would end the test's transaction. What a COMMIT would refuse is refused here, and the release of
                // the level is the second phase.
                Control::Prepare(_) => text.push_str(B::CHECK_DEFERRED),
                Control::CommitPrepared(_) => {
                    ends = true;
                    text.push_str(COMMIT);
                }
                Control::RollbackPrepared(_) => {
                    ends = true;
                    text.push_str(ROLLBACK);
                }
                other => B::write(*other, &mut text),
            }
            let text = text.trim_end_matches("; ");
            if !text.is_empty() {
                texts.push(text.to_owned());
            }
        }
        if !texts.is_empty() {
            self.raw().batch_execute(&texts.join("; "))?;
        }
        if let Some(rehearsal) = &mut self.rehearsal
            && (begins || ends)
        {
            rehearsal.inside = begins;
        }
        Ok(())
    }

    /// A statement outside of any scope: it is a transaction of its own, which ends when the connection is given back.
    pub fn begin_autocommit(&mut self) -> QueryResult<()> {
        if self.is_rolled_back() {
            self.control_inside(&[Control::Begin(&Start::default())])?;
            if let Some(rehearsal) = &mut self.rehearsal {
                rehearsal.autocommit = true;
            }
        }
        Ok(())
    }

    /// What was lent outside of any scope must not end the transaction that is never committed: if it did, it is told.
    pub fn was_kept_open(&mut self, seen: &Seen) -> Result<()> {
        if !seen.control || !self.is_rolled_back() {
            return Ok(());
        }
        self.break_off();
        let statement = "BEGIN or COMMIT inside `with_raw`, in a test whose work is rolled back".into();
        Err(Error::TransactionControl { database: self.database().clone(), statement })
    }

    /// Ends it after a statement that went well, and tells where its commit would not have.
    pub fn settle_autocommit(&mut self) -> QueryResult<()> {
        let result = self.end_autocommit();
        result.map_err(|error| {
            let implicit = B::is_implicit_commit(&error.to_string());
            if implicit { Error::implicit_commit(self.database().clone()).into() } else { error }
        })
    }

    /// Ends it.
    pub fn end_autocommit(&mut self) -> QueryResult<()> {
        if self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.autocommit && rehearsal.inside) {
            let start = Start::default();
            let control = if self.aborted() { Control::Rollback(&start) } else { Control::Commit(&start) };
            self.control_inside(&[control])?;
        }
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.autocommit = false;
        }
        Ok(())
    }
}

/// Why there is no second connection in a test whose work is rolled back.
pub const ONLY_ONE: &str = "a test whose work is rolled back has one connection for each database, and this thread holds \
                            it; `requires_new`, `not_supported` and a handle from outside need `testing::committed`";

/// What to do if another thread holds the one connection of such a test.
pub const SHARED: &str = "a test whose work is rolled back (`testing::rolled_back`) has one connection for each database, and an \
                          open scope keeps it: let the other thread work before or after its scope, or use \
                          `testing::committed`";

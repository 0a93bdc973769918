//! Diesel's own transactions on a handle: each is a level of the scope's transaction.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use diesel::connection::{Connection, TransactionManager, TransactionManagerStatus};
use diesel::result::{Error as DieselError, QueryResult};

use super::conn::{Conn, Place};
use crate::connection::backend::Backend;
use crate::connection::characteristics::Limits;
use crate::connection::control::Start;
use crate::connection::slot::{AnySlot, Slot};
use crate::error::Error;
use crate::site::{Function, Site};
use crate::telemetry::TARGET;
use crate::transaction::{Kind, Terms, Verdict, abandon, any, begin, leave, nest, no_scope_inside, top};

/// The transaction manager of a handle. It owns nothing: the thread's transaction is the owner of the levels.
#[derive(Debug, Clone, Copy)]
pub struct HandleTransactions;

/// What errors name for transactions that a handle began.
const SITE: Site = Site::of(&Function::new("Connection::transaction", "diesel", "a handle", 0));

impl<B: Backend> TransactionManager<Conn<B>> for HandleTransactions {
    type TransactionStateData = TransactionManagerStatus;

    fn begin_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        let ticket = match &conn.place {
            Place::Scope(slot) => {
                belongs_here(slot)?;
                nest(SITE, Kind::Handle, Limits::NONE)?
            }
            Place::Pool(..) => return begin_own(conn),
        };
        conn.opened.push(ticket);
        Ok(())
    }

    fn rollback_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        end(conn, Verdict::Undo)
    }

    fn commit_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        end(conn, Verdict::Keep)
    }

    fn transaction_manager_status_mut(conn: &mut Conn<B>) -> &mut TransactionManagerStatus {
        conn.refresh()
    }

    // Diesel's own leaves the transaction open when `callback` panics.
    fn transaction<F, R, E>(conn: &mut Conn<B>, callback: F) -> Result<R, E>
    where
        F: FnOnce(&mut Conn<B>) -> Result<R, E>,
        E: From<DieselError>,
    {
        transaction::<Self, _, _, _, _>(conn, callback)
    }
}

/// Diesel's `transaction`, which is also rolled back if `callback` panics.
pub(super) fn transaction<M, C, F, R, E>(conn: &mut C, callback: F) -> Result<R, E>
where
    M: TransactionManager<C>,
    C: Connection,
    F: FnOnce(&mut C) -> Result<R, E>,
    E: From<DieselError>,
{
    M::begin_transaction(conn)?;
    match catch_unwind(AssertUnwindSafe(|| callback(conn))) {
        Ok(Ok(value)) => {
            M::commit_transaction(conn)?;
            Ok(value)
        }
        Ok(Err(error)) => {
            match M::rollback_transaction(conn) {
                // As Diesel does it. That the work may be permanent is more than why it should have been undone.
                Err(ended) if is_implicit_commit(&ended) => Err(ended.into()),
                // Another failure must not hide the error of the callback; `leave` tells of it.
                _ => Err(error),
            }
        }
        Err(panic) => {
            if let Err(error) = M::rollback_transaction(conn)
                && is_implicit_commit(&error)
            {
                tracing::error!(target: TARGET, %error, "a transaction's closure panicked, and its work could not be undone");
            }
            resume_unwind(panic)
        }
    }
}

fn is_implicit_commit(error: &DieselError) -> bool {
    let DieselError::QueryBuilderError(carried) = error else { return false };
    matches!(carried.downcast_ref(), Some(Error::ImplicitCommit { .. }))
}

/// Begins a transaction that is rolled back when the handle is dropped.
pub(super) fn begin_test_transaction<B: Backend>(conn: &mut Conn<B>) -> QueryResult<()> {
    if matches!(conn.place, Place::Scope(_)) {
        return Err(DieselError::AlreadyInTransaction);
    }
    begin_own(conn)?;
    conn.test = true;
    Ok(())
}

/// Begins a transaction on a handle outside of any scope. Annotated functions called meanwhile join it.
fn begin_own<B: Backend>(conn: &mut Conn<B>) -> QueryResult<()> {
    let Some(home) = &conn.home else {
        return Err(DieselError::NotInTransaction);
    };
    // No tripwire: Diesel's migrations run DDL in such a transaction, on MySQL too. Inside another transaction of this
    // thread it may wait for a lock of that one.
    let start = Start { lock_limit: any(|_| true), ..Start::default() };
    let ticket = begin(&home.databases, [(None, home.index)], SITE, Kind::Handle, &start, &Terms::default())?;
    let slot = top(|transaction| transaction.branch(home.index).map(|branch| Arc::clone(&branch.slot)));
    let slot = slot.flatten().and_then(Slot::of);
    let slot = slot.expect("the transaction begun above has this branch, and the pool this backend");
    if let Some(instrumentation) = &conn.instrumentation {
        slot.instrument(instrumentation.clone());
    }
    conn.place = Place::Scope(slot);
    conn.opened.push(ticket);
    Ok(())
}

/// Ends the innermost level that this handle has opened.
fn end<B: Backend>(conn: &mut Conn<B>, verdict: Verdict) -> QueryResult<()> {
    let Some(ticket) = conn.opened.pop() else {
        return Err(DieselError::NotInTransaction);
    };
    if let Err(error) = no_scope_inside(&ticket, || "a transaction that a handle began".to_owned()) {
        conn.opened.push(ticket);
        return Err(error.into());
    }
    let result = match &conn.place {
        Place::Scope(slot) if !ticket.is_in_reach() => {
            abandon(ticket, &**slot, slot.gate(), conn.test);
            Err(Error::no_scope("ending a transaction on another thread than it was begun on"))
        }
        _ => leave(ticket, verdict),
    };
    if conn.opened.is_empty()
        && let Some(home) = &conn.home
    {
        conn.place = Place::Pool(Arc::clone(&home.pool), home.site);
        conn.test = false;
    }
    result.map_err(DieselError::from)
}

/// A level is one of the innermost transaction on this thread, so that is what the handle must belong to.
fn belongs_here<B: Backend>(slot: &Arc<Slot<B>>) -> Result<(), Error> {
    let same = top(|transaction| std::ptr::eq(transaction.gate(), Arc::as_ptr(slot.gate())));
    match same {
        Some(true) => Ok(()),
        _ if slot.gate().depth() == 0 => Err(Error::Closed { database: slot.alias().clone() }),
        _ => {
            let reason = "this handle's transaction is not the innermost one on this thread; begin the nested \
                          transaction on a handle of the innermost scope";
            Err(Error::Busy { database: slot.alias().clone(), reason })
        }
    }
}

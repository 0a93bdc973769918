//! The thread's stack of transactions.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use once_cell::unsync::OnceCell;

use super::LEVELS_LIMIT;
use crate::connection::control::Start;
use crate::connection::gate::Gate;
use crate::connection::slot::AnySlot;
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::site::Site;
use crate::transaction_id::TransactionId;

thread_local! {
    static STACK: RefCell<Vec<Transaction>> = const { RefCell::new(Vec::new()) };
}

/// An open transaction.
pub(crate) struct Transaction {
    pub(super) serial: u64,
    pub(super) databases: Databases,
    pub(super) gate: Arc<Gate>,
    pub(super) branches: Vec<Branch>,
    pub(super) frames: Vec<Frame>,
    pub(super) id: OnceCell<TransactionId>,
}

/// A database's part of a transaction.
#[derive(Clone)]
pub(crate) struct Branch {
    /// Its index in the registry.
    pub(crate) database: usize,
    pub(crate) slot: Arc<dyn AnySlot>,
}

/// An open level: frame n is level n + 1.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) site: Site,
    pub(super) opener: Opener,
}

/// Who opened a level, and so who may end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    /// An annotated function or a closure scope.
    Scope,
    /// Diesel's own `transaction` on a handle.
    Handle,
}

/// The right to end one level.
#[derive(Debug)]
#[must_use = "a level that nobody ends dooms its transaction"]
pub(crate) struct Ticket {
    pub(super) serial: u64,
    pub(super) level: u32,
    pub(super) thread: ThreadId,
}

impl Transaction {
    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The branch of a database, if the transaction has it.
    pub(crate) fn branch(&self, database: usize) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.database == database)
    }

    pub(crate) fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The scope that opened the transaction.
    pub(crate) fn outermost(&self) -> Site {
        self.frames.first().map_or_else(|| self.gate.site(), |frame| frame.site)
    }

    /// Its name, made when it is first asked for.
    pub(crate) fn id(&self) -> &TransactionId {
        self.id.get_or_init(TransactionId::new)
    }
}

/// Looks at the innermost open transaction. Nothing else of the library may be called from `look`.
pub(crate) fn top<R>(look: impl FnOnce(&mut Transaction) -> R) -> Option<R> {
    prune();
    STACK.with_borrow_mut(|stack| stack.last_mut().map(look))
}

/// All open transactions of the thread, the innermost last.
pub(crate) fn any(test: impl FnMut(&Transaction) -> bool) -> bool {
    STACK.with_borrow(|stack| stack.iter().any(test))
}

/// Opens a transaction with one branch for each database; sends nothing.
pub(crate) fn begin(
    databases: Databases,
    on: impl IntoIterator<Item = usize>,
    site: Site,
    opener: Opener,
    start: &Start,
) -> Result<Ticket> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    prune();
    let gate = Arc::new(Gate::new(site));
    let mut branches: Vec<Branch> = Vec::new();
    for database in on {
        if branches.iter().all(|branch| branch.database != database) {
            let slot = databases.at(database).driver().slot(Arc::clone(&gate), start.clone());
            branches.push(Branch { database, slot });
        }
    }
    gate.set_depth(1, site);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let frames = vec![Frame { site, opener }];
    let transaction = Transaction { serial, databases, gate, branches, frames, id: OnceCell::new() };
    STACK.with_borrow_mut(|stack| {
        if stack.len() >= LEVELS_LIMIT as usize {
            return Err(Error::LimitExceeded { what: "transactions open on one thread", limit: LEVELS_LIMIT });
        }
        stack.push(transaction);
        Ok(())
    })?;
    Ok(Ticket { serial, level: 1, thread: std::thread::current().id() })
}

/// Opens a level in the innermost transaction; sends nothing. There must be one.
pub(crate) fn nest(site: Site, opener: Opener) -> Result<Ticket> {
    let nested = top(|transaction| {
        let level = transaction.gate.depth() + 1;
        if level > LEVELS_LIMIT {
            return Err(Error::LimitExceeded { what: "levels of one transaction", limit: LEVELS_LIMIT });
        }
        transaction.frames.push(Frame { site, opener });
        transaction.gate.set_depth(level, site);
        Ok(Ticket { serial: transaction.serial, level, thread: std::thread::current().id() })
    });
    nested.unwrap_or_else(|| Err(Error::no_scope(format!("{site}"))))
}

/// What [`super::leave`] works on while nothing is borrowed.
pub(super) fn with<R>(work: impl FnOnce(&mut Vec<Transaction>) -> R) -> R {
    STACK.with_borrow_mut(work)
}

/// Takes away transactions whose owner, a handle, has ended them from another thread.
fn prune() {
    let dead = STACK.with_borrow_mut(|stack| {
        let live = stack.iter().rposition(|transaction| transaction.gate.depth() > 0).map_or(0, |at| at + 1);
        if live == stack.len() { Vec::new() } else { stack.split_off(live) }
    });
    drop(dead);
}

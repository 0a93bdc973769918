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
    static STACK: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// What a scope has put on the thread's stack.
pub(super) enum Entry {
    Open(Transaction),
    /// Hides the transactions below: the scope runs in autocommit.
    Hidden {
        serial: u64,
    },
}

impl Entry {
    pub(super) fn serial(&self) -> u64 {
        match self {
            Self::Open(transaction) => transaction.serial,
            Self::Hidden { serial } => *serial,
        }
    }

    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Open(transaction) => Some(transaction),
            Self::Hidden { .. } => None,
        }
    }

    pub(super) fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        match self {
            Self::Open(transaction) => Some(transaction),
            Self::Hidden { .. } => None,
        }
    }
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

/// An open scope, or a level that a handle has opened.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) site: Site,
    /// The level that it is in: of its own, or the one that it joined.
    pub(super) level: u32,
}

/// The right to end what was opened.
#[derive(Debug)]
#[must_use = "a level that nobody ends dooms its transaction"]
pub(crate) struct Ticket {
    pub(super) serial: u64,
    pub(super) right: Right,
    pub(super) thread: ThreadId,
}

/// What a ticket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// A level, and with level 1 the transaction.
    Level(u32),
    /// A scope without a level of its own, by its place among the open ones.
    Joined(usize),
    /// A hiding entry.
    Hidden,
}

impl Ticket {
    fn new(serial: u64, right: Right) -> Self {
        Self { serial, right, thread: std::thread::current().id() }
    }
}

fn next_serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    SERIAL.fetch_add(1, Ordering::Relaxed)
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

/// Looks at the innermost open transaction, unless it is hidden. Nothing else of the library may be called from `look`.
pub(crate) fn top<R>(look: impl FnOnce(&mut Transaction) -> R) -> Option<R> {
    prune();
    STACK.with_borrow_mut(|stack| stack.last_mut().and_then(Entry::transaction_mut).map(look))
}

/// Whether any open transaction of the thread, hidden or not, is like that.
pub(crate) fn any(test: impl FnMut(&Transaction) -> bool) -> bool {
    STACK.with_borrow(|stack| stack.iter().filter_map(Entry::transaction).any(test))
}

/// Opens a transaction with one branch for each database; sends nothing.
pub(crate) fn begin(
    databases: Databases,
    on: impl IntoIterator<Item = usize>,
    site: Site,
    start: &Start,
) -> Result<Ticket> {
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
    let serial = next_serial();
    let frames = vec![Frame { site, level: 1 }];
    push(Entry::Open(Transaction { serial, databases, gate, branches, frames, id: OnceCell::new() }))?;
    Ok(Ticket::new(serial, Right::Level(1)))
}

/// Hides the open transactions, so that what follows runs as if there were none.
pub(crate) fn hide() -> Result<Ticket> {
    let serial = next_serial();
    push(Entry::Hidden { serial })?;
    Ok(Ticket::new(serial, Right::Hidden))
}

/// Opens a level in the innermost transaction; sends nothing.
pub(crate) fn nest(site: Site) -> Result<Ticket> {
    enter(site, |transaction| {
        let level = transaction.gate.depth() + 1;
        if level > LEVELS_LIMIT {
            return Err(Error::LimitExceeded { what: "levels of one transaction", limit: LEVELS_LIMIT });
        }
        transaction.frames.push(Frame { site, level });
        transaction.gate.set_depth(level, site);
        Ok(Right::Level(level))
    })
}

/// Joins the innermost level of the innermost transaction.
pub(crate) fn join(site: Site) -> Result<Ticket> {
    enter(site, |transaction| {
        let level = transaction.gate.depth();
        let place = transaction.frames.len();
        if place >= LEVELS_LIMIT as usize {
            return Err(Error::LimitExceeded { what: "scopes in one transaction", limit: LEVELS_LIMIT });
        }
        transaction.frames.push(Frame { site, level });
        transaction.gate.set_depth(level, site);
        Ok(Right::Joined(place))
    })
}

fn enter(site: Site, work: impl FnOnce(&mut Transaction) -> Result<Right>) -> Result<Ticket> {
    let entered = top(|transaction| work(transaction).map(|right| Ticket::new(transaction.serial, right)));
    entered.unwrap_or_else(|| Err(Error::no_scope(format!("{site}"))))
}

fn push(entry: Entry) -> Result<()> {
    STACK.with_borrow_mut(|stack| {
        if stack.len() >= LEVELS_LIMIT as usize {
            return Err(Error::LimitExceeded { what: "transactions open on one thread", limit: LEVELS_LIMIT });
        }
        stack.push(entry);
        Ok(())
    })
}

/// What [`super::leave`] works on while nothing is borrowed.
pub(super) fn with<R>(work: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    STACK.with_borrow_mut(work)
}

/// Takes away transactions whose owner, a handle, has ended them from another thread.
fn prune() {
    let dead = STACK.with_borrow_mut(|stack| {
        let is_live = |entry: &Entry| entry.transaction().is_none_or(|transaction| transaction.gate.depth() > 0);
        let live = stack.iter().rposition(is_live).map_or(0, |at| at + 1);
        if live == stack.len() { Vec::new() } else { stack.split_off(live) }
    });
    drop(dead);
}

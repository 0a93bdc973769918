//! The thread's stack of transactions.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use once_cell::unsync::OnceCell;

use super::across::Across;
use super::branch::Branch;
use super::committing::Proof;
use super::frame::{Entry, Frame, Kind};
use super::hooks::{HOOKS_LIMIT, Hook, HookBody, When};
use super::pins::Pin;
use super::terms::Terms;
use super::{FRAMES_EXPECTED, LEVELS_LIMIT};
use crate::connection::attached::OwnFile;
use crate::connection::characteristics::{Characteristics, Conflict, Declared, Limits};
use crate::connection::control::Start;
use crate::connection::gate::{Gate, Limited};
use crate::connection::slot::AnySlot;
use crate::databases::{Databases, Driver};
use crate::error::{Error, Result};
use crate::routing::{Access, Subject};
use crate::site::Site;
use crate::transaction_id::TransactionId;

thread_local! {
    static THREAD: Thread =
        const { Thread { stack: RefCell::new(Vec::new()), spare: Cell::new(None), serial: Cell::new(0) } };
}

/// What a thread knows of its transactions.
struct Thread {
    stack: RefCell<Vec<Entry>>,
    /// An ended transaction, kept for its allocations.
    spare: Cell<Option<Box<Transaction>>>,
    /// The last serial number that was given out.
    serial: Cell<u64>,
}

/// How many serial numbers a thread takes at once.
const SERIALS: u64 = 1 << 20;

impl Thread {
    /// A number that the process has not given out before. An entry shares its own with its first frame alone.
    fn next_serial(&self) -> u64 {
        static BLOCKS: AtomicU64 = AtomicU64::new(0);
        let last = self.serial.get();
        let next =
            if last.is_multiple_of(SERIALS) { BLOCKS.fetch_add(SERIALS, Ordering::Relaxed) + 1 } else { last + 1 };
        self.serial.set(next);
        next
    }

    /// Whether there is room for one more entry.
    fn has_room(&self) -> bool {
        self.stack.borrow().len() < LEVELS_LIMIT as usize
    }

    /// A transaction to be filled, if there is room for one.
    #[inline]
    fn blank(&self) -> Option<Box<Transaction>> {
        if !self.has_room() {
            return None;
        }
        let mut blank = self.spare.take().unwrap_or_else(Transaction::spare);
        blank.serial = self.next_serial();
        Some(blank)
    }

    /// Opens a filled transaction above those that are open.
    #[inline]
    fn push(&self, mut transaction: Box<Transaction>) {
        let mut stack = self.stack.borrow_mut();
        transaction.alone = stack.is_empty();
        for below in stack.iter().filter_map(Entry::transaction) {
            below.gate.cover(true);
        }
        stack.push(Entry::Open(transaction));
    }
}

fn no_room() -> Error {
    Error::LimitExceeded { what: "transactions open on one thread", limit: LEVELS_LIMIT }
}

/// An open transaction.
pub(crate) struct Transaction {
    pub(super) serial: u64,
    /// `None` in a spare one alone.
    databases: Option<Databases>,
    pub(super) gate: Arc<Gate>,
    pub(super) branches: Vec<Branch>,
    pub(super) frames: Vec<Frame>,
    pub(super) hooks: Vec<Hook>,
    /// The slot of the transaction that had this place before, if no handle keeps it.
    spare_slot: Option<Arc<dyn AnySlot>>,
    /// Nothing was open on the thread when it was opened, so nothing lies around it.
    pub(super) alone: bool,
    /// The routes that were given in it.
    pub(super) pins: Vec<Pin>,
    pub(super) terms: Terms,
    pub(super) id: OnceCell<TransactionId>,
    /// What it has beyond that once it is on several databases.
    pub(super) across: Option<Box<Across>>,
}

/// The right to end what was opened.
#[derive(Debug)]
#[must_use = "a level that nobody ends dooms its transaction"]
pub(crate) struct Ticket {
    pub(super) serial: u64,
    /// The frame; `None` for an entry that only hides.
    pub(super) frame: Option<u64>,
    /// The level of the frame.
    pub(super) level: u32,
}

impl Ticket {
    /// Whether what it ends can be reached: not from another thread, nor when the thread is about to end.
    pub(crate) fn is_in_reach(&self) -> bool {
        let found = |thread: &Thread| thread.stack.borrow().iter().any(|entry| entry.serial() == self.serial);
        THREAD.try_with(found).unwrap_or(false)
    }
}

impl Transaction {
    /// A transaction without a registry, to be filled.
    #[cold]
    fn spare() -> Box<Self> {
        Box::new(Self {
            serial: 0,
            databases: None,
            gate: Arc::default(),
            branches: Vec::with_capacity(1),
            frames: Vec::with_capacity(FRAMES_EXPECTED),
            hooks: Vec::new(),
            spare_slot: None,
            alone: true,
            pins: Vec::with_capacity(FRAMES_EXPECTED),
            terms: Terms::default(),
            id: OnceCell::new(),
            across: None,
        })
    }

    pub(crate) fn databases(&self) -> &Databases {
        self.databases.as_ref().expect("an open transaction has its registry")
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The branch of a database, if the transaction has it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each scope passes here, and mostly there is one branch")]
    pub(crate) fn branch(&self, database: usize) -> Option<&Branch> {
        match &self.branches[..] {
            [] => None,
            [only] if only.database == database => Some(only),
            branches => branches.iter().find(|branch| self.holds(branch, database)),
        }
    }

    /// The database's own file among those of its branch. `None` if the branch is not on several.
    pub(crate) fn own_file(&self, database: usize) -> Option<Box<OwnFile>> {
        let files = self.branch(database)?.files();
        let place = files.iter().position(|file| self.databases().are_same(*file, database))?;
        Some(Box::new(OwnFile { place, alias: self.databases().at(files[place]).alias().clone() }))
    }

    /// Whether a branch is on a database.
    #[inline(never)]
    fn holds(&self, branch: &Branch, database: usize) -> bool {
        let are_same = |held: usize| self.databases().are_same(held, database);
        are_same(branch.database) || branch.files().iter().any(|file| are_same(*file))
    }

    /// The row by which its commit can be proved.
    pub(super) fn proof(&self) -> Proof<'_> {
        Proof { id: self.id(), long: OnceCell::new(), databases: self.databases(), gate: &self.gate }
    }

    /// The scope that opened the transaction.
    pub(crate) fn outermost(&self) -> Site {
        self.frames.first().map_or_else(|| self.gate.site(), |frame| frame.site)
    }

    /// What its databases were routed for.
    pub(crate) fn access(&self) -> Access {
        if self.terms.characteristics.limits.read_only { Access::Read } else { Access::Write }
    }

    /// Whether its databases are committed one after the other, and not as one.
    pub(crate) fn is_best_effort(&self) -> bool {
        self.terms.best_effort
    }

    /// Its name, made when it is first asked for.
    pub(crate) fn id(&self) -> &TransactionId {
        self.id.get_or_init(TransactionId::new)
    }

    /// Keeps a hook for the end of the transaction, or of the level that is undone before.
    ///
    /// Gives back what is too much, since its end is the user's code, and the gate that is to be doomed for it.
    pub(crate) fn hook(&mut self, when: When, robust: bool, run: HookBody) -> Option<(HookBody, Arc<Gate>)> {
        if self.hooks.len() >= HOOKS_LIMIT {
            return Some((run, Arc::clone(&self.gate)));
        }
        let (level, site) = (self.gate.depth(), self.gate.site());
        self.hooks.push(Hook { level, when, robust, site, run });
        None
    }

    /// Says whether the level of the innermost scope is to be undone although the scope returns `Ok`.
    pub(crate) fn set_undone(&mut self, undone: bool) {
        let owner = self.frames.iter_mut().rev().find(|frame| matches!(frame.kind, Kind::Scope | Kind::Handle));
        if let Some(frame) = owner {
            frame.undone = undone;
        }
    }

    /// Forgets the frames from `place` on. Where one had limits of its own level, gives those that hold again.
    pub(super) fn truncate(&mut self, place: usize) -> Option<Limits> {
        self.frames.truncate(place);
        if self.gate.is_watched() { self.gate.widen(place) } else { None }
    }

    /// Sets limits for the scope that is about to be opened, at `level`, which is its own or that which it joins.
    #[inline]
    fn limit(&self, site: Site, level: u32, own: bool, limits: Limits) {
        if limits == Limits::NONE {
            return;
        }
        // A time that no clock can show is never over.
        let deadline = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let limits = self.gate.limits().0.with(limits);
        self.gate.limit(Limited { frame: self.frames.len(), level, own, site, limits, deadline });
    }

    /// Why a scope that asks for this can't be a part of the transaction: what the transaction, or a level of it, has
    /// declared, and who.
    pub(crate) fn conflict(&self, asked: &Characteristics) -> Option<(Conflict, Site)> {
        let (limits, site) = self.gate.limits();
        let conflict = self.terms.characteristics.conflict(limits, asked)?;
        let by_limits = matches!(conflict.outer, Declared::Timeout(_) | Declared::Flag("read_only"));
        Some((conflict, site.filter(|_| by_limits).unwrap_or_else(|| self.outermost())))
    }

    #[inline]
    fn push(&mut self, number: u64, site: Site, level: u32, kind: Kind) -> Ticket {
        self.frames.push(Frame { number, site, level, kind, undone: false });
        self.gate.set_depth(level, site);
        Ticket { serial: self.serial, frame: Some(number), level }
    }
}

/// What a scope finds on its thread.
pub(crate) struct Surroundings {
    /// The registry of the innermost open transaction, unless it is hidden, and what its databases were routed for.
    pub(crate) open: Option<(Databases, Access)>,
    /// There is no transaction at all, not even a hidden one.
    pub(crate) alone: bool,
}

/// What is there before a scope is opened.
#[inline]
pub(crate) fn surroundings() -> Surroundings {
    prune();
    with(|stack| {
        let open = stack.last().and_then(Entry::transaction);
        let open = open.map(|open| (open.databases().clone(), open.access()));
        Surroundings { open, alone: stack.iter().all(|entry| entry.transaction().is_none()) }
    })
}

/// Looks at the innermost open transaction, unless it is hidden. Nothing else of the library may be called from `look`.
#[inline]
pub(crate) fn top<R>(look: impl FnOnce(&mut Transaction) -> R) -> Option<R> {
    prune();
    with(|stack| stack.last_mut().and_then(Entry::transaction_mut).map(look))
}

/// The innermost transaction is not run again, whatever its scope says: a panic goes to the caller.
pub(crate) fn forbid_repetition() {
    top(|open| open.terms.repeats = false);
}

/// Something independent may have committed inside of the open transactions of the thread, hidden or not: run again, they
/// would do it twice.
#[inline]
pub(crate) fn note_independent_work() {
    with(|stack| {
        for open in stack.iter_mut().filter_map(Entry::transaction_mut) {
            open.terms.repeats = false;
        }
    });
}

/// Whether the innermost transaction may still be run again.
pub(crate) fn may_be_repeated() -> bool {
    top(|open| open.terms.repeats).unwrap_or(false)
}

/// Whether any open transaction of the thread, hidden or not, is like that.
pub(crate) fn any(test: impl FnMut(&Transaction) -> bool) -> bool {
    with(|stack| stack.iter().filter_map(Entry::transaction).any(test))
}

/// The slot of a database in the transaction of a ticket, which need not be the innermost one.
pub(crate) fn slot(ticket: &Ticket, database: usize) -> Option<Arc<dyn AnySlot>> {
    look(ticket, |open| open.branch(database).map(|branch| Arc::clone(&branch.slot)))
}

/// A slot, and the file of its database if the slot has several.
pub(crate) type Reached = (Arc<dyn AnySlot>, Option<Box<OwnFile>>);

/// The slot of a database in the transaction of a ticket, and its file if the slot has several.
#[inline(always)]
#[expect(clippy::inline_always, reason = "each handle is found here")]
pub(crate) fn reached(ticket: &Ticket, database: usize) -> Option<Reached> {
    let has_file = |branch: &Branch| !branch.files().is_empty();
    let found = look(ticket, |open| open.branch(database).map(|branch| (Arc::clone(&branch.slot), has_file(branch))));
    let (slot, has_file) = found?;
    Some((slot, if has_file { look(ticket, |open| open.own_file(database)) } else { None }))
}

/// The place of a database among the files of its branch; 0 where it has one.
pub(crate) fn file(ticket: &Ticket, database: usize) -> usize {
    look(ticket, |open| open.own_file(database)).map_or(0, |own| own.place)
}

#[inline]
fn look<R>(ticket: &Ticket, look: impl FnOnce(&Transaction) -> Option<R>) -> Option<R> {
    with(|stack| look(stack.iter().rev().find(|entry| entry.serial() == ticket.serial)?.transaction()?))
}

/// Opens a transaction with one branch for each database; sends nothing.
pub(crate) fn begin(
    databases: &Databases,
    on: impl IntoIterator<Item = (Option<Subject>, usize)>,
    site: Site,
    kind: Kind,
    start: &Start,
    terms: &Terms,
) -> Result<Ticket> {
    let mut transaction = blank(databases, site, terms)?;
    for (subject, database) in on {
        if let Some(subject) = subject {
            // The first routes of a transaction are right, whatever they are.
            transaction.pins.push(Pin::new(subject, database));
        }
        if transaction.branch(database).is_none() {
            let spare = transaction.spare_slot.take();
            let slot = databases.at(database).driver().slot(spare, &transaction.gate, start);
            transaction.branches.push(Branch::first(database, slot));
        }
    }
    Ok(open(transaction, site, kind, terms))
}

/// Opens a transaction with one branch for several SQLite files; sends nothing.
pub(super) fn begin_attached(
    databases: &Databases,
    set: (Arc<dyn Driver>, Vec<usize>),
    site: Site,
    start: &Start,
    terms: &Terms,
) -> Result<Ticket> {
    let mut transaction = blank(databases, site, terms)?;
    let (driver, files) = set;
    let slot = driver.slot(None, &transaction.gate, start);
    let branch = Branch::first(files[0], slot);
    transaction.branches.push(branch.on_files(files.into()));
    Ok(open(transaction, site, Kind::Scope, terms))
}

/// A transaction without branches.
#[inline(always)]
#[expect(clippy::inline_always, reason = "each scope passes here")]
fn blank(databases: &Databases, site: Site, terms: &Terms) -> Result<Box<Transaction>> {
    prune();
    // What is looked up on the thread is handed over in words: a large result would be moved once more.
    let mut transaction = THREAD.with(Thread::blank).ok_or_else(no_room)?;
    transaction.terms = *terms;
    let holders = 1 + usize::from(transaction.spare_slot.is_some());
    if Arc::strong_count(&transaction.gate) == holders {
        transaction.gate.reset(terms.manual);
    } else {
        // A handle has outlived its scope, and must still find that scope's gate.
        transaction.gate = Arc::new(Gate::new(site, terms.manual));
        transaction.spare_slot = None;
    }
    transaction.databases = Some(databases.clone());
    Ok(transaction)
}

/// Puts a transaction that has its branches on the thread's stack.
#[inline(always)]
#[expect(clippy::inline_always, reason = "each scope passes here")]
fn open(mut transaction: Box<Transaction>, site: Site, kind: Kind, terms: &Terms) -> Ticket {
    transaction.limit(site, 1, true, terms.characteristics.limits);
    let ticket = transaction.push(transaction.serial, site, 1, kind);
    THREAD.with(|thread| thread.push(transaction));
    ticket
}

/// Keeps an ended transaction for its allocations.
pub(super) fn retire(mut transaction: Box<Transaction>) {
    transaction.gate.disarrange();
    transaction.spare_slot = transaction
        .branches
        .pop()
        .map(|branch| branch.slot)
        .and_then(|mut slot| Arc::get_mut(&mut slot)?.detach().then_some(slot));
    // A list of what is dropped would be called for it, also an empty one.
    if !transaction.branches.is_empty() {
        transaction.branches.clear();
    }
    if !transaction.hooks.is_empty() {
        transaction.hooks.clear();
    }
    transaction.frames.clear();
    transaction.pins.clear();
    transaction.databases = None;
    transaction.id = OnceCell::new();
    transaction.across = None;
    THREAD.with(|thread| {
        if let Some(innermost) = thread.stack.borrow().last().and_then(Entry::transaction) {
            innermost.gate.cover(false);
        }
        thread.spare.set(Some(transaction));
    });
}

/// Hides the open transactions, so that what follows runs as if there were none.
pub(crate) fn hide() -> Result<Ticket> {
    THREAD.with(|thread| {
        if !thread.has_room() {
            return Err(no_room());
        }
        let serial = thread.next_serial();
        thread.stack.borrow_mut().push(Entry::Hidden { serial });
        Ok(Ticket { serial, frame: None, level: 0 })
    })
}

/// The same, without a limit, for what can't fail.
pub(crate) fn hide_always() -> Ticket {
    THREAD.with(|thread| {
        let serial = thread.next_serial();
        thread.stack.borrow_mut().push(Entry::Hidden { serial });
        Ticket { serial, frame: None, level: 0 }
    })
}

/// Opens a level in the innermost transaction; sends nothing.
pub(crate) fn nest(site: Site, kind: Kind, limits: Limits) -> Result<Ticket> {
    enter(site, |transaction, number| {
        let level = transaction.gate.depth() + 1;
        if level > LEVELS_LIMIT {
            return Err(Error::LimitExceeded { what: "levels of one transaction", limit: LEVELS_LIMIT });
        }
        transaction.limit(site, level, true, limits);
        Ok(transaction.push(number, site, level, kind))
    })
}

/// Joins the innermost level of the innermost transaction.
pub(crate) fn join(site: Site, limits: Limits) -> Result<Ticket> {
    enter(site, |transaction, number| {
        if transaction.frames.len() >= LEVELS_LIMIT as usize {
            return Err(Error::LimitExceeded { what: "scopes in one transaction", limit: LEVELS_LIMIT });
        }
        let level = transaction.gate.depth();
        transaction.limit(site, level, false, limits);
        Ok(transaction.push(number, site, level, Kind::Joined))
    })
}

fn enter(site: Site, work: impl FnOnce(&mut Transaction, u64) -> Result<Ticket>) -> Result<Ticket> {
    let number = THREAD.with(Thread::next_serial);
    top(|transaction| work(transaction, number)).unwrap_or_else(|| Err(Error::no_scope(format!("{site}"))))
}

/// What [`super::leave`] works on while nothing is borrowed.
#[inline]
pub(super) fn with<R>(work: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    THREAD.with(|thread| work(&mut thread.stack.borrow_mut()))
}

/// Whether any transaction was ever ended by a handle on another thread, so that its own must look for it.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// A handle has ended a transaction of another thread, whose stack can't be reached from here.
pub(super) fn abandon(gate: &Gate) {
    gate.abandon();
    ABANDONED.store(true, Ordering::Release);
}

/// Takes away transactions whose owner, a handle, has ended on another thread.
///
/// Not while a scope is open in one: what runs in that scope would then commit by itself.
#[inline]
fn prune() {
    if ABANDONED.load(Ordering::Acquire) {
        take_dead();
    }
}

#[cold]
fn take_dead() {
    let dead = with(|stack| {
        let is_live = |entry: &Entry| {
            let transaction = entry.transaction();
            transaction.is_none_or(|open| !open.gate.is_abandoned() || open.frames.len() > 1)
        };
        let live = stack.iter().rposition(is_live).map_or(0, |at| at + 1);
        if live == stack.len() { Vec::new() } else { stack.split_off(live) }
    });
    drop(dead);
}

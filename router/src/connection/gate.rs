//! What every statement of a transaction asks before it runs: may I, and at which level?
//!
//! One gate is shared by a transaction and its slots. So a rule of the transaction (doomed, or a cursor is open) holds
//! on whichever database the statement runs, and does not depend on the route.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::characteristics::Limits;
use super::slot::AnySlot;
use crate::alias::Alias;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::site::{Function, Site};
use crate::telemetry::TARGET;

// Relaxed is enough: a handle that moves to another thread moves there through something that synchronises.
/// The shared state of one transaction.
pub struct Gate {
    depth: AtomicU32,
    streams: AtomicU32,
    /// Statements must look closer: the transaction is doomed, has a deadline, or has undone a failure.
    careful: AtomicBool,
    abandoned: AtomicBool,
    /// Another transaction is open above this one on its thread.
    covered: AtomicBool,
    /// Whether it matters if a statement writes: the scope is manual, so that its pending writes are counted, or something
    /// is read-only.
    watched: AtomicBool,
    /// The transaction is on several databases, which is decided by what is known of its statements.
    across: AtomicBool,
    /// It may take several connections, so that it matters in which order.
    arranged: AtomicBool,
    /// Its slots in that order, with the ranks of their databases.
    order: Mutex<Vec<(usize, Weak<dyn AnySlot>)>>,
    /// Statements since the last commit that were not proven reads.
    writes: AtomicU32,
    detail: Mutex<Detail>,
}

struct Detail {
    site: Site,
    doom: Option<Doom>,
    /// A statement has ended the transaction of this database.
    ended: Option<Alias>,
    /// A DDL has, which was allowed to.
    ended_by_ddl: bool,
    /// The limits of the open scopes that have any, the outermost first.
    limited: Vec<Limited>,
    /// A failure after which the transaction may be run again, in a level that was undone; until the next statement, since
    /// the error that the scope returns is probably this one.
    undone: Option<Arc<Failure>>,
}

/// The limits that a scope has declared.
pub struct Limited {
    /// How many frames the transaction had before it.
    pub frame: usize,
    /// The level that it has, or has joined.
    pub level: u32,
    /// Whether the level is its own, so that the server can be told of the limits with it.
    pub own: bool,
    /// Who has declared them.
    pub site: Site,
    /// The limits that hold in it, those around it included.
    pub limits: Limits,
    /// When its own time is over.
    pub deadline: Option<Instant>,
}

/// What a statement is known to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It only reads.
    Read,
    /// It writes.
    Write,
    /// It may do either.
    None,
}

/// Why nothing more can be committed at `level` and above.
#[derive(Clone)]
struct Doom {
    level: u32,
    first: Arc<Failure>,
    site: Site,
    refused: u32,
}

/// The site of a gate that waits to be reset.
const NOWHERE: Site = Site::of(&Function::new("", "", "", 0));

impl Default for Gate {
    /// A gate to be reset.
    fn default() -> Self {
        Self::new(NOWHERE, false)
    }
}

impl Gate {
    /// The gate of a transaction that `site` opens.
    pub fn new(site: Site, manual: bool) -> Self {
        Self {
            depth: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            careful: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            covered: AtomicBool::new(false),
            watched: AtomicBool::new(manual),
            across: AtomicBool::new(false),
            arranged: AtomicBool::new(false),
            order: Mutex::default(),
            writes: AtomicU32::new(0),
            detail: Mutex::new(Detail {
                site,
                doom: None,
                ended: None,
                ended_by_ddl: false,
                limited: Vec::new(),
                undone: None,
            }),
        }
    }

    /// Makes the gate of an ended transaction, which no handle holds any more, fit for another one.
    #[inline]
    pub fn reset(&self, manual: bool) {
        self.abandoned.store(false, Relaxed);
        self.covered.store(false, Relaxed);
        self.across.store(false, Relaxed);
        self.streams.store(0, Relaxed);
        self.writes.store(0, Relaxed);
        if self.watched.swap(manual, Relaxed) | self.careful.swap(false, Relaxed) {
            let mut detail = self.detail();
            (detail.doom, detail.ended, detail.undone) = (None, None, None);
            detail.ended_by_ddl = false;
            detail.limited.clear();
        }
    }

    /// How many levels the transaction has.
    pub fn depth(&self) -> u32 {
        self.depth.load(Relaxed)
    }

    /// The transaction has `depth` levels now, and `site` is the innermost scope.
    #[inline]
    pub fn set_depth(&self, depth: u32, site: Site) {
        self.depth.store(depth, Relaxed);
        self.detail().site = site;
    }

    /// The transaction has ended: its handles are closed.
    pub fn close(&self) {
        self.depth.store(0, Relaxed);
    }

    /// Nobody can end the transaction any more: the handle that began it has ended on another thread.
    pub fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
        self.close();
    }

    /// The transaction has these slots, of databases with these ranks.
    pub fn arrange<'a>(&self, slots: impl Iterator<Item = (usize, &'a Arc<dyn AnySlot>)>) {
        let mut order: Vec<_> = slots.map(|(rank, slot)| (rank, Arc::downgrade(slot))).collect();
        order.sort_by_key(|(rank, _)| *rank);
        *self.order() = order;
        self.arranged.store(true, Relaxed);
    }

    /// Forgets them.
    #[inline]
    pub fn disarrange(&self) {
        if self.arranged.load(Relaxed) {
            self.forget_order();
        }
    }

    #[cold]
    fn forget_order(&self) {
        self.arranged.store(false, Relaxed);
        self.order().clear();
    }

    /// Whether it has several.
    #[inline]
    pub fn is_arranged(&self) -> bool {
        self.arranged.load(Relaxed)
    }

    /// The slots whose connections are to be taken before that of this one, the first one first.
    pub fn before(&self, slot: *const ()) -> Vec<Arc<dyn AnySlot>> {
        let order = self.order();
        let own = order.iter().position(|(_, other)| std::ptr::addr_eq(other.as_ptr(), slot));
        order[..own.unwrap_or(0)].iter().filter_map(|(_, other)| other.upgrade()).collect()
    }

    fn order(&self) -> MutexGuard<'_, Vec<(usize, Weak<dyn AnySlot>)>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody can end the transaction any more.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed)
    }

    /// Says whether another transaction is open above this one on its thread: it may hold a lock that this one waits for.
    pub fn cover(&self, covered: bool) {
        self.covered.store(covered, Relaxed);
    }

    /// Whether another transaction is open above this one.
    pub fn is_covered(&self) -> bool {
        self.covered.load(Relaxed)
    }

    /// The transaction is on several databases.
    pub fn go_across(&self) {
        self.across.store(true, Relaxed);
    }

    /// Whether the transaction is on several databases.
    #[inline]
    pub fn is_across(&self) -> bool {
        self.across.load(Relaxed)
    }

    /// The innermost scope.
    #[inline]
    pub fn site(&self) -> Site {
        self.detail().site
    }

    /// Lets a statement through, at the level that it belongs to.
    // Every statement of a user's crate passes here, and a call into this crate would not be inlined by itself.
    #[inline]
    pub fn admit(&self, database: &Alias) -> Result<u32> {
        if self.careful.load(Relaxed) {
            self.look_closer()?;
        }
        self.no_stream(database)?;
        Ok(self.depth())
    }

    /// Refuses while a streaming cursor is open anywhere in the transaction.
    #[inline]
    pub fn no_stream(&self, database: &Alias) -> Result<()> {
        if self.streams.load(Relaxed) == 0 {
            return Ok(());
        }
        let reason = "rows of an earlier query are still being read in this transaction; read them all first, with \
                      `load` in place of `load_iter`";
        Err(Error::Busy { database: database.clone(), reason })
    }

    /// A streaming cursor was opened.
    pub fn open_stream(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    /// A streaming cursor and all its rows are gone.
    pub fn close_stream(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    /// Counts a statement that is not proven a read, and refuses a write where there must be none. Where the server can't
    /// keep the read-only level from writing, which `by_server` tells, what is not proven a read is refused as well.
    #[inline]
    pub fn weigh(
        &self,
        database: &Alias,
        by_server: impl Fn(u32) -> bool,
        proof: impl FnOnce() -> Proof,
    ) -> Result<()> {
        if self.watched.load(Relaxed) { self.weigh_closer(database, &by_server, proof()) } else { Ok(()) }
    }

    #[cold]
    fn weigh_closer(&self, database: &Alias, by_server: &dyn Fn(u32) -> bool, proof: Proof) -> Result<()> {
        if proof == Proof::Read {
            return Ok(());
        }
        let mut detail = self.detail();
        let level = self.depth();
        let read_only = detail.limited.last().is_some_and(|limited| limited.limits.read_only);
        if !read_only {
            drop(detail);
            self.writes.fetch_add(1, Relaxed);
            return Ok(());
        }
        // Who has said so first.
        let first = detail.limited.iter().find(|limited| limited.limits.read_only).expect("the last one is");
        let server_knows = first.own && by_server(first.level);
        if proof == Proof::None && server_knows {
            return Ok(());
        }
        let site = first.site;
        let (function, file, line) = (site.function(), site.file(), site.line());
        let error = Error::ReadOnly { database: database.clone(), function, file, line };
        detail.doom(level, Failure::new(FailureClass::Other, error.to_string()));
        self.careful.store(true, Relaxed);
        Err(error)
    }

    /// A text has lifted the read-only mode on `database`: what it has written is undone.
    pub fn allowed_to_write(&self, database: &Alias) -> Error {
        let mut detail = self.detail();
        let first = detail.limited.iter().find(|limited| limited.limits.read_only);
        let (site, level) = first.map_or((detail.site, self.depth()), |first| (first.site, first.level));
        let (function, file, line) = (site.function(), site.file(), site.line());
        let error = Error::ReadOnly { database: database.clone(), function, file, line };
        detail.doom(level, Failure::new(FailureClass::Other, error.to_string()));
        self.careful.store(true, Relaxed);
        error
    }

    /// Whether something is read-only or has a time limit, or the scope is manual.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// A scope with limits was opened. They are narrower than those around it.
    pub fn limit(&self, limited: Limited) {
        self.careful.fetch_or(limited.deadline.is_some(), Relaxed);
        self.watched.store(true, Relaxed);
        self.detail().limited.push(limited);
    }

    /// Takes all limits away, for as long as a commit has begun that should go on.
    pub fn take_limits(&self) -> Vec<Limited> {
        std::mem::take(&mut self.detail().limited)
    }

    /// Lets them hold again.
    pub fn put_limits_back(&self, limited: Vec<Limited>) {
        self.detail().limited = limited;
    }

    /// The limits that hold now, and who has declared the innermost of them.
    pub fn limits(&self) -> (Limits, Option<Site>) {
        let detail = self.detail();
        detail.limited.last().map_or((Limits::NONE, None), |limited| (limited.limits, Some(limited.site)))
    }

    /// The limits of the levels above `depth` that have their own.
    pub fn limited_levels(&self, depth: u32) -> Vec<(u32, Limits)> {
        let detail = self.detail();
        let own = detail.limited.iter().filter(|limited| limited.own && limited.level > depth);
        own.map(|limited| (limited.level, limited.limits)).collect()
    }

    /// The frames from `frame` on have ended. Where one had limits of its own level, gives those that hold again.
    pub fn widen(&self, frame: usize) -> Option<Limits> {
        let mut detail = self.detail();
        let left = detail.limited.partition_point(|limited| limited.frame < frame);
        let ended = detail.limited.split_off(left);
        let own = ended.iter().any(|limited| limited.own);
        own.then(|| detail.limited.last().map_or(Limits::NONE, |limited| limited.limits))
    }

    /// How many statements since the last commit were not proven reads.
    pub fn writes(&self) -> u32 {
        self.writes.load(Relaxed)
    }

    /// A manual scope has committed or rolled back.
    pub fn begin_anew(&self) {
        self.lift(0);
        self.writes.store(0, Relaxed);
    }

    /// Dooms `level` and all above it. The first failure stays the cause.
    pub fn doom(&self, level: u32, failure: Failure) {
        let first = self.detail().doom(level, failure);
        self.careful.store(true, Relaxed);
        // Only now: nothing is locked while somebody listens.
        if let Some((site, first)) = first {
            tracing::warn!(target: TARGET, function = site.function(), level, %first, "doomed");
        }
    }

    /// A statement has ended the transaction on `database`: what ran before it may be permanent.
    pub fn ended(&self, database: &Alias) {
        let text = "a statement ended the transaction behind the scope's back";
        self.doom(1, Failure::new(FailureClass::Other, text));
        self.detail().ended = Some(database.clone());
    }

    /// A DDL has ended a transaction that allows it: found out only as it should have been undone.
    pub fn ended_by_ddl(&self) {
        self.doom(1, Failure::new(FailureClass::Other, "a DDL has committed the transaction"));
        self.detail().ended_by_ddl = true;
    }

    /// Whether that has happened.
    pub fn has_ended_by_ddl(&self) -> bool {
        self.detail().ended_by_ddl
    }

    /// The levels above `depth` were undone: so is a doom of theirs.
    pub fn lift(&self, depth: u32) {
        let mut detail = self.detail();
        if let Some(doom) = detail.doom.take_if(|doom| doom.level > depth) {
            detail.ended = None;
            // The flag stays: the next statement takes it away.
            detail.undone = doom.first.class().is_retryable().then_some(doom.first);
        }
    }

    /// The error of a doomed transaction, if it is one.
    #[inline]
    pub fn doomed(&self) -> Option<Error> {
        if self.careful.load(Relaxed) { self.look_for_doom() } else { None }
    }

    #[cold]
    fn look_for_doom(&self) -> Option<Error> {
        let mut detail = self.detail();
        detail.look_at_the_clock();
        detail.error()
    }

    /// The first failure of a doomed transaction.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.detail().doom.as_ref().map(|doom| Arc::clone(&doom.first))
    }

    /// Why the transaction failed, if running it again may help: also a failure in a level that was undone, if nothing was
    /// done since.
    pub fn passing_failure(&self) -> Option<Arc<Failure>> {
        if !self.careful.load(Relaxed) {
            return None;
        }
        let detail = self.detail();
        match &detail.doom {
            Some(doom) => doom.first.class().passes().then(|| Arc::clone(&doom.first)),
            None => detail.undone.clone(),
        }
    }

    /// The error of a transaction that failed in the innermost scope.
    pub fn blame(&self, first: Arc<Failure>) -> Error {
        let site = self.site();
        let (function, file, line) = (site.function(), site.file(), site.line());
        Error::Doomed { first, function, file, line, refused: 0 }
    }

    #[cold]
    fn look_closer(&self) -> Result<()> {
        let mut detail = self.detail();
        detail.look_at_the_clock();
        if let Some(doom) = &mut detail.doom {
            doom.refused = doom.refused.saturating_add(1);
            return Err(detail.error().expect("doomed"));
        }
        detail.undone = None;
        let has_deadline = detail.limited.iter().any(|limited| limited.deadline.is_some());
        self.careful.store(has_deadline, Relaxed);
        Ok(())
    }

    #[inline]
    fn detail(&self) -> MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Detail {
    /// Dooms `level` and all above it. Gives the failure where it is the first.
    fn doom(&mut self, level: u32, failure: Failure) -> Option<(Site, Arc<Failure>)> {
        let site = self.site;
        match &mut self.doom {
            Some(doom) => {
                doom.level = doom.level.min(level);
                None
            }
            none => {
                let first = Arc::new(failure);
                *none = Some(Doom { level, first: Arc::clone(&first), site, refused: 0 });
                Some((site, first))
            }
        }
    }

    /// Dooms the outermost level whose time is over. Users have asked for that; no other decision reads a clock.
    fn look_at_the_clock(&mut self) {
        if self.limited.iter().all(|limited| limited.deadline.is_none()) {
            return;
        }
        let now = Instant::now();
        let Some(late) = self.limited.iter().find(|limited| limited.deadline.is_some_and(|end| end <= now)) else {
            return;
        };
        let text = format!("the time that {} may take is over", late.site);
        let level = late.level;
        self.doom(level, Failure::new(FailureClass::Timeout, text));
    }

    fn error(&self) -> Option<Error> {
        match &self.ended {
            Some(database) => Some(Error::implicit_commit(database.clone())),
            None => self.doom.as_ref().map(Doom::error),
        }
    }
}

impl Doom {
    fn error(&self) -> Error {
        let (function, file, line) = (self.site.function(), self.site.file(), self.site.line());
        Error::Doomed { first: Arc::clone(&self.first), function, file, line, refused: self.refused }
    }
}

//! What every statement of a transaction asks before it runs: may I, and at which level?
//!
//! One gate is shared by a transaction and its slots. So a rule of the transaction (doomed, or a cursor is open) holds
//! on whichever database the statement runs, and does not depend on the route.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alias::Alias;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::site::{Function, Site};

// Relaxed is enough: a handle that moves to another thread moves there through something that synchronises.
/// The shared state of one transaction.
pub struct Gate {
    depth: AtomicU32,
    streams: AtomicU32,
    doomed: AtomicBool,
    abandoned: AtomicBool,
    /// Another transaction is open above this one on its thread.
    covered: AtomicBool,
    /// Whether the scope is manual, so that its pending writes are counted.
    manual: AtomicBool,
    /// Statements since the last commit that were not proven reads.
    writes: AtomicU32,
    detail: Mutex<Detail>,
}

struct Detail {
    site: Site,
    doom: Option<Doom>,
    /// A statement has ended the transaction of this database.
    ended: Option<Alias>,
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
const NOWHERE: Site = Site::Function(&Function::new("", "", "", 0));

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
            doomed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            covered: AtomicBool::new(false),
            manual: AtomicBool::new(manual),
            writes: AtomicU32::new(0),
            detail: Mutex::new(Detail { site, doom: None, ended: None }),
        }
    }

    /// Makes the gate of an ended transaction, which no handle holds any more, fit for another one.
    pub fn reset(&self, manual: bool) {
        self.abandoned.store(false, Relaxed);
        self.covered.store(false, Relaxed);
        self.streams.store(0, Relaxed);
        self.writes.store(0, Relaxed);
        self.manual.store(manual, Relaxed);
        if self.doomed.swap(false, Relaxed) {
            let mut detail = self.detail();
            (detail.doom, detail.ended) = (None, None);
        }
    }

    /// How many levels the transaction has.
    pub fn depth(&self) -> u32 {
        self.depth.load(Relaxed)
    }

    /// The transaction has `depth` levels now, and `site` is the innermost scope.
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

    /// The innermost scope.
    pub fn site(&self) -> Site {
        self.detail().site
    }

    /// Lets a statement through, at the level that it belongs to.
    // Every statement of a user's crate passes here, and a call into this crate would not be inlined by itself.
    #[inline]
    pub fn admit(&self, database: &Alias) -> Result<u32> {
        if self.doomed.load(Relaxed) {
            return Err(self.refuse());
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

    /// Counts a statement that is not proven a read, where that matters.
    pub fn count(&self, is_write: impl FnOnce() -> bool) {
        if self.manual.load(Relaxed) && is_write() {
            self.writes.fetch_add(1, Relaxed);
        }
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
        let mut detail = self.detail();
        let site = detail.site;
        match &mut detail.doom {
            Some(doom) => doom.level = doom.level.min(level),
            none => *none = Some(Doom { level, first: Arc::new(failure), site, refused: 0 }),
        }
        self.doomed.store(true, Relaxed);
    }

    /// A statement has ended the transaction on `database`: what ran before it may be permanent.
    pub fn ended(&self, database: &Alias) {
        let text = "a statement ended the transaction behind the scope's back";
        self.doom(1, Failure::new(FailureClass::Other, text));
        self.detail().ended = Some(database.clone());
    }

    /// The levels above `depth` were undone: so is a doom of theirs.
    pub fn lift(&self, depth: u32) {
        let mut detail = self.detail();
        if detail.doom.as_ref().is_some_and(|doom| doom.level > depth) {
            (detail.doom, detail.ended) = (None, None);
            self.doomed.store(false, Relaxed);
        }
    }

    /// The error of a doomed transaction, if it is one.
    pub fn doomed(&self) -> Option<Error> {
        if !self.doomed.load(Relaxed) {
            return None;
        }
        self.detail().error()
    }

    /// The first failure of a doomed transaction.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.detail().doom.as_ref().map(|doom| Arc::clone(&doom.first))
    }

    #[cold]
    fn refuse(&self) -> Error {
        let mut detail = self.detail();
        let doom = detail.doom.as_mut().expect("the flag says doomed");
        doom.refused = doom.refused.saturating_add(1);
        detail.error().expect("doomed")
    }

    fn detail(&self) -> MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Detail {
    fn error(&self) -> Option<Error> {
        match &self.ended {
            Some(database) => Some(Error::ImplicitCommit { database: database.clone() }),
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

//! Transactions over several databases: how another database becomes a part of one.

use std::fmt::Write;
use std::sync::Arc;

use once_cell::unsync::OnceCell;

use super::branch::Branch;
use super::frame::Kind;
use super::stack::{self, Ticket, Transaction, top};
use super::terms::Terms;
use super::{Verdict, leave};
use crate::alias::Alias;
use crate::connection::characteristics::Characteristics;
use crate::connection::control::{Gid, Start};
use crate::connection::gate::Gate;
use crate::connection::slot::AnySlot;
use crate::databases::{CrossDatabase, Database, Databases};
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::fault;
use crate::routing::Subject;
use crate::site::Site;
use crate::telemetry::TARGET;
use crate::transaction_id::TransactionId;
use crate::two_phase::{self, Ability};

/// What a transaction on several databases has beyond its branches, of which the first is home.
pub(super) struct Across {
    /// What its sessions show.
    name: Arc<str>,
    /// The number of the next branch.
    next: u32,
    /// The branches have the limits and the names of such a transaction. Not yet where all of them joined while it was doomed.
    promoted: bool,
}

/// The most branches of one transaction.
const BRANCHES_LIMIT: u32 = 1_000;

/// Who needs a database in the open transaction, and for what.
pub(crate) struct Enlisting<'a> {
    pub(crate) site: Site,
    /// What it is needed for, as errors write it.
    pub(crate) target: &'a dyn std::fmt::Display,
    /// Its index in the registry.
    pub(crate) database: usize,
    /// It will only be read.
    pub(crate) reads: bool,
}

/// The branch of a database in the innermost transaction, which becomes a part of it now if it is none.
#[inline]
pub(crate) fn branch_of(databases: &Databases, enlisting: &Enlisting<'_>) -> Result<Arc<dyn AnySlot>> {
    let known =
        top(|open| open.branch(enlisting.database).map(|branch| (Arc::clone(&branch.slot), branch.is_reader())));
    match known.flatten() {
        Some((slot, reader)) if !reader || enlisting.reads => Ok(slot),
        Some(_) => Err(only_read(databases, enlisting)),
        None => enlist(databases, enlisting),
    }
}

/// What is known of the open transaction, copied so that nothing stays borrowed.
struct Open {
    branches: Vec<Branch>,
    gate: Arc<Gate>,
    terms: Terms,
    outermost: Site,
    /// A handle has begun it, not a scope.
    by_handle: bool,
    id: TransactionId,
    name: Option<Arc<str>>,
    promoted: bool,
    number: u32,
}

impl Open {
    fn of(open: &mut Transaction) -> Self {
        Self {
            branches: open.branches.clone(),
            gate: Arc::clone(&open.gate),
            terms: open.terms,
            outermost: open.outermost(),
            by_handle: open.frames.first().is_some_and(|frame| frame.kind == Kind::Handle),
            id: open.id().clone(),
            name: open.across.as_ref().map(|across| Arc::clone(&across.name)),
            promoted: open.across.as_ref().is_some_and(|across| across.promoted),
            number: open.across.as_ref().map_or(1, |across| across.next),
        }
    }

    fn only_reads(&self) -> bool {
        self.terms.characteristics.limits.read_only
    }

    /// Whether a database must be able to prepare what it writes.
    fn is_atomic(&self) -> bool {
        !self.terms.best_effort
    }

    /// Whether a branch there begins with its name: XA.
    fn names(&self, database: &Database) -> bool {
        self.is_atomic() && database.is_mysql() && !database.driver().settings().is_rolled_back()
    }

    /// Whether a branch there begins with the limits of such a transaction. A file has its own limit for locks; what it would
    /// get beyond that is there for the decision.
    fn limits(&self, database: &Database) -> bool {
        self.is_atomic() || !database.is_sqlite()
    }
}

/// Makes a database a part of the innermost transaction.
#[cold]
fn enlist(databases: &Databases, enlisting: &Enlisting<'_>) -> Result<Arc<dyn AnySlot>> {
    join(databases, enlisting, None)
}

/// The same; `listed` by the scope that opens the transaction, so that it was decided already whether it may, and it has its
/// slot.
fn join(
    databases: &Databases,
    enlisting: &Enlisting<'_>,
    listed: Option<Arc<dyn AnySlot>>,
) -> Result<Arc<dyn AnySlot>> {
    let open = top(Open::of).ok_or_else(|| Error::no_scope(enlisting.site.to_string()))?;
    let database = databases.at(enlisting.database);
    let may_write = || !open.is_atomic() || Ability::of(database) == Ability::Prepares;
    let reader = !open.only_reads() && enlisting.reads && !may_write();
    if !open.only_reads() && !reader && listed.is_none() {
        may_join(databases, enlisting, &open)?;
    }
    if open.number > BRANCHES_LIMIT {
        return Err(Error::LimitExceeded { what: "databases of one transaction", limit: BRANCHES_LIMIT });
    }
    let name = open.name.clone().unwrap_or_else(|| shown(&open.id, open.outermost));
    // While it is doomed nothing is sent: PostgreSQL would answer that the transaction is aborted. What joins now goes with
    // the level that is doomed, or is named with the next transaction of a manual scope.
    let doomed = open.gate.doomed().is_some();
    let sends = !doomed && !open.only_reads();
    if sends && !open.promoted {
        promote(databases, &open, &name)?;
    }
    fault::point("enlist.promoted");
    let mut characteristics = open.terms.characteristics;
    characteristics.limits.read_only |= reader;
    let limited = open.limits(database).then_some(&name);
    let is_listed = listed.is_some();
    let slot = match listed {
        Some(slot) => slot,
        None => new_slot(database, enlisting.site, &open.gate, characteristics)?,
    };
    if let Some(name) = limited.filter(|_| !characteristics.limits.read_only) {
        slot.go_across(name, None)?;
    }
    let Open { branches, id, number, .. } = &open;
    if !is_listed {
        let all = branches.iter().map(|branch| (branch.database, &branch.slot));
        arrange(databases, &open.gate, all.chain([(enlisting.database, &slot)]));
    }
    if sends && open.names(database) {
        let home = branches.first().map_or(&slot, |home| &home.slot);
        name_branch(databases, id, &**home, &name, *number, &*slot)?;
    }
    let (number, reader) = (*number, reader || open.only_reads());
    tracing::debug!(target: TARGET, alias = %database.alias(), id = %open.id, "enlisted");
    top(|open| {
        open.gate.go_across();
        let level = open.gate.depth();
        open.branches.push(Branch::further(enlisting.database, Arc::clone(&slot), level, number, reader));
        let promoted = sends || open.across.as_ref().is_some_and(|across| across.promoted);
        open.across = Some(Box::new(Across { name, next: number + 1, promoted }));
    });
    Ok(slot)
}

/// The order in which the transaction takes connections, if it must wait for them: that of the registry, whatever the order of
/// its statements.
fn arrange<'a>(databases: &Databases, gate: &Gate, slots: impl Iterator<Item = (usize, &'a Arc<dyn AnySlot>)>) {
    gate.arrange(slots.map(|(database, slot)| (databases.rank(database), slot)));
}

/// Slots for the databases that a scope lists after home. If a branch begins with its name, home and that database are asked at
/// once what they are, so their connections are taken now.
fn prepare(databases: &Databases, others: &[usize], site: Site) -> Result<Vec<Arc<dyn AnySlot>>> {
    let Some(open) = top(Open::of) else { return Ok(Vec::new()) };
    let slot = |database: &usize| new_slot(databases.at(*database), site, &open.gate, open.terms.characteristics);
    let slots = others.iter().map(slot).collect::<Result<Vec<_>>>()?;
    let first = open.branches.iter().map(|branch| (branch.database, &branch.slot));
    let mut all: Vec<_> = first.chain(others.iter().copied().zip(&slots)).collect();
    arrange(databases, &open.gate, all.iter().copied());
    let home = all.first().map(|(home, _)| *home);
    if !open.only_reads() && all.iter().any(|(database, _)| open.names(databases.at(*database))) {
        all.retain(|(database, _)| Some(*database) == home || open.names(databases.at(*database)));
        all.sort_by_key(|(database, _)| databases.rank(*database));
        all.iter().try_for_each(|(_, slot)| slot.take_ahead(false))?;
    }
    Ok(slots)
}

/// A slot for a further branch, which begins with the transaction's options.
fn new_slot(
    database: &Database,
    site: Site,
    gate: &Arc<Gate>,
    characteristics: Characteristics,
) -> Result<Arc<dyn AnySlot>> {
    if let Some(option) = database.driver().lacks(&characteristics) {
        return Err(database.unsupported(option, site.to_string()));
    }
    let start = Start { tripwire: true, lock_limit: true, characteristics, across: None };
    Ok(database.driver().slot(None, gate, &start))
}

/// The open branches get the limits that a transaction over several databases has.
fn promote(databases: &Databases, open: &Open, name: &Arc<str>) -> Result<()> {
    for branch in &open.branches {
        let database = databases.at(branch.database);
        if open.names(database) && !branch.slot.begun() {
            let home = &open.branches[0].slot;
            name_branch(databases, &open.id, &**home, name, branch.number(), &*branch.slot)?;
        } else if open.limits(database) {
            branch.slot.go_across(name, None)?;
        }
    }
    Ok(())
}

fn name_branch(
    databases: &Databases,
    id: &TransactionId,
    home: &dyn AnySlot,
    name: &Arc<str>,
    number: u32,
    slot: &dyn AnySlot,
) -> Result<()> {
    let global = two_phase::name(databases, id, home)?.to_string();
    let branch = two_phase::branch_name(databases, number, slot)?;
    let gid = Gid::new(&global, &branch).expect("letters and digits");
    slot.go_across(name, Some(gid))
}

/// What the sessions of a transaction show: its id and its function.
fn shown(id: &TransactionId, site: Site) -> Arc<str> {
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let function: String = site.function().chars().filter(plain).collect();
    format!("multidb {} {function}", id.uuid_letters()).into()
}

/// Opens a transaction on several databases; sends nothing but the question what home is, and only where a branch must begin
/// with its name.
pub(crate) fn begin_across(
    databases: &Databases,
    on: &[(Option<Subject>, usize)],
    site: Site,
    start: &Start,
    terms: &Terms,
) -> Result<Ticket> {
    let only_reads = terms.characteristics.limits.read_only;
    let apart = only_reads || terms.best_effort;
    let mut groups = groups(databases, on.iter().map(|(_, database)| *database), apart);
    let home = if only_reads { 0 } else { home_among(databases, &groups, site, terms)? };
    let home = groups.remove(home);
    let subject = |database| on.iter().find(|(_, index)| *index == database).and_then(|(subject, _)| *subject);
    let ticket = match home[..] {
        [_, _, ..] if !is_rehearsed(databases, home[0]) => {
            let ticket = stack::begin_attached(databases, databases.attached(&home)?, site, start, terms)?;
            go_across(databases)?;
            ticket
        }
        [first, ..] => stack::begin(databases, [(subject(first), first)], site, Kind::Scope, start, terms)?,
        [] => unreachable!("a group has a database"),
    };
    // In a test whose work is rolled back each file has a connection of its own.
    let held = top(|open| home.iter().filter(|file| open.branch(**file).is_none()).copied().collect::<Vec<_>>());
    let others: Vec<usize> = held.unwrap_or_default().into_iter().chain(groups.into_iter().flatten()).collect();
    let enlisted = prepare(databases, &others, site).and_then(|slots| {
        others.iter().zip(slots).try_for_each(|(database, slot)| {
            let target = databases.at(*database).alias();
            let enlisting = Enlisting { site, target, database: *database, reads: only_reads };
            join(databases, &enlisting, Some(slot)).map(drop)
        })
    });
    let pinned = enlisted.and_then(|()| {
        on.iter().try_for_each(|(subject, database)| subject.map_or(Ok(()), |subject| super::pin(subject, *database)))
    });
    match pinned {
        Ok(()) => Ok(ticket),
        Err(error) => {
            let _ = leave(ticket, Verdict::Undo);
            Err(error)
        }
    }
}

/// The transaction is on several databases from its start.
fn go_across(databases: &Databases) -> Result<()> {
    let Some(open) = top(Open::of) else { return Ok(()) };
    let name = shown(&open.id, open.outermost);
    promote(databases, &open, &name)?;
    top(|open| {
        open.gate.go_across();
        open.across = Some(Box::new(Across { name, next: 1, promoted: true }));
    });
    Ok(())
}

fn is_rehearsed(databases: &Databases, database: usize) -> bool {
    databases.at(database).driver().settings().is_rolled_back()
}

/// The databases that are listed, each once. Several SQLite files are one group, since one connection can commit them as one;
/// what is only read, or not committed as one, is kept `apart` and needs nothing like that.
fn groups(databases: &Databases, listed: impl Iterator<Item = usize>, apart: bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for database in listed {
        if groups.iter().flatten().any(|known| databases.are_same(*known, database)) {
            continue;
        }
        let is_file = |index: usize| databases.at(index).is_sqlite() && !databases.at(index).is_in_memory();
        let files = groups.iter_mut().find(|group| !apart && is_file(database) && is_file(group[0]));
        match files {
            Some(files) => files.push(database),
            None => groups.push(vec![database]),
        }
    }
    groups
}

/// Which of the listed databases is home.
fn home_among(databases: &Databases, groups: &[Vec<usize>], site: Site, terms: &Terms) -> Result<usize> {
    let aliases = || groups.iter().flatten().map(|index| databases.at(*index).alias().clone()).collect::<Vec<Alias>>();
    if databases.cross_database() == CrossDatabase::Refuse {
        let reason = format!(
            "{site} lists models of several databases, and the configuration says `cross_database = \"refuse\"`"
        );
        return Err(Error::NotAtomic { databases: aliases(), reason, remedies: LISTED.into() });
    }
    if terms.best_effort {
        return Ok(0);
    }
    let abilities: Vec<Ability> = groups.iter().map(|group| Ability::of(databases.at(group[0]))).collect();
    two_phase::home(&abilities).map_err(|why| Error::NotAtomic {
        databases: aliases(),
        reason: format!("{site} lists models of several databases, and {why}"),
        remedies: format!("{LISTED}; if a part may stay behind, say `commit = best_effort`"),
    })
}

/// The remedies for a scope over databases that can't commit as one.
const LISTED: &str = "route the models to one database, or give each database a function of its own with \
                      `propagation = requires_new`, which commits by itself";

/// Refuses a database that can't prepare its part.
fn may_join(databases: &Databases, enlisting: &Enlisting<'_>, open: &Open) -> Result<()> {
    let database = databases.at(enlisting.database);
    let home = open.branches.first().map(|home| databases.at(home.database));
    let handle = || "a transaction that a handle began there has no savepoint that would find out an implicit commit";
    let ability = Ability::of(database);
    let refuses = databases.cross_database() == CrossDatabase::Refuse;
    let why = match (ability.objection(), home) {
        _ if refuses => "the configuration says `cross_database = \"refuse\"`".to_owned(),
        _ if !open.is_atomic() => return Ok(()),
        (Some(why), _) => why.to_owned(),
        (_, Some(home)) if open.by_handle && home.is_mysql() => handle().to_owned(),
        (_, Some(home)) => match Ability::of(home) {
            Ability::Nothing(why) => why,
            _ => return Ok(()),
        },
        (_, None) => return Ok(()),
    };
    let Enlisting { site, target, .. } = enlisting;
    let alias = database.alias();
    let mut reason = format!(
        "{site} needs {target} on `{alias}`, inside the transaction that {} opened on `{}`, and {why}",
        open.outermost,
        home.map_or("no database", |home| home.alias().as_str()),
    );
    let mut involved: Vec<Alias> =
        open.branches.iter().map(|branch| databases.at(branch.database).alias().clone()).collect();
    involved.push(alias.clone());
    // Neither mends a transaction that a handle began, nor what the configuration says.
    let in_part = if refuses || open.by_handle {
        String::new()
    } else {
        format!("; if a part may stay behind, let {} say `commit = best_effort`", open.outermost)
    };
    let remedies = if let Some(before) = led_elsewhere(databases, enlisting) {
        write!(reason, "; the hint that holds now leads {target} there, and another one led it to `{before}` before")
            .expect("a String takes everything");
        format!(
            "let one hint hold for a whole transaction: end that of {} first, or let the inner function have `propagation = \
             requires_new`, so that it commits by itself{in_part}",
            open.outermost
        )
    } else {
        format!(
            "list {target} in `#[transactional(..)]` of {} too, route both to one database, or let the inner function say \
             `propagation = requires_new`, so that it commits by itself{in_part}",
            open.outermost
        )
    };
    Err(Error::NotAtomic { databases: involved, reason, remedies })
}

/// Where the transaction has been with the same model or application, if another hint has led it there.
fn led_elsewhere(databases: &Databases, enlisting: &Enlisting<'_>) -> Option<Alias> {
    let before = top(|open| open.pinned_elsewhere(&enlisting.target.to_string(), enlisting.database)).flatten()?;
    Some(databases.at(before).alias().clone())
}

/// A database that can't prepare was enlisted to be read.
fn only_read(databases: &Databases, enlisting: &Enlisting<'_>) -> Error {
    let Enlisting { site, target, .. } = enlisting;
    let alias = databases.at(enlisting.database).alias();
    let outermost = top(|open| open.outermost().to_string()).unwrap_or_default();
    Error::NotAtomic {
        databases: vec![alias.clone()],
        reason: format!(
            "{site} needs {target} on `{alias}`, which a `read_only` scope has made a part of the transaction that \
             {outermost} opened, and which can't prepare what it writes"
        ),
        remedies: format!(
            "list {target} in `#[transactional(..)]` of {outermost} too, or let {site} say `read_only` or `propagation = \
             requires_new`"
        ),
    }
}

/// The name of the innermost transaction: the long form where its decision can be asked for.
pub(crate) fn id() -> Option<TransactionId> {
    let (short, home) = top(|open| {
        let decided = open.across.is_some() && !open.is_best_effort();
        let provable = decided || open.terms.verifies();
        let slot = open.branches.first().filter(|_| provable).map(|home| Arc::clone(&home.slot));
        (open.id().clone(), slot.map(|slot| (open.databases().clone(), slot)))
    })?;
    let known = short.home().is_some();
    let long = home.filter(|_| !known).and_then(|(databases, home)| two_phase::name(&databases, &short, &*home).ok());
    let Some(long) = long else { return Some(short) };
    top(|open| {
        open.id = OnceCell::from(long.clone());
        // Whoever knows the name may ask, so the commit leaves a row also where one database alone has written.
        open.terms.verifies = true;
    });
    Some(long)
}

/// A manual scope has ended a transaction over several databases. The next one has another name, and where a branch begins
/// with it, it is made now.
pub(super) fn name_anew() {
    let open = top(|open| open.across.is_some().then(|| Open::of(open))).flatten();
    let Some(open) = open.filter(|open| !open.only_reads()) else { return };
    let Some(databases) = top(|open| open.databases().clone()) else { return };
    let name = shown(&open.id, open.outermost);
    if let Err(error) = promote(&databases, &open, &name) {
        let class = if error.is_retryable() { FailureClass::NotConnected } else { FailureClass::Other };
        open.gate.doom(1, Failure::new(class, error.to_string()));
    }
    top(|open| {
        if let Some(across) = &mut open.across {
            (across.name, across.promoted) = (name, true);
        }
    });
}

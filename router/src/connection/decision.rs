//! The row that says what became of a transaction: written with it, and asked for when a reply was lost or a session is gone.

use diesel::result::QueryResult;

use super::backend::Dialect;
use super::born::Born;
use super::identity;
use super::slot::AnySlot;
use crate::error::Result;
use crate::fault;
use crate::transaction_id::TransactionId;

/// `c`: committed.
const INSERT: &str = "INSERT INTO multidb_decision (gid, state, participants, created) VALUES (?, 'c', ?, {now})";
const INSERT_IF_WRITTEN: &str = "INSERT INTO multidb_decision (gid, state, participants, created) \
                                 SELECT {text}, 'c', {text}, {now} {if_written}";
/// `a`: aborted. On SQLite it stays, so that a commit that was written and not yet synced can't come back.
const PROBE: &str =
    "{insert} multidb_decision (gid, state, participants, created) VALUES (?, 'a', '', {now}) {or_nothing}";
const SELECT: &str = "SELECT state AS a, NULL AS b, NULL AS c FROM multidb_decision WHERE gid = ? {now_committed}";

const FORGOTTEN: &str = "SELECT forgotten_up_to AS a, NULL AS b, NULL AS c FROM multidb_meta";

/// What became of a transaction whose reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its row is there.
    Committed,
    /// Its row is not there, and nobody holds it: its session has ended.
    RolledBack,
    /// Nobody can tell yet.
    Unknown,
}

/// Writes the row of a transaction that is alone on its database, as its last statement.
pub fn write(slot: &dyn AnySlot, id: &TransactionId) -> Result<()> {
    slot.execute_own(INSERT, &[&id.to_string(), ""]).map(drop)
}

/// Writes the row into the open transaction of home: always, or only if home has written. Whether it is there.
pub fn intend(slot: &dyn AnySlot, id: &TransactionId, participants: &str, always: bool) -> Result<bool> {
    let is_asked = !always && !slot.is_opaque();
    if is_asked && slot.has_only_read() {
        return Ok(false);
    }
    let sql = if is_asked { INSERT_IF_WRITTEN } else { INSERT };
    Ok(slot.execute_at_end(sql, &[&id.to_string(), participants])? > 0)
}

/// What home says of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The state of its row.
    Row(String),
    /// There is no row, and nobody holds one.
    Absent,
    /// Likewise, and its row may have been deleted because its age was over.
    Forgotten,
}

/// How long whoever waits for an answer lets a session hold the row, in seconds.
const PROBE_WAIT: u64 = 5;

/// What becomes of a row that was inserted to ask.
pub enum Keep<'a> {
    /// It goes again.
    Never,
    /// On SQLite it stays, so that a commit that was written and not yet synced can't come back. But only if there is
    /// something left to be decided, which is asked while the lock is held. Elsewhere it goes.
    IfOpen(&'a mut dyn FnMut() -> bool),
    /// Likewise, unless its row may have been deleted: it could have been committed then, and who finds the new row later would
    /// take it for rolled back.
    IfOpenAndNotForgotten(&'a mut dyn FnMut() -> bool),
    /// It stays: the transaction can't be committed any more.
    Always,
}

impl Keep<'_> {
    /// Whether it stays; `None` where nothing is left to be decided.
    fn decide<B: Dialect>(self) -> Option<bool> {
        match self {
            Self::IfOpen(open) | Self::IfOpenAndNotForgotten(open) if B::KEEPS_ASKED => open().then_some(true),
            Self::IfOpen(_) | Self::IfOpenAndNotForgotten(_) | Self::Never => Some(false),
            Self::Always => Some(true),
        }
    }
}

/// Asks on a connection of its own what became of a commit whose reply was lost.
pub fn probe<B: Dialect>(raw: &mut B::Raw, born: &Born, id: &TransactionId) -> QueryResult<Verdict> {
    let named = id.home().map(|home| home.incarnation.clone());
    Ok(match ask::<B>(raw, born, id, PROBE_WAIT, Keep::IfOpen(&mut || true))? {
        // After a failover the row may have been lost, and others may have followed it before.
        Asked::Absent if named != identity::ask::<B>(raw, born)?.incarnation => Verdict::Unknown,
        Asked::Absent | Asked::Forgotten => Verdict::RolledBack,
        Asked::Row(state) if state == "a" => Verdict::RolledBack,
        // Of a session that was ended while it waited for its standby, which may never get the row.
        Asked::Row(state) if state == "c" && B::confirm(raw, born).is_err() => Verdict::Unknown,
        Asked::Row(state) if state == "c" => Verdict::Committed,
        Asked::Row(_) => Verdict::Unknown,
    })
}

/// Inserting the row finds out all there is to know: it waits for a session that still holds it, and finds the row that was
/// committed. An error says nothing of the transaction: who holds the row may be alive.
pub fn ask<B: Dialect>(
    raw: &mut B::Raw,
    born: &Born,
    id: &TransactionId,
    wait: u64,
    keep: Keep<'_>,
) -> QueryResult<Asked> {
    use diesel::connection::SimpleConnection;
    let letters = id.uuid_letters();
    let id = &*id.to_string();
    let asked = (|| {
        raw.batch_execute(&B::PROBE.replace("{wait}", &wait.to_string()))?;
        let inserted = B::execute_own(raw, born, PROBE, &[id])?;
        let found = if inserted == 0 { B::load_own(raw, born, SELECT, &[id])? } else { Vec::new() };
        fault::point("recover.probe.holding_lock");
        // Whoever has deleted the row has raised the mark with it.
        let asks_mark = matches!(keep, Keep::IfOpenAndNotForgotten(_) | Keep::Always);
        let is_forgotten = asks_mark && inserted > 0 && letters <= forgotten_up_to::<B>(raw, born)?;
        let keeps = if is_forgotten { Some(false) } else { keep.decide::<B>() };
        raw.batch_execute(if keeps == Some(true) { "COMMIT" } else { "ROLLBACK" })?;
        match (inserted, found.into_iter().next().and_then(|row| row.a)) {
            (0, Some(state)) => Ok(Asked::Row(state)),
            // Held, and then gone: the next one will find it. Or nothing is to be decided any more.
            (0, None) => Err(diesel::result::Error::NotFound),
            _ if keeps.is_none() => Err(diesel::result::Error::NotFound),
            _ if is_forgotten => Ok(Asked::Forgotten),
            _ => Ok(Asked::Absent),
        }
    })();
    if asked.is_err() {
        let _ = raw.batch_execute("ROLLBACK");
    }
    asked
}

/// The greatest id of a decision that was deleted.
pub fn forgotten_up_to<B: Dialect>(raw: &mut B::Raw, born: &Born) -> QueryResult<String> {
    let found = B::load_own(raw, born, FORGOTTEN, &[])?.into_iter().next();
    found.and_then(|row| row.a).ok_or(diesel::result::Error::NotFound)
}

/// Looks for the row where nobody else could have written it: on the one connection of a test.
#[cfg(feature = "testing")]
pub fn look<B: Dialect>(raw: &mut B::Raw, born: &Born, id: &TransactionId) -> QueryResult<Verdict> {
    let found = B::load_own(raw, born, SELECT, &[&id.to_string()])?;
    Ok(if found.is_empty() { Verdict::RolledBack } else { Verdict::Committed })
}

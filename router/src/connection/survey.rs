//! What recovery asks of a database and does to it, on a connection beside the pool.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;

use super::backend::Dialect;
use super::born::Born;
use super::check::{self, Shortcoming};
use super::control::{Control, Gid};
use super::decision::{self, Asked, Keep};
use super::identity::{self, Identity};
use super::own::TextRow;
use super::receipt;
use super::right_of_way::RightOfWay;
use super::settings::Settings;
use crate::transaction_id::TransactionId;

/// A branch that was found prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The transaction.
    pub id: TransactionId,
    /// The branch's name, with its database's id.
    pub branch: String,
}

impl Prepared {
    /// Its name on the server.
    pub fn gid(&self) -> Option<Gid> {
        Gid::new(&self.id.to_string(), &self.branch)
    }
}

/// A decision that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The transaction.
    pub id: TransactionId,
    /// Its branches beside home.
    pub participants: Vec<String>,
    /// It was open for longer than it was asked for, by its database's clock.
    pub stays_open: bool,
}

/// The most decisions that are looked at, and deleted, at once.
pub const BATCH: usize = 100;

/// A database, as recovery sees it, whatever its backend.
pub trait Survey: Send {
    /// What is not set up for transactions over several databases. The library's tables are missed where they are `needed`.
    fn shortcomings(&mut self, settings: &Settings, needed: bool) -> QueryResult<Vec<Shortcoming>>;
    /// What the database is.
    fn identity(&mut self) -> QueryResult<Identity>;
    /// Proves that this is the primary and that what it says is replicated, where anything is. It doesn't wait for long.
    fn confirm(&mut self) -> QueryResult<()>;
    /// The library's prepared branches of this database.
    fn prepared(&mut self, database_id: &str) -> QueryResult<Vec<Prepared>>;
    /// Commits a prepared branch, or rolls it back.
    fn finish(&mut self, gid: &Gid, commit: bool) -> QueryResult<()>;
    /// Whether a server that says it has ended a branch may be wrong: then [`is_held`](Self::is_held) tells.
    fn may_forget(&self) -> bool;
    /// Whether a branch is still open although it is on no list.
    fn is_held(&mut self, id: &TransactionId, branch: &str) -> QueryResult<bool>;
    /// The branches whose receipts can be read.
    fn receipts(&mut self, id: &TransactionId) -> QueryResult<Vec<String>>;
    /// What the decision's row says; an error says nothing.
    fn ask(&mut self, id: &TransactionId, keep: Keep<'_>) -> QueryResult<Asked>;
    /// The states of the rows whose id has this UUID.
    fn find(&mut self, uuid: &str) -> QueryResult<Vec<String>>;
    /// The databases disagree. Where home had `decided`, only a commit that is not closed is marked; otherwise the row is
    /// missing, or a recoverer had put it there. Whether it is marked now.
    fn mark(&mut self, id: &TransactionId, decided: bool) -> QueryResult<bool>;
    /// The transactions of receipts, after an id.
    fn receipt_ids(&mut self, after: &str) -> QueryResult<Vec<TransactionId>>;
    /// Those of these that have a row here.
    fn known(&mut self, ids: &[TransactionId]) -> QueryResult<Vec<TransactionId>>;
    /// Committed transactions that are not closed, after an id, and whether their rows are older than this many seconds.
    fn unclosed(&mut self, seconds: u64, after: &str) -> QueryResult<Vec<Decision>>;
    /// The transactions on which the databases disagree, after an id.
    fn heuristic(&mut self, after: &str) -> QueryResult<Vec<TransactionId>>;
    /// All branches have committed.
    fn close(&mut self, ids: &[TransactionId]) -> QueryResult<()>;
    /// Deletes the receipts of closed transactions.
    fn delete_receipts(&mut self, ids: &[TransactionId]) -> QueryResult<()>;
    /// Deletes decisions that nobody needs any more, and raises the mark.
    fn delete_decisions(&mut self, ids: &[TransactionId]) -> QueryResult<()>;
    /// Closed or aborted transactions whose rows are older than this many seconds, after an id.
    fn outdated(&mut self, seconds: u64, after: &str) -> QueryResult<Vec<Decision>>;
    /// The greatest id of a decision that was deleted.
    fn forgotten_up_to(&mut self) -> QueryResult<String>;
    /// This is the database now, whatever server it is on.
    fn adopt(&mut self, environment: &str) -> QueryResult<()>;
}

/// A connection for that.
pub struct Surveyor<B: Dialect> {
    raw: B::Raw,
    born: Arc<Born>,
    right_of_way: Arc<RightOfWay>,
}

const FIND: &str = "SELECT state AS a, NULL AS b, NULL AS c FROM multidb_decision WHERE gid LIKE ?";
const UNCLOSED: &str = "SELECT gid AS a, participants AS b, CASE WHEN created < {now} - {seconds} THEN 'stays' END AS c FROM \
                        multidb_decision WHERE state = 'c' AND closed IS NULL AND participants <> '' AND gid > ? ORDER BY \
                        gid LIMIT 100";
const HEURISTIC: &str =
    "SELECT gid AS a, NULL AS b, NULL AS c FROM multidb_decision WHERE state = 'h' AND gid > ? ORDER BY gid";
const CLOSE: &str = "UPDATE multidb_decision SET closed = {now} WHERE state = 'c' AND closed IS NULL AND gid IN ";
const LOST: &str =
    "{insert} multidb_decision (gid, state, participants, created) VALUES (?, 'h', '', {now}) {or_nothing}";
/// A probe on SQLite may have put the row there after the file had lost a commit.
const LOST_IN_VAIN: &str = "UPDATE multidb_decision SET state = 'h' WHERE gid = ? AND state = 'a'";
const STATE: &str = "SELECT state AS a, NULL AS b, NULL AS c FROM multidb_decision WHERE gid = ?";
const RECEIPT_IDS: &str =
    "SELECT DISTINCT gid AS a, NULL AS b, NULL AS c FROM multidb_receipt WHERE gid > ? ORDER BY gid";
const KNOWN: &str = "SELECT gid AS a, NULL AS b, NULL AS c FROM multidb_decision WHERE gid IN ";
const SPLIT: &str = "UPDATE multidb_decision SET state = 'h' WHERE gid = ? AND state = 'c' AND closed IS NULL";
const MARK: &str = "UPDATE multidb_meta SET forgotten_up_to = ? WHERE forgotten_up_to < ?";
const OUTDATED: &str = "SELECT gid AS a, participants AS b, NULL AS c FROM multidb_decision WHERE state <> 'h' AND (closed IS \
                        NOT NULL OR state = 'a' OR participants = '') AND gid > ? AND created < {now} - ";

/// Reads an id and the names of participants.
fn decision(row: TextRow) -> Option<Decision> {
    let participants = row.b?.split(',').filter(|branch| !branch.is_empty()).map(str::to_owned).collect();
    Some(Decision { id: row.a?.parse().ok()?, participants, stays_open: row.c.is_some() })
}

/// Ids as SQL writes a list: their texts are letters, digits and `_` alone.
fn listed(ids: &[TransactionId]) -> String {
    ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
}

impl<B: Dialect> Surveyor<B> {
    /// Takes a connection that was not used yet.
    pub fn new(raw: B::Raw, born: Arc<Born>, settings: &Settings) -> Self {
        Self { raw, born, right_of_way: Arc::clone(&settings.right_of_way) }
    }

    fn execute(&mut self, sql: &str, binds: &[&str]) -> QueryResult<usize> {
        B::execute_own(&mut self.raw, &self.born, sql, binds)
    }

    fn load(&mut self, sql: &str, binds: &[&str]) -> QueryResult<Vec<TextRow>> {
        B::load_own(&mut self.raw, &self.born, sql, binds)
    }

    /// Runs a statement for many ids. It touches their rows alone: those between them belong to branches that are prepared, and
    /// that its own thread may be about to commit.
    fn for_all(&mut self, sql: &str, ids: &[TransactionId]) -> QueryResult<()> {
        let _first = self.right_of_way.claim();
        let Some([by_key, freely]) = B::BY_KEY else { return self.for_each_batch(sql, ids) };
        self.raw.batch_execute(by_key)?;
        let done = self.for_each_batch(sql, ids);
        let freed = self.raw.batch_execute(freely);
        done.and(freed)
    }

    fn for_each_batch(&mut self, sql: &str, ids: &[TransactionId]) -> QueryResult<()> {
        ids.chunks(BATCH).try_for_each(|ids| self.execute(&format!("{sql}({})", listed(ids)), &[]).map(drop))
    }

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> QueryResult<()>) -> QueryResult<()> {
        let _first = self.right_of_way.claim();
        self.raw.batch_execute(&B::PROBE.replace("{wait}", &B::RECOVERY_WAIT.to_string()))?;
        let result = work(self).and_then(|()| self.raw.batch_execute("COMMIT"));
        if result.is_err() {
            let _ = self.raw.batch_execute("ROLLBACK");
        }
        result
    }
}

impl<B: Dialect> Survey for Surveyor<B> {
    fn shortcomings(&mut self, settings: &Settings, needed: bool) -> QueryResult<Vec<Shortcoming>> {
        let mut found = B::shortcomings(&mut self.raw, &self.born, settings)?;
        if needed {
            check::tables::<B>(&mut self.raw, &self.born, &mut found);
        }
        Ok(found)
    }

    fn identity(&mut self) -> QueryResult<Identity> {
        identity::ask::<B>(&mut self.raw, &self.born)
    }

    fn confirm(&mut self) -> QueryResult<()> {
        B::confirm(&mut self.raw, &self.born)
    }

    fn prepared(&mut self, database_id: &str) -> QueryResult<Vec<Prepared>> {
        let found = B::prepared(&mut self.raw)?.into_iter();
        let ours = found.filter(|(_, branch)| branch.split_once('_').is_some_and(|(_, id)| id == database_id));
        let read = ours.filter_map(|(global, branch)| Some(Prepared { id: global.parse().ok()?, branch }));
        Ok(read.filter(|prepared| prepared.id.home().is_some()).collect())
    }

    fn finish(&mut self, gid: &Gid, commit: bool) -> QueryResult<()> {
        let mut sql = String::new();
        B::write(if commit { Control::CommitPrepared(gid) } else { Control::RollbackPrepared(gid) }, &mut sql);
        self.raw.batch_execute(&sql)
    }

    fn may_forget(&self) -> bool {
        B::IS_HELD.is_some()
    }

    fn is_held(&mut self, id: &TransactionId, branch: &str) -> QueryResult<bool> {
        receipt::is_held::<B>(&mut self.raw, &self.born, id, branch)
    }

    fn receipts(&mut self, id: &TransactionId) -> QueryResult<Vec<String>> {
        receipt::find::<B>(&mut self.raw, &self.born, id)
    }

    fn ask(&mut self, id: &TransactionId, keep: Keep<'_>) -> QueryResult<Asked> {
        let _first = self.right_of_way.claim();
        decision::ask::<B>(&mut self.raw, &self.born, id, B::RECOVERY_WAIT, keep)
    }

    fn find(&mut self, uuid: &str) -> QueryResult<Vec<String>> {
        let rows = self.load(FIND, &[&format!("%{uuid}")])?;
        Ok(rows.into_iter().filter_map(|row| row.a).collect())
    }

    fn mark(&mut self, id: &TransactionId, decided: bool) -> QueryResult<bool> {
        let _first = self.right_of_way.claim();
        let id = &*id.to_string();
        if decided {
            self.execute(SPLIT, &[id])?;
        } else {
            self.execute(LOST, &[id])?;
            self.execute(LOST_IN_VAIN, &[id])?;
        }
        let found = self.load(STATE, &[id])?;
        Ok(found.first().and_then(|row| row.a.as_deref()) == Some("h"))
    }

    fn receipt_ids(&mut self, after: &str) -> QueryResult<Vec<TransactionId>> {
        let rows = self.load(&format!("{RECEIPT_IDS} LIMIT {BATCH}"), &[after])?;
        Ok(rows.into_iter().filter_map(|row| row.a?.parse().ok()).collect())
    }

    fn known(&mut self, ids: &[TransactionId]) -> QueryResult<Vec<TransactionId>> {
        let rows = self.load(&format!("{KNOWN}({})", listed(ids)), &[])?;
        Ok(rows.into_iter().filter_map(|row| row.a?.parse().ok()).collect())
    }

    fn unclosed(&mut self, seconds: u64, after: &str) -> QueryResult<Vec<Decision>> {
        let rows = self.load(&UNCLOSED.replace("{seconds}", &seconds.to_string()), &[after])?;
        Ok(rows.into_iter().filter_map(decision).collect())
    }

    fn heuristic(&mut self, after: &str) -> QueryResult<Vec<TransactionId>> {
        let rows = self.load(&format!("{HEURISTIC} LIMIT {BATCH}"), &[after])?;
        Ok(rows.into_iter().filter_map(|row| row.a?.parse().ok()).collect())
    }

    fn close(&mut self, ids: &[TransactionId]) -> QueryResult<()> {
        self.for_all(CLOSE, ids)
    }

    fn delete_receipts(&mut self, ids: &[TransactionId]) -> QueryResult<()> {
        self.for_all("DELETE FROM multidb_receipt WHERE gid IN ", ids)
    }

    fn delete_decisions(&mut self, ids: &[TransactionId]) -> QueryResult<()> {
        let Some(greatest) = ids.iter().max().map(TransactionId::uuid_letters) else { return Ok(()) };
        self.transaction(|survey| {
            survey.execute(MARK, &[&greatest, &greatest])?;
            survey.for_all("DELETE FROM multidb_decision WHERE state <> 'h' AND gid IN ", ids)
        })
    }

    fn outdated(&mut self, seconds: u64, after: &str) -> QueryResult<Vec<Decision>> {
        let rows = self.load(&format!("{OUTDATED}{seconds} ORDER BY gid LIMIT {BATCH}"), &[after])?;
        Ok(rows.into_iter().filter_map(decision).collect())
    }

    fn forgotten_up_to(&mut self) -> QueryResult<String> {
        decision::forgotten_up_to::<B>(&mut self.raw, &self.born)
    }

    fn adopt(&mut self, environment: &str) -> QueryResult<()> {
        self.execute(B::IDENTITY[2], &[environment]).map(drop)
    }
}

//! Compares what was returned with what the databases hold. It knows nothing of the library but what its calls promise.

use std::collections::BTreeMap;

use super::history::{Came, History, Kind, OUTSIDE, Says, Sent, Verb};
use super::program::Mark;

/// What must have become of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    There,
    Away,
    /// Both will do.
    Either,
}

/// How a transaction ended for what was done in it at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    RolledBack,
    /// An error said that it may be either.
    Unknown,
    /// An error said that a statement has ended it.
    Ended,
    /// It was manual, and its work was not committed.
    Pending,
}

/// The first thing that is not true. `held` says how often each row stands in which database.
pub(super) fn judge(history: &History, held: [&BTreeMap<i64, usize>; 2]) -> Result<(), String> {
    for sent in &history.sent {
        for (id, mark) in &sent.marks {
            let count = held[sent.site].get(id).copied().unwrap_or(0);
            let elsewhere = held[1 - sent.site].get(id).copied().unwrap_or(0);
            if elsewhere > 0 {
                return Err(format!("row {id} of {:?} stands in the other database", sent.what));
            }
            row(history, sent, *mark, count).map_err(|problem| {
                format!("{problem}: row {id} of {:?} ({}){}", sent.what, sent.came, around(history, sent.level))
            })?;
        }
    }
    keys(history)?;
    hooks(history)
}

/// What has a key is committed once, and a repeat is answered where there was a first time.
fn keys(history: &History) -> Result<(), String> {
    for (key, body, came) in &history.keyed {
        let others = || history.keyed.iter().filter(|other| other.0 == *key);
        if body.is_none() && came.is_ok() && !others().any(|(_, body, came)| body.is_some() && came.is_ok()) {
            return Err(format!("the key {key} was answered, and its body never returned"));
        }
        let committed = others().filter_map(|(_, body, _)| *body).filter(|level| {
            let Some(transaction) = history.transaction_of(*level) else { return true };
            let (end, when) = end_of(history, transaction, history.levels[*level].began);
            end == End::Committed && kept(history, *level, transaction, when) == Fate::There
        });
        let committed: Vec<usize> = committed.collect();
        if let [first, .., last] = committed[..] {
            return Err(format!("the body of key {key} ran twice{}{}", around(history, first), around(history, last)));
        }
    }
    Ok(())
}

/// Whether a text that was not refused may end the transaction around it.
fn may_commit(sent: &Sent) -> bool {
    const WORDS: [&str; 13] = [
        "COMMIT", "BEGIN", "START", "END", "XA", "CREATE", "ALTER", "TRUNCATE", "ANALYZE", "LOCK", "EXECUTE", "CALL",
        "VACUUM",
    ];
    let text = sent.what.to_uppercase();
    sent.came.says() == Says::Ended
        || (matches!(sent.came, Came::Ok | Came::Panic | Came::Err(Says::Lost, _))
            && WORDS.iter().any(|word| text.contains(word)))
}

/// A test whose work is rolled back leaves nothing, unless an error or a text of the user's has said so.
pub(super) fn judge_undone(history: &History, held: [&BTreeMap<i64, usize>; 2]) -> Result<(), String> {
    let told = |sent: &Sent| matches!(&sent.came, Came::Err(_, text) if text.contains("inside `with_raw`"));
    let ended = history.sent.iter().any(|sent| told(sent) || may_commit(sent))
        || history.levels.iter().any(|level| level.came.says() == Says::Ended);
    match held.iter().flat_map(|held| held.keys()).next() {
        Some(id) if !ended => {
            let sent = history.sent.iter().find(|sent| sent.marks.iter().any(|mark| mark.0 == *id));
            let (what, came) = sent.map_or(("nothing", &Came::Not), |sent| (&sent.what, &sent.came));
            Err(format!("a test whose work is rolled back has left something: row {id} of {what:?} ({came})"))
        }
        _ => Ok(()),
    }
}

fn row(history: &History, sent: &Sent, mark: Mark, count: usize) -> Result<(), String> {
    if count > 1 {
        return Err(format!("it stands there {count} times"));
    }
    if mark == Mark::Fails && sent.came.is_ok() {
        return Err("`Ok` of a text that fails".into());
    }
    let levels = || history.all_around(sent.level).map(|at| &history.levels[at]);
    if levels().any(|level| level.repeated) && count > 0 {
        return Err("it was committed in an attempt that was run again".into());
    }
    let transaction = history.transaction_of(sent.level);
    if let Some(transaction) = transaction {
        let mut inside = history.all_around(sent.level).take_while(|at| *at != transaction).chain([transaction]);
        let ended = matches!(end_of(history, transaction, sent.at).0, End::Ended | End::Unknown);
        match (inside.any(|at| history.levels[at].read_only), count) {
            (false, _) => {}
            // A procedure may have handled the refusal itself.
            (true, 0) => return Ok(()),
            (true, _) if ended => {}
            (true, _) => return Err("a read-only scope has written".into()),
        }
    }
    match (fate(history, sent, mark, transaction), count) {
        (Fate::There, 0) => Err("it is not there, and it was `Ok`".into()),
        (Fate::Away, 1) => Err("it is there, and nothing has said so".into()),
        _ => Ok(()),
    }
}

fn fate(history: &History, sent: &Sent, mark: Mark, transaction: Option<usize>) -> Fate {
    let Some(transaction) = transaction else {
        return match (&sent.came, mark) {
            (Came::Ok, Mark::Put) => Fate::There,
            (Came::Ok, Mark::Gone) => Fate::Away,
            // The part before what failed may have been committed.
            (Came::Err(Says::Nothing, _), Mark::Put | Mark::Gone) if sent.single => Fate::Away,
            _ => Fate::Either,
        };
    };
    let (end, when) = end_of(history, transaction, sent.at);
    match end {
        End::Unknown | End::Ended => return Fate::Either,
        End::RolledBack | End::Pending => return Fate::Away,
        End::Committed => {}
    }
    match kept(history, sent.level, transaction, when) {
        Fate::There => {}
        other => return other,
    }
    match (&sent.came, mark) {
        (_, Mark::Unsure) | (Came::Not, _) => Fate::Either,
        (Came::Ok, Mark::Put | Mark::Fails) => Fate::There,
        (Came::Ok, Mark::Gone) => Fate::Away,
        // Refused, and the transaction was committed all the same: then nothing of it was sent.
        (Came::Err(..) | Came::Panic, _) if sent.marks.len() == 1 && sent.single => Fate::Away,
        (Came::Err(..) | Came::Panic, _) => Fate::Either,
    }
}

/// What became of what a transaction did at a time, and when that was decided.
fn end_of(history: &History, transaction: usize, at: usize) -> (End, usize) {
    let level = &history.levels[transaction];
    let mut later = history.ends.iter().filter(|(when, of, ..)| *of == transaction && *when > at);
    let mut failed = false;
    for (when, _, verb, came) in later.by_ref() {
        match (verb, came) {
            (Verb::Commit, Came::Ok) if failed => return (End::Unknown, *when),
            (Verb::Commit, Came::Ok) => return (End::Committed, *when),
            (Verb::RollBack, Came::Ok) => return (End::RolledBack, *when),
            (_, came) => match came.says() {
                Says::InDoubt => return (End::Unknown, *when),
                Says::Ended => return (End::Ended, *when),
                _ => failed = true,
            },
        }
    }
    let told = told(history, transaction);
    let end = match &level.came {
        _ if level.repeated => End::RolledBack,
        Came::Ok if level.unsure => End::Unknown,
        Came::Ok if level.undone => End::RolledBack,
        Came::Ok if level.manual => End::Pending,
        Came::Ok => End::Committed,
        Came::Not => End::Unknown,
        // Nothing can be told by a panic.
        Came::Panic if has_committed_itself(history, transaction) => End::Ended,
        Came::Panic | Came::Err(..) if level.allows_ddl && has_committed_itself(history, transaction) => End::Ended,
        Came::Panic | Came::Err(..) => told.unwrap_or(End::RolledBack),
    };
    (end, level.ended)
}

fn has_committed_itself(history: &History, transaction: usize) -> bool {
    history.sent.iter().any(|sent| is_in(history, transaction, sent) && may_commit(sent))
}

fn is_in(history: &History, transaction: usize, sent: &Sent) -> bool {
    history.transaction_of(sent.level) == Some(transaction)
}

/// What errors of this transaction have said to the program.
fn told(history: &History, transaction: usize) -> Option<End> {
    let is_in = |level: usize| history.transaction_of(level) == Some(transaction);
    let of_statements = history.sent.iter().filter(|sent| is_in(sent.level)).map(|sent| sent.came.says());
    let levels = history.levels.iter().enumerate().filter(|(at, _)| is_in(*at));
    let of_levels = levels.map(|(_, level)| level.came.says());
    let of_ends = history.ends.iter().filter(|(_, of, ..)| *of == transaction).map(|(.., came)| came.says());
    let all: Vec<Says> = of_statements.chain(of_levels).chain(of_ends).collect();
    if all.contains(&Says::InDoubt) { Some(End::Unknown) } else { all.contains(&Says::Ended).then_some(End::Ended) }
}

/// Whether what was done in a level is a part of what its transaction committed then.
fn kept(history: &History, level: usize, transaction: usize, when: usize) -> Fate {
    let mut fate = Fate::There;
    for at in history.all_around(level).take_while(|at| *at != transaction) {
        let level = &history.levels[at];
        // A commit inside of it has ended it, whatever it returned then.
        if level.ended > when {
            continue;
        }
        match (level.kind, &level.came) {
            (Kind::Nested, Came::Ok) if level.unsure => fate = Fate::Either,
            (Kind::Nested | Kind::Savepoint, Came::Ok) if level.undone => return Fate::Away,
            (Kind::Transaction | Kind::Autocommit, _) | (_, Came::Ok) => {}
            (Kind::Nested, _) => return Fate::Away,
            // It has doomed the level around it, which then can't have returned `Ok`, or was undone.
            (Kind::Joined | Kind::Savepoint, _) => fate = Fate::Either,
        }
    }
    fate
}

fn hooks(history: &History) -> Result<(), String> {
    for hook in &history.hooks {
        let [committed, rolled_back] = hook.ran;
        let fail = |what: &str| {
            let ran = format!("on_commit ran {committed} times and on_rollback {rolled_back} times");
            Err(format!("{ran}: {what}{}", around(history, hook.level)))
        };
        if committed + rolled_back > 1 {
            return fail("one of them runs once");
        }
        if history.all_around(hook.level).any(|at| history.levels[at].repeated) {
            // Those of what committed by itself inside have run.
            continue;
        }
        let Some(transaction) = history.transaction_of(hook.level) else {
            if committed != 1 {
                return fail("outside of a transaction it runs at once");
            }
            continue;
        };
        let (end, when) = end_of(history, transaction, hook.at);
        let kept = kept(history, hook.level, transaction, when);
        match (end, kept) {
            (End::Committed, Fate::There) if committed != 1 => return fail("committed"),
            (End::Committed, Fate::Away) if committed + rolled_back != 0 => return fail("the level was undone"),
            (End::Committed, _) if rolled_back != 0 => return fail("committed"),
            (End::RolledBack, _) if committed != 0 => return fail("rolled back"),
            _ => {}
        }
    }
    Ok(())
}

/// The levels that something was done in, each with what it returned.
fn around(history: &History, level: usize) -> String {
    let levels = history.all_around(level).take_while(|at| *at != OUTSIDE);
    let told = levels.map(|at| format!("; in {:?}: {}", history.levels[at].kind, history.levels[at].came));
    told.collect::<Vec<_>>().concat()
}

//! A program: a small tree of steps, which prints as a list.

use std::fmt::{self, Write};

use multidb::testing::{Fault, Point};
use multidb::{CommitMode, Propagation};

/// What one thread does, outside of any scope at first.
#[derive(Debug, Clone, Default)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// Failures that happen at a point of a database, after it was passed so often.
    pub(super) faults: Vec<(usize, Point, u32, Fault)>,
    /// It is a test whose work is rolled back.
    pub(super) undone: bool,
}

/// A step. Where it fails, the body around it goes on if it is `tolerant`, and ends with the same error or panic if not.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) tolerant: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Puts a row through Diesel's own builder, on the site with this number.
    Insert(usize, How),
    /// Sends a text of the user's.
    Send(usize, Channel, Text),
    /// Puts a row whose value panics when it is bound.
    PanicInBind(usize),
    Panic,
    Fail,
    /// In the first attempt of the transaction: a failure that may pass.
    Stumble(usize),
    Scope(Scope, Vec<Step>),
    /// Diesel's `transaction` on a handle.
    Transaction(usize, Vec<Step>),
    Savepoint(Ending, Vec<Step>),
    /// A cursor is open while the steps run.
    Stream(usize, Vec<Step>),
    SetRollback(bool),
    Commit,
    RollBack,
    Hooks,
    /// All sessions of the service on a site are killed.
    Kill(usize),
    /// From here on the instrumentation of the connection panics at a moment. A row is put.
    Explode(usize, Moment),
    /// A session of another program holds a lock on the table while the steps run.
    Wait(usize, Relief, Vec<Step>),
}

/// When an instrumentation panics: at a statement with these words, before it is sent or after it has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) words: &'static str,
    pub(super) after: bool,
}

/// How a wait for a lock ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relief {
    /// The lock is given back.
    Release,
    /// The session that waits is killed.
    Kill,
}

/// How a row is put through Diesel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Execute,
    /// With RETURNING, where Diesel has it.
    Returning,
    /// By a SELECT that calls a function of the database, which puts it.
    Calls,
    /// The same in a boxed query, whose type says nothing of that.
    Boxed,
}

/// The way that a text takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// `batch_execute`.
    Batch,
    /// `sql_query(..).execute`.
    Execute,
    /// `sql_query(..).load`.
    Load,
    /// `sql_query(..).get_result`.
    First,
    /// `sql_query(..).load_iter`, of which one row is read.
    Iterate,
    /// `batch_execute` within `with_raw`.
    Raw,
    /// The same, with an instrumentation of the user's on the connection.
    RawUnwatched,
    /// The same, followed by a panic.
    RawPanic,
}

/// A text with the rows that it puts. `{0}` and `{1}` in it stand for their ids, `{t}` and its like for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) sql: String,
    pub(super) marks: Vec<Mark>,
    /// It is one statement, which does all or nothing.
    pub(super) single: bool,
    /// It gives rows with a column `id`.
    pub(super) rows: bool,
}

/// What a text does with a row, where it returns `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is put in the transaction around it, and where there is none, committed.
    Put,
    /// It is not there afterwards.
    Gone,
    /// It may be either.
    Unsure,
    /// The text fails: it returns no `Ok`.
    Fails,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "these are the options that a scope has")]
pub(super) struct Scope {
    pub(super) on: On,
    pub(super) propagation: Propagation,
    pub(super) manual: bool,
    pub(super) read_only: bool,
    pub(super) serializable: bool,
    pub(super) retry: u32,
    pub(super) verified: bool,
    pub(super) commit: CommitMode,
    /// Its key, if it is to run once.
    pub(super) key: Option<u8>,
}

/// What a scope lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    One(usize),
    Both,
}

/// What becomes of a savepoint after a body that returned `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Release,
    RollBack,
    Drop,
}

impl Scope {
    pub(super) fn plain(on: On) -> Self {
        Self {
            on,
            propagation: Propagation::Nested,
            manual: false,
            read_only: false,
            serializable: false,
            retry: 0,
            verified: false,
            commit: CommitMode::Atomic,
            key: None,
        }
    }
}

impl Program {
    /// The kinds of its steps.
    pub(super) fn outline(&self) -> Vec<String> {
        fn walk(steps: &[Step], outline: &mut Vec<String>) {
            for step in steps {
                outline.push(match &step.action {
                    Action::Send(_, channel, text) => format!("{channel:?} of {} rows", text.marks.len()),
                    Action::Scope(scope, _) => format!("{}{}", scope.propagation.word(), u8::from(scope.read_only)),
                    other => other.title().split([' ', '(']).next().unwrap_or_default().to_owned(),
                });
                if let Some(inner) = step.action.inner() {
                    walk(inner, outline);
                }
            }
        }
        let mut outline = Vec::new();
        walk(&self.steps, &mut outline);
        outline
    }
}

impl Action {
    /// The steps inside.
    pub(super) fn inner(&self) -> Option<&Vec<Step>> {
        match self {
            Self::Scope(_, steps)
            | Self::Transaction(_, steps)
            | Self::Savepoint(_, steps)
            | Self::Stream(_, steps)
            | Self::Wait(_, _, steps) => Some(steps),
            _ => None,
        }
    }

    pub(super) fn inner_mut(&mut self) -> Option<&mut Vec<Step>> {
        match self {
            Self::Scope(_, steps)
            | Self::Transaction(_, steps)
            | Self::Savepoint(_, steps)
            | Self::Stream(_, steps)
            | Self::Wait(_, _, steps) => Some(steps),
            _ => None,
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Scope(scope, _) => {
                let mut title = format!("scope on {:?}, {}", scope.on, scope.propagation.word());
                for (word, on) in [
                    ("manual", scope.manual),
                    ("read_only", scope.read_only),
                    ("serializable", scope.serializable),
                    ("verify_commit", scope.verified),
                    ("best_effort", scope.commit == CommitMode::BestEffort),
                ] {
                    if on {
                        write!(title, ", {word}").unwrap();
                    }
                }
                if let Some(key) = scope.key {
                    write!(title, ", once = {key}").unwrap();
                }
                if scope.retry > 0 {
                    write!(title, ", retry = {}", scope.retry).unwrap();
                }
                title
            }
            Self::Transaction(site, _) => format!("handle.transaction on {site}"),
            Self::Savepoint(ending, _) => format!("savepoint, then {ending:?}"),
            Self::Stream(site, _) => format!("cursor open on {site}"),
            Self::Wait(site, relief, _) => format!("{site} is locked by somebody else; then {relief:?}"),
            Self::Send(site, channel, text) => {
                format!("send on {site} by {channel:?}: {:?}, marks {:?}", text.sql, text.marks)
            }
            other => format!("{other:?}"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.undone {
            writeln!(f, "    in `testing::rolled_back`")?;
        }
        for (site, point, skip, fault) in &self.faults {
            writeln!(f, "    planned on {site}: {fault:?} at {point:?}, after {skip}")?;
        }
        list(f, &self.steps, 1)
    }
}

fn list(f: &mut fmt::Formatter<'_>, steps: &[Step], depth: usize) -> fmt::Result {
    for Step { action, tolerant } in steps {
        let mark = if *tolerant { "- " } else { "! " };
        writeln!(f, "{:indent$}{mark}{}", "", action.title(), indent = depth * 4)?;
        if let Some(steps) = action.inner() {
            list(f, steps, depth + 1)?;
        }
    }
    Ok(())
}

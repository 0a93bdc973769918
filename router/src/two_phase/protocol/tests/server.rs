//! One modelled database: what it has stored, what it holds uncommitted, and the coordinator's session on it.

use super::standing::Standing;
use crate::two_phase::protocol::{Answer, State, Step};

/// The row of the decision, committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: State,
    pub closed: bool,
}

/// What a branch holds until it is committed.
#[expect(clippy::struct_excessive_bools, reason = "each of them varies by itself")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Held {
    pub work: bool,
    pub receipt: bool,
    pub intent: bool,
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Branch {
    None,
    Open(Held),
    Prepared(Held),
    /// Prepared, and on no list until its server restarts.
    Forgotten(Held),
    Committed,
    RolledBack,
}

/// The coordinator's session, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Session {
    Live,
    /// The client is gone, and the server hasn't noticed. A request may still be on its way.
    Broken(Option<Step>),
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Server {
    pub row: Option<Row>,
    pub receipt: bool,
    pub work: bool,
    pub branch: Branch,
    pub session: Session,
    pub standing: Standing,
    /// A probe holds the lock of the row.
    pub probed: bool,
    /// SQLite: the commit of home was written and never synced. Nobody sees it, and it may come back.
    pub limbo: Option<Held>,
}

impl Server {
    pub fn new(branch: Branch, session: Session) -> Self {
        Self {
            row: None,
            receipt: false,
            work: false,
            branch,
            session,
            standing: Standing::INSTALLED,
            probed: false,
            limbo: None,
        }
    }

    /// Whether a session holds the row uncommitted. A SQLite file has one lock for all rows.
    pub fn locked(&self, sqlite: bool) -> bool {
        self.probed || matches!(self.branch, Branch::Open(held) if held.intent || sqlite)
    }

    pub fn prepared(&self) -> bool {
        matches!(self.branch, Branch::Prepared(_))
    }

    pub fn commit(&mut self, held: Held) {
        self.branch = Branch::Committed;
        self.work |= held.work;
        self.receipt |= held.receipt;
        if held.intent {
            self.row = Some(Row { state: State::Committed, closed: false });
        }
    }

    /// Ends a prepared branch, whoever asks.
    pub fn finish(&mut self, commit: bool) -> bool {
        let Branch::Prepared(held) = self.branch else { return false };
        if commit {
            self.commit(held);
        } else {
            self.branch = Branch::RolledBack;
        }
        true
    }

    /// Somebody is told that a prepared branch has ended, and it has not. Whether there was one.
    pub fn forget(&mut self) -> bool {
        let Branch::Prepared(held) = self.branch else { return false };
        self.branch = Branch::Forgotten(held);
        true
    }

    /// What it has forgotten it lists again.
    pub fn restart(&mut self) {
        if let Branch::Forgotten(held) = self.branch {
            self.branch = Branch::Prepared(held);
        }
    }

    pub fn is_forgotten(&self) -> bool {
        matches!(self.branch, Branch::Forgotten(_))
    }

    /// What the server does when it sees that a client is gone: a prepared branch stays.
    pub fn hang_up(&mut self) {
        self.session = Session::Gone;
        if matches!(self.branch, Branch::Open(_)) {
            self.branch = Branch::RolledBack;
        }
    }

    /// A request of the coordinator on its session.
    pub fn execute(&mut self, step: Step) -> Answer {
        match (step, self.branch) {
            (Step::Receipt(_), Branch::Open(held)) if held.work => {
                self.branch = Branch::Open(Held { receipt: true, ..held });
                Answer::Wrote
            }
            (Step::Receipt(_), Branch::Open(_)) => Answer::Read,
            (Step::EndReader(_), Branch::Open(held)) => {
                self.commit(held);
                Answer::Done
            }
            (Step::Intent { always }, branch) => self.intend(always, branch),
            (Step::Withdraw(_), Branch::Open(held)) => {
                self.branch = Branch::Open(Held { receipt: false, ..held });
                Answer::Done
            }
            (Step::CommitAlone(_) | Step::Decide, Branch::Open(held)) => {
                self.commit(held);
                Answer::Committed
            }
            (Step::CommitAlone(_) | Step::Decide, _) => Answer::RolledBack,
            (Step::Prepare(_), Branch::Open(held)) => {
                self.branch = Branch::Prepared(held);
                Answer::Done
            }
            (Step::Apply(_), Branch::Prepared(_)) => {
                self.finish(true);
                Answer::Done
            }
            (Step::RollBack(_), Branch::Open(_) | Branch::Prepared(_)) => {
                self.branch = Branch::RolledBack;
                Answer::Done
            }
            (Step::RollBack(_), Branch::None | Branch::RolledBack) => Answer::Done,
            _ => Answer::Failed,
        }
    }

    fn intend(&mut self, always: bool, branch: Branch) -> Answer {
        let held = match branch {
            Branch::Open(held) => held,
            // It is begun for the row, be it that it has been a reader before.
            Branch::None | Branch::Committed if always => Held::default(),
            _ => return Answer::Failed,
        };
        // The transaction stays open where its INSERT is refused.
        self.branch = Branch::Open(held);
        if !held.work && !always {
            return Answer::Read;
        }
        if held.read_only || self.row.is_some() || self.probed {
            return Answer::Failed;
        }
        self.branch = Branch::Open(Held { intent: true, ..held });
        Answer::Wrote
    }
}

//! The recovery of one transaction whose branches were found prepared, and the closing of one that was committed.

/// The state of a decision's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Committed.
    Committed,
    /// Aborted by a recoverer.
    Aborted,
    /// The databases disagree, and an operator must look.
    Heuristic,
}

impl State {
    /// The letter in the table.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Committed => "c",
            Self::Aborted => "a",
            Self::Heuristic => "h",
        }
    }

    /// The state of a letter.
    pub fn of(letter: &str) -> Option<Self> {
        [Self::Committed, Self::Aborted, Self::Heuristic].into_iter().find(|state| state.letter() == letter)
    }
}

/// What home says of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HomeSays {
    /// Its row is there, committed.
    Row(State),
    /// There is no row, and nobody holds one.
    Absent {
        /// Home is what it was when the transaction was named, or an operator has said that it may be trusted.
        trusted: Trust,
    },
    /// Its row is held by a session, or home can't be asked: not proven dead.
    Nothing,
}

/// Whether the absence of a row says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Home has the incarnation in which the transaction was named.
    Same,
    /// It has another one, which an operator has adopted.
    Adopted,
    /// It has another one: a failover may have lost the row.
    Other,
}

/// What the databases say of receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipts {
    /// One of them has one.
    pub found: bool,
    /// Every configured database has answered.
    pub complete: bool,
}

/// What recovery does next. Numbers are branches that were found prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Ask home, with a conflicting write: [`Finding::Home`].
    Probe,
    /// Ask every database that can be reached for receipts: [`Finding::Receipts`].
    AskReceipts,
    /// Write the state `h` at home, unless the transaction was closed meanwhile, so that its receipts are deleted:
    /// [`Finding::Done`], [`Finding::Failed`] or [`Finding::Closed`].
    MarkHeuristic,
    /// Commit or roll back a prepared branch: [`Finding::Done`] or [`Finding::Failed`].
    Finish {
        /// The branch.
        branch: usize,
        /// Whether it is committed.
        commit: bool,
    },
    /// Look whether a branch that could not be finished is still prepared: [`Finding::Listed`], [`Finding::Gone`] or
    /// [`Finding::Failed`].
    ListAgain(usize),
    /// Look for the receipt of a branch that is gone: [`Finding::Receipt`] or [`Finding::Failed`].
    AskReceipt(usize),
    /// There is nothing left to be done for now.
    End(Outcome),
}

/// What came of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// What home says.
    Home(HomeSays),
    /// What the databases say.
    Receipts(Receipts),
    /// It is done.
    Done,
    /// It failed, or nobody knows.
    Failed,
    /// The branch is still prepared.
    Listed,
    /// The branch is prepared no more.
    Gone,
    /// Whether the receipt is there.
    Receipt(bool),
    /// All branches had committed, and the transaction was closed.
    Closed,
}

/// What recovery has made of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All its branches that were found are committed.
    Committed,
    /// All its branches that were found are rolled back.
    RolledBack,
    /// Nothing may be done, or not all could be: the next pass looks again.
    Left,
    /// The databases disagree.
    Heuristic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Probing,
    Asking { trusted: Trust },
    Marking,
    Finishing { branch: usize, commit: bool },
    Listing { branch: usize, commit: bool },
    Receipt { branch: usize, commit: bool },
    Ended(Outcome),
}

/// The recovery of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recoverer {
    branches: usize,
    /// What the configuration says where home has lost a commit: commit what is left.
    commit_on_lost_home: bool,
    stage: Stage,
    /// A branch could not be finished.
    left: bool,
}

impl Recoverer {
    /// This many branches were found prepared.
    pub fn new(branches: usize, commit_on_lost_home: bool) -> Self {
        Self { branches, commit_on_lost_home, stage: Stage::Probing, left: false }
    }

    /// What is to be done next.
    pub fn next(&self) -> Task {
        match self.stage {
            Stage::Probing => Task::Probe,
            Stage::Asking { .. } => Task::AskReceipts,
            Stage::Marking => Task::MarkHeuristic,
            Stage::Finishing { branch, commit } => Task::Finish { branch, commit },
            Stage::Listing { branch, .. } => Task::ListAgain(branch),
            Stage::Receipt { branch, .. } => Task::AskReceipt(branch),
            Stage::Ended(outcome) => Task::End(outcome),
        }
    }

    /// Takes note of what came of the task.
    pub fn found(&mut self, finding: Finding) {
        self.stage = match (self.stage, finding) {
            (Stage::Probing, Finding::Home(says)) => self.verdict(says),
            (Stage::Asking { trusted }, Finding::Receipts(receipts)) => self.absent(trusted, receipts),
            (Stage::Marking, Finding::Closed) => Stage::Ended(Outcome::Left),
            (Stage::Marking, _) if self.commit_on_lost_home => self.from(0, true),
            (Stage::Marking, _) => Stage::Ended(Outcome::Heuristic),
            (Stage::Finishing { branch, commit }, Finding::Done) => self.from(branch + 1, commit),
            // Any error: only the list tells.
            (Stage::Finishing { branch, commit }, Finding::Failed) => Stage::Listing { branch, commit },
            (Stage::Listing { branch, commit }, Finding::Gone) => Stage::Receipt { branch, commit },
            (Stage::Receipt { branch, commit }, Finding::Receipt(there)) if there == commit => {
                self.from(branch + 1, commit)
            }
            // Gone the other way: somebody has decided otherwise by hand.
            (Stage::Receipt { .. }, Finding::Receipt(_)) => {
                self.commit_on_lost_home = false;
                Stage::Marking
            }
            // A listing that fails is no empty listing.
            (Stage::Listing { branch, commit }, Finding::Listed | Finding::Failed)
            | (Stage::Receipt { branch, commit }, Finding::Failed) => {
                self.left = true;
                self.from(branch + 1, commit)
            }
            (stage, finding) => unreachable!("{finding:?} at {stage:?}"),
        };
    }

    fn from(&self, branch: usize, commit: bool) -> Stage {
        if branch < self.branches {
            return Stage::Finishing { branch, commit };
        }
        Stage::Ended(match (self.left, commit) {
            (true, _) => Outcome::Left,
            (false, true) => Outcome::Committed,
            (false, false) => Outcome::RolledBack,
        })
    }

    fn verdict(&self, says: HomeSays) -> Stage {
        match says {
            // A committed row is followed whatever the incarnation; only absence needs care.
            HomeSays::Row(State::Committed) => self.from(0, true),
            // Whoever has written it may not have looked for receipts.
            HomeSays::Row(State::Aborted) => Stage::Asking { trusted: Trust::Same },
            HomeSays::Row(State::Heuristic) if self.commit_on_lost_home => self.from(0, true),
            HomeSays::Row(State::Heuristic) => Stage::Ended(Outcome::Heuristic),
            HomeSays::Absent { trusted } => Stage::Asking { trusted },
            HomeSays::Nothing => Stage::Ended(Outcome::Left),
        }
    }

    fn absent(&self, trusted: Trust, receipts: Receipts) -> Stage {
        match (receipts, trusted) {
            // A branch has committed, so it was decided: home has lost it.
            (Receipts { found: true, .. }, _) => Stage::Marking,
            (_, Trust::Same) | (Receipts { complete: true, .. }, Trust::Adopted) => self.from(0, false),
            (_, Trust::Adopted | Trust::Other) => Stage::Ended(Outcome::Left),
        }
    }
}

/// What is known of a participant of a committed transaction. Asked in this order: its receipt, the list of what is
/// prepared, and its receipt once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Participant {
    /// Its receipt is there: it has committed.
    Receipt,
    /// It is still prepared.
    Listed,
    /// It is neither: somebody has rolled it back.
    Gone,
    /// It can't be asked.
    Unknown,
}

/// What may become of a committed transaction's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// All have committed: nobody needs the row for recovery any more.
    Close,
    /// It must stay as it is.
    Leave,
    /// The databases disagree.
    Heuristic,
}

/// Whether a committed transaction's row may be closed: only on evidence from every participant.
pub fn closing(participants: impl IntoIterator<Item = Participant>) -> Closing {
    participants.into_iter().fold(Closing::Close, |so_far, participant| match (so_far, participant) {
        (Closing::Heuristic, _) | (_, Participant::Gone) => Closing::Heuristic,
        (Closing::Close, Participant::Receipt) => Closing::Close,
        _ => Closing::Leave,
    })
}

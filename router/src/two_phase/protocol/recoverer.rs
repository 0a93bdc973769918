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
    /// Ask home, with a conflicting write: [`Finding::Home`]. On SQLite the write stays, as an `a`: but only if one of the
    /// branches is still prepared, asked while home's lock is held. Else the list is old, the transaction may have been
    /// committed and forgotten, and it is [`HomeSays::Nothing`]. No row is left where no branch was listed at all.
    Probe,
    /// Ask every database that can be reached for receipts: [`Finding::Receipts`].
    AskReceipts,
    /// Write the state `h` at home: [`Finding::Done`], also where it is there already, [`Finding::Closed`] or
    /// [`Finding::Failed`].
    MarkHeuristic {
        /// Home has decided to commit: only a `c` that is not closed may be changed, and nothing is inserted. Else home knows
        /// nothing of the transaction: the row is inserted, or an `a` is changed. In one statement with the question.
        decided: bool,
    },
    /// Commit or roll back a prepared branch: [`Finding::Done`], [`Finding::Failed`], or [`Finding::Held`].
    Finish {
        /// The branch.
        branch: usize,
        /// Whether it is committed.
        commit: bool,
    },
    /// Look whether a branch that could not be finished is still prepared: [`Finding::Listed`], [`Finding::Gone`] or
    /// [`Finding::Failed`].
    ListAgain(usize),
    /// Look for the receipt of a branch that is gone: [`Finding::Receipt`], [`Finding::Held`] or [`Finding::Failed`].
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
    /// The branch is still open, and locked, though the server has told somebody that it has ended. It is on no list until the
    /// server restarts.
    Held,
    /// The row is not what may be marked. Where home had decided, it was closed meanwhile, or closed and deleted: all
    /// branches have committed, and receipts may be gone.
    Closed,
    /// The branch is still prepared.
    Listed,
    /// The branch is prepared no more.
    Gone,
    /// Whether the receipt is there.
    Receipt(bool),
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
    Marking(Why),
    Finishing { branch: usize, commit: bool },
    Listing { branch: usize, commit: bool },
    Receipt { branch: usize, commit: bool },
    Ended(Outcome),
}

/// Why the databases disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Why {
    /// Another database has committed, and home knows nothing of it.
    Lost,
    /// A branch is gone, and not as home has decided.
    Disputed { branch: usize, commit: bool },
}

/// The recovery of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recoverer {
    branches: usize,
    /// What the configuration says where home has lost a commit: commit what is left.
    commit_on_lost_home: bool,
    stage: Stage,
    /// A branch could not be finished.
    left: bool,
    /// The databases disagree, whatever becomes of these branches.
    heuristic: bool,
}

impl Recoverer {
    /// This many branches were found prepared; none where only a receipt was found whose decision is missing.
    pub fn new(branches: usize, commit_on_lost_home: bool) -> Self {
        Self { branches, commit_on_lost_home, stage: Stage::Probing, left: false, heuristic: false }
    }

    /// What is to be done next.
    pub fn next(&self) -> Task {
        match self.stage {
            Stage::Probing => Task::Probe,
            Stage::Asking { .. } => Task::AskReceipts,
            Stage::Marking(why) => Task::MarkHeuristic { decided: matches!(why, Why::Disputed { commit: true, .. }) },
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
            (Stage::Marking(Why::Disputed { branch, commit: true }), Finding::Closed) => self.from(branch + 1, true),
            (Stage::Marking(Why::Lost), Finding::Done) if self.commit_on_lost_home => {
                self.heuristic = true;
                self.from(0, true)
            }
            // Home knows of it after all. Nothing may be done on what was seen.
            (Stage::Marking(_), Finding::Closed) => Stage::Ended(Outcome::Left),
            // Perhaps it was closed: nobody is told yet, and the next pass over committed rows asks again.
            (Stage::Marking(Why::Disputed { branch, commit: true }), Finding::Failed) => {
                self.left = true;
                self.from(branch + 1, true)
            }
            // What can't be stored is not followed either: the next pass must find what this one has found.
            (Stage::Marking(_), Finding::Done | Finding::Failed) => Stage::Ended(Outcome::Heuristic),
            (Stage::Finishing { branch, commit }, Finding::Done) => self.from(branch + 1, commit),
            // Any error: only the list tells.
            (Stage::Finishing { branch, commit }, Finding::Failed) => Stage::Listing { branch, commit },
            (Stage::Listing { branch, commit }, Finding::Gone) => Stage::Receipt { branch, commit },
            (Stage::Receipt { branch, commit }, Finding::Receipt(there)) if there == commit => {
                self.from(branch + 1, commit)
            }
            // Gone the other way: by hand, or its receipt was deleted since.
            (Stage::Receipt { branch, commit }, Finding::Receipt(_)) => {
                Stage::Marking(Why::Disputed { branch, commit })
            }
            // A listing that fails is no empty listing. What its server has forgotten is listed again once that restarts.
            (Stage::Finishing { branch, commit } | Stage::Receipt { branch, commit }, Finding::Held)
            | (Stage::Listing { branch, commit }, Finding::Listed | Finding::Failed)
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
            _ if self.heuristic => Outcome::Heuristic,
            (true, _) => Outcome::Left,
            (false, true) => Outcome::Committed,
            (false, false) => Outcome::RolledBack,
        })
    }

    fn verdict(&mut self, says: HomeSays) -> Stage {
        match says {
            // A committed row is followed whatever the incarnation; only absence needs care.
            HomeSays::Row(State::Committed) => self.from(0, true),
            // On SQLite it may have been written by a probe after the file had lost a commit, and nobody has looked since.
            HomeSays::Row(State::Aborted) => Stage::Asking { trusted: Trust::Same },
            HomeSays::Row(State::Heuristic) if self.commit_on_lost_home => {
                self.heuristic = true;
                self.from(0, true)
            }
            HomeSays::Row(State::Heuristic) => Stage::Ended(Outcome::Heuristic),
            HomeSays::Absent { trusted } => Stage::Asking { trusted },
            HomeSays::Nothing => Stage::Ended(Outcome::Left),
        }
    }

    fn absent(&self, trusted: Trust, receipts: Receipts) -> Stage {
        match (receipts, trusted) {
            // A branch has committed, so it was decided: home has lost it.
            (Receipts { found: true, .. }, _) => Stage::Marking(Why::Lost),
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
    /// It is neither, and still open: its server has forgotten its name until it restarts.
    Held,
    /// It is none of these: somebody has rolled it back.
    Gone,
    /// It can't be asked.
    Unknown,
}

/// What may become of a committed transaction's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// All have committed: nobody needs the row for recovery any more. Only then may receipts be deleted, and the row after
    /// all of them.
    Close,
    /// It must stay as it is.
    Leave,
    /// The databases disagree, unless the row is no open `c` any more: who marks it asks that in the same statement, since
    /// others close rows and delete receipts meanwhile.
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

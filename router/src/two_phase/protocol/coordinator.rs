//! The coordinator of one transaction: from the end of its outermost scope to its last branch.

/// What a branch has done before the commit begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// It was never begun on its server.
    Idle,
    /// It was begun read-only.
    Reader,
    /// It may have written.
    Open,
}

/// What is to be done next. Numbers are branches; home is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Leave the receipt in a branch that is not home, if it has written: [`Answer::Wrote`], [`Answer::Read`] or
    /// [`Answer::Failed`].
    Receipt(usize),
    /// Commit a branch that has only read: [`Answer::Done`] or [`Answer::Failed`].
    EndReader(usize),
    /// Insert the decision into home's open transaction, and read the reply: always, or only if home has written.
    /// [`Answer::Wrote`], [`Answer::Failed`], and [`Answer::Read`] if home has not written and need not carry it. Where home
    /// is idle or was ended as a reader, a transaction is begun for it: the row must never be committed by itself.
    Intent {
        /// Two other branches have written, or its name leads home, so that home carries the decision whatever it did itself.
        always: bool,
    },
    /// Take the receipt of the only branch that has written out again: [`Answer::Done`] or [`Answer::Failed`].
    Withdraw(usize),
    /// Commit the only branch that has written: [`Answer::Committed`], [`Answer::RolledBack`] or [`Answer::Unknown`].
    CommitAlone(usize),
    /// First phase of a branch that is not home: [`Answer::Done`], or [`Answer::Failed`] also where nobody knows.
    Prepare(usize),
    /// Commit home: [`Answer::Committed`], [`Answer::RolledBack`] or [`Answer::Unknown`].
    Decide,
    /// Ask on a connection of its own what became of home's commit; the same answers. An absent row means
    /// [`Answer::RolledBack`] only where home has the incarnation in which the transaction was named, and its mark of what was
    /// forgotten is below the transaction; else it is [`Answer::Unknown`]. The mark counts only where a decision may be deleted
    /// while its coordinator still waits; docs/DESIGN.md says why the driver doesn't look at it.
    Probe,
    /// Second phase of a prepared branch: [`Answer::Done`]; [`Answer::Failed`], which leaves it to recovery; or
    /// [`Answer::HandedOver`].
    Apply(usize),
    /// Roll a branch back, prepared or not: [`Answer::Done`], or [`Answer::Failed`], which leaves it to recovery.
    RollBack(usize),
    /// There is nothing left to be done.
    End(Ending),
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It is done.
    Done,
    /// It is done, and the branch has written.
    Wrote,
    /// The branch has not written, and nothing was done.
    Read,
    /// It failed, or nobody knows.
    Failed,
    /// A thread of the same process will do it.
    HandedOver,
    /// The database has confirmed the commit.
    Committed,
    /// Nothing was committed.
    RolledBack,
    /// Nobody knows.
    Unknown,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Committed, be it that recovery must still finish a branch.
    Committed,
    /// Rolled back, likewise.
    RolledBack,
    /// Only recovery can tell.
    Unknown,
}

/// How far a branch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Branch {
    Idle,
    /// It may have written, and was not asked yet.
    Open,
    Reader,
    /// It has written, and holds its receipt if it isn't home.
    Writer,
    /// As a writer, but its receipt was taken out again: it commits alone.
    Lone,
    Prepared,
    /// It needs nothing more from here.
    Ended,
}

/// What the transaction is about to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Course {
    /// Nothing is decided.
    Voting,
    /// Home's commit was sent and its reply was lost.
    InDoubt,
    Decided(Ending),
}

/// The coordinator of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinator {
    home: usize,
    branches: Vec<Branch>,
    /// Somebody knows the transaction by a name that leads to home.
    named: bool,
    course: Course,
    /// Home holds the decision, uncommitted.
    intent: bool,
    /// A branch was left to recovery, or to a thread.
    left: bool,
}

impl Coordinator {
    /// The commit of these branches begins. `named`: somebody knows the transaction by a name that leads to home, so that home
    /// holds the decision about all that is written.
    pub fn new(home: usize, named: bool, parts: impl IntoIterator<Item = Part>) -> Self {
        let branches = parts.into_iter().map(|part| match part {
            Part::Idle => Branch::Idle,
            Part::Reader => Branch::Reader,
            Part::Open => Branch::Open,
        });
        Self { home, branches: branches.collect(), named, course: Course::Voting, intent: false, left: false }
    }

    /// Whether a branch was left to recovery, or to a thread.
    pub fn left(&self) -> bool {
        self.left
    }

    /// Whether the decision stood in home's transaction, so that other branches may have been prepared.
    pub fn used_two_phases(&self) -> bool {
        self.intent
    }

    /// What is to be done next.
    pub fn next(&self) -> Step {
        match self.course {
            Course::Voting => self.vote(),
            Course::InDoubt => Step::Probe,
            Course::Decided(Ending::Committed) => {
                self.first(|branch| branch == Branch::Prepared).map_or(Step::End(Ending::Committed), Step::Apply)
            }
            Course::Decided(Ending::RolledBack) => self.abort(),
            // What is prepared stays: only recovery may touch it.
            Course::Decided(Ending::Unknown) => Step::End(Ending::Unknown),
        }
    }

    fn vote(&self) -> Step {
        let others = |wanted: Branch| self.others().find(|(_, branch)| *branch == wanted).map(|(at, _)| at);
        if let Some(open) = others(Branch::Open) {
            return Step::Receipt(open);
        }
        if let Some(reader) = others(Branch::Reader) {
            return Step::EndReader(reader);
        }
        if let Some(lone) = self.first(|branch| branch == Branch::Lone) {
            // Home has only read.
            return if self.branches[self.home] == Branch::Reader {
                Step::EndReader(self.home)
            } else {
                Step::CommitAlone(lone)
            };
        }
        let writers = self.others().filter(|(_, branch)| matches!(branch, Branch::Writer | Branch::Prepared)).count();
        match (writers, self.branches[self.home]) {
            (0, Branch::Idle | Branch::Ended) => Step::End(Ending::Committed),
            (0, Branch::Reader) => Step::EndReader(self.home),
            (0, _) => Step::CommitAlone(self.home),
            (1, Branch::Idle) if self.named && !self.intent => Step::Intent { always: true },
            (1, Branch::Idle | Branch::Reader | Branch::Ended) => {
                Step::Withdraw(others(Branch::Writer).expect("the only one"))
            }
            // A transaction that was begun read-only can't hold the decision.
            (_, Branch::Reader) => Step::EndReader(self.home),
            (writers, _) if !self.intent => Step::Intent { always: writers > 1 || self.named },
            _ => others(Branch::Writer).map_or(Step::Decide, Step::Prepare),
        }
    }

    /// Home first: that is the decision. Nothing else may be rolled back while home could still be committed.
    fn abort(&self) -> Step {
        let open = |branch| !matches!(branch, Branch::Idle | Branch::Ended);
        let next = if open(self.branches[self.home]) { Some(self.home) } else { self.first(open) };
        next.map_or(Step::End(Ending::RolledBack), Step::RollBack)
    }

    /// Takes note of what came of a step.
    pub fn answer(&mut self, step: Step, answer: Answer) {
        match (step, answer) {
            (Step::Receipt(at), Answer::Wrote) => self.branches[at] = Branch::Writer,
            (Step::Receipt(at), Answer::Read) => self.branches[at] = Branch::Reader,
            (Step::Intent { .. }, Answer::Wrote) => {
                self.branches[self.home] = Branch::Writer;
                self.intent = true;
            }
            (Step::Intent { always: false }, Answer::Read) => self.branches[self.home] = Branch::Reader,
            (Step::Withdraw(at), Answer::Done) => self.branches[at] = Branch::Lone,
            (Step::Prepare(at), Answer::Done) => self.branches[at] = Branch::Prepared,
            (Step::CommitAlone(at), Answer::Committed) => {
                self.branches[at] = Branch::Ended;
                self.course = Course::Decided(Ending::Committed);
            }
            (Step::CommitAlone(at), Answer::RolledBack) => {
                self.branches[at] = Branch::Ended;
                self.course = Course::Decided(Ending::RolledBack);
            }
            (Step::CommitAlone(_) | Step::Probe, Answer::Unknown) => self.course = Course::Decided(Ending::Unknown),
            (Step::Decide, Answer::Unknown) => self.course = Course::InDoubt,
            (Step::Decide | Step::Probe, Answer::Committed) => {
                self.branches[self.home] = Branch::Ended;
                self.course = Course::Decided(Ending::Committed);
            }
            (Step::Decide | Step::Probe, Answer::RolledBack) => {
                self.branches[self.home] = Branch::Ended;
                self.course = Course::Decided(Ending::RolledBack);
            }
            (Step::EndReader(at) | Step::Apply(at) | Step::RollBack(at), Answer::Done) => {
                self.branches[at] = Branch::Ended;
            }
            (Step::Apply(at) | Step::RollBack(at), Answer::Failed) | (Step::Apply(at), Answer::HandedOver) => {
                self.branches[at] = Branch::Ended;
                self.left = true;
            }
            (Step::Intent { .. }, Answer::Failed) => {
                // It may have been begun for the row, and be open now.
                self.branches[self.home] = Branch::Open;
                self.course = Course::Decided(Ending::RolledBack);
            }
            (Step::Receipt(_) | Step::EndReader(_) | Step::Withdraw(_) | Step::Prepare(_), Answer::Failed) => {
                self.course = Course::Decided(Ending::RolledBack);
            }
            (step, answer) => unreachable!("{answer:?} is no answer to {step:?}"),
        }
    }

    fn others(&self) -> impl Iterator<Item = (usize, Branch)> {
        self.branches.iter().copied().enumerate().filter(|(at, _)| *at != self.home)
    }

    fn first(&self, test: impl Fn(Branch) -> bool) -> Option<usize> {
        self.branches.iter().position(|branch| test(*branch))
    }
}

//! What may happen in a modelled world, and what is broken in it on purpose.

/// How many databases there are at most; home is the first.
pub const MOST: usize = 3;
pub const HOME: usize = 0;
/// How many recoverers there are at most.
pub const RECOVERERS: usize = 2;

/// What a branch has done before the commit begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Idle,
    /// Begun read-only.
    Reader,
    /// It could have written, and has not.
    Looked,
    Writes,
}

/// A mistake that the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The decision's row is inserted by the decision itself.
    LateRow(Tombstone),
    /// The recoverer reads home without a conflicting write.
    SelectOnly,
    /// On SQLite the probe is rolled back.
    SqliteProbeRolledBack,
    /// The decision is deleted before it is closed.
    RowDeletedEarly,
    /// Receipts are deleted before the decision is closed.
    ReceiptsDeletedEarly,
    /// What is listed nowhere counts as committed, also where the listing failed.
    ClosedWhenNotListed,
    /// A branch is gone where the listing failed.
    EmptyListing,
    /// The first prepare leaves before the reply to the intent was read.
    PrepareBeforeReply,
    /// The coordinator's probe doesn't ask for what was forgotten.
    MarkIgnored,
    /// A decision is marked heuristic whatever has become of it.
    MarkUnasked,
    /// On SQLite a probe leaves its row whatever has become of the branches.
    TombstoneUnasked,
    /// Nobody looks for receipts without a decision.
    NoAudit,
    /// The incarnation in which home was installed counts as adopted, whatever has come after it.
    InstalledIsAdopted,
    /// An old primary is asked about what its successor has named.
    OldPrimaryAsked,
    /// A branch on a promoted standby is trusted like any other.
    PromotedTrusted,
    /// On SQLite a probe leaves its row also where the decision may have been deleted.
    TombstoneOfForgotten,
    /// A promoted participant is adopted with branches whose decision may have been deleted.
    AdoptedUnsettled,
    /// Where a participant is adopted its branches are left to recovery, also those that are decided.
    AdoptedUndecided,
    /// An operator finishes a branch as home's rows say, also where home has none of its own.
    SettledAsHome,
    /// Nobody looks whether a branch has ended that its server says to have ended.
    TakenAtItsWord,
}

/// What a probe leaves behind where it has found nothing, with a late row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstone {
    None,
    Kept,
    Collected,
}

/// An old primary that nobody has fenced. Home has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    Installed,
    /// It had taken the place of another one itself, and was adopted then.
    Adopted,
    /// It had taken the place of the very server that is home again, and was adopted then. PostgreSQL would have given that one
    /// a later number.
    Between,
}

#[expect(clippy::struct_excessive_bools, reason = "each of them varies by itself")]
#[derive(Debug, Clone)]
pub struct Rules {
    /// One role for each database, home's first.
    pub roles: Vec<Role>,
    pub sqlite: bool,
    /// A prepared branch belongs to its session until that has ended, as on MariaDB.
    pub owned: bool,
    /// Whoever finishes a branch while that session ends may be told that it was done in vain, as on MariaDB. The server has
    /// forgotten it then, until it restarts.
    pub forgets: bool,
    pub recoverers: usize,
    /// Replies may be lost, and requests may be late.
    pub losses: bool,
    /// A server may refuse what the coordinator asks of it.
    pub refusals: bool,
    /// A server may end the coordinator's session.
    pub kills: bool,
    /// A database may not answer a recoverer or the cleaning.
    pub unreachable: bool,
    pub cleaning: bool,
    pub operator: bool,
    pub failover: bool,
    /// The old primary of a failover before the transaction still answers.
    pub predecessor: Option<Predecessor>,
    /// The standby of a participant may take its place.
    pub promotion: bool,
    /// A later incarnation is the greater one, as on PostgreSQL. Elsewhere a promoted server is another one, which is not asked
    /// before it is adopted.
    pub grows: bool,
    pub commit_on_lost_home: bool,
    pub mistake: Option<Mistake>,
}

impl Rules {
    /// Only who does what when is open, and who dies.
    pub fn quiet(roles: &[Role]) -> Self {
        Self { losses: false, refusals: false, kills: false, unreachable: false, cleaning: false, ..Self::of(roles) }
    }

    /// All that can happen without an operator and a failover.
    pub fn of(roles: &[Role]) -> Self {
        Self {
            roles: roles.to_vec(),
            sqlite: false,
            owned: false,
            forgets: false,
            recoverers: 1,
            losses: true,
            refusals: true,
            kills: true,
            unreachable: true,
            cleaning: true,
            operator: false,
            failover: false,
            predecessor: None,
            promotion: false,
            grows: true,
            commit_on_lost_home: false,
            mistake: None,
        }
    }

    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Whether a probe leaves an `a` behind.
    pub fn tombstones(&self) -> bool {
        match self.mistake {
            Some(Mistake::LateRow(tombstone)) => tombstone != Tombstone::None,
            Some(Mistake::SqliteProbeRolledBack) => false,
            _ => self.sqlite,
        }
    }

    /// Whether an old primary is asked about what its successor has named: nothing tells it that it is one.
    pub fn asks_predecessor(&self) -> bool {
        self.predecessor.is_some() && !self.grows
    }

    pub fn late_row(&self) -> bool {
        matches!(self.mistake, Some(Mistake::LateRow(_)))
    }

    /// Databases whose rows are in or out with the transaction.
    pub fn writers(&self) -> impl Iterator<Item = usize> {
        self.roles.iter().enumerate().filter(|(_, role)| **role == Role::Writes).map(|(at, _)| at)
    }

    pub fn databases(&self) -> std::ops::Range<usize> {
        0..self.roles.len()
    }

    pub fn participants(&self) -> std::ops::Range<usize> {
        HOME + 1..self.roles.len()
    }
}

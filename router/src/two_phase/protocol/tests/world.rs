//! The world of one transaction: its databases, its coordinator, and all who recover and clean.

use super::cleaning::Look;
use super::client::Client;
use super::recovery::Recovery;
use super::rules::{HOME, MOST, Mistake, RECOVERERS, Role, Rules};
use super::server::{Branch, Held, Server, Session};
use super::standing::Standing;
use crate::two_phase::protocol::{Answer, Ending, State, Step};

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    Well,
    /// It is executed, and the reply is lost.
    ReplyLost,
    /// The client gives up before it is executed.
    Late,
    /// The server says that it is done, and nothing is.
    InVain,
    /// The server refuses it, or can't be reached.
    Refused,
    /// One participant can't be reached.
    Without(usize),
    /// The old primary of home is asked.
    Stale,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    Coordinator(How),
    CoordinatorDies,
    /// The process dies between the write and the sync of home's commit.
    CoordinatorDiesBeforeSync,
    /// The commit that was never synced is back.
    Reappears,
    /// A request is executed whose client has given up.
    Delivered(usize),
    /// The server sees that the client is gone.
    Noticed(usize),
    Killed(usize),
    Restarts(usize),
    /// A recoverer has listed these branches, as bits.
    Lists {
        who: usize,
        branches: u8,
        stale: bool,
    },
    Recoverer(usize, How),
    RecovererDies(usize),
    /// A recoverer's second phase is executed after it has given up.
    FinishDelivered(usize, bool),
    FinishDropped(usize, bool),
    ReadsUnclosed,
    Looks(How),
    ClosesOwn,
    DeletesReceipt(usize),
    DeletesRow,
    FailsOver {
        kept: bool,
        stale: bool,
    },
    Adopts,
    ByHand(usize, bool),
    /// A standby takes a participant's place, with all that was committed there, or with what was prepared alone.
    Promotes {
        at: usize,
        kept: bool,
    },
    /// An operator finishes a branch on a promoted standby as the rows of the others say, and deletes its receipt.
    Settles(usize),
    AdoptsParticipant(usize),
}

/// A recoverer's second phase on its way: to commit, to roll back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Late {
    pub commit: bool,
    pub roll_back: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each of them varies by itself")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub servers: [Server; MOST],
    /// An old primary of home that still answers: after a failover of this transaction, where the coordinator's session is, or
    /// of one before.
    pub stale: Option<Server>,
    pub client: Client,
    pub recoveries: [Option<Recovery>; RECOVERERS],
    pub closer: Option<Look>,
    pub late: [Late; MOST],
    /// Home's mark of what was forgotten is above the transaction.
    pub forgotten: bool,
    pub failed_over: bool,
    /// A failover has lost what home had committed.
    pub lost: bool,
    pub by_hand: bool,
    /// A participant has failed over.
    pub promoted: bool,
    /// What it had committed is only prepared there.
    pub undone: bool,
    /// Somebody was told that the databases disagree.
    pub told: bool,
}

impl World {
    pub fn new(rules: &Rules) -> Self {
        let server = |at| match rules.roles.get(at) {
            Some(Role::Reader) => Server::new(Branch::Open(Held { read_only: true, ..Held::default() }), Session::Live),
            Some(Role::Looked) => Server::new(Branch::Open(Held::default()), Session::Live),
            Some(Role::Writes) => Server::new(Branch::Open(Held { work: true, ..Held::default() }), Session::Live),
            // Home's connection is taken before the others begin.
            Some(Role::Idle) if at == HOME => Server::new(Branch::None, Session::Live),
            Some(Role::Idle) | None => Server::new(Branch::None, Session::Gone),
        };
        let mut world = Self {
            servers: std::array::from_fn(server),
            stale: None,
            client: Client::new(rules),
            recoveries: [None; RECOVERERS],
            closer: None,
            late: [Late::default(); MOST],
            forgotten: false,
            failed_over: false,
            lost: false,
            by_hand: false,
            promoted: false,
            undone: false,
            told: false,
        };
        if let Some(predecessor) = rules.predecessor {
            let before = Standing::before(predecessor);
            world.stale = Some(Server { standing: before, ..Server::new(Branch::None, Session::Gone) });
            world.servers[HOME].standing = before.promoted();
        }
        world.end_client(rules).expect("nothing is open where nothing was begun");
        world
    }

    /// All that can happen next.
    pub fn moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        self.client_moves(rules, moves);
        self.recovery_moves(rules, moves);
        if rules.cleaning {
            self.cleaning_moves(rules, moves);
        }
        self.trouble_moves(rules, moves);
    }

    /// Lets it happen, or says what must never be.
    pub fn go(&mut self, rules: &Rules, happens: Move) -> Result<(), String> {
        match happens {
            Move::Coordinator(how) => return self.client_step(rules, how),
            Move::CoordinatorDies => self.client_dies(),
            Move::CoordinatorDiesBeforeSync => self.client_dies_before_sync(),
            Move::Lists { who, branches, stale } => self.list(rules, who, branches, stale),
            Move::Recoverer(who, how) => return self.recoverer_step(rules, who, how).map(drop),
            Move::RecovererDies(who) => self.recoverer_dies(who),
            Move::FinishDelivered(at, commit) => return self.deliver_finish(rules, at, commit),
            Move::FinishDropped(at, commit) => self.drop_finish(at, commit),
            Move::ReadsUnclosed | Move::Looks(_) | Move::ClosesOwn | Move::DeletesReceipt(_) | Move::DeletesRow => {
                self.clean(rules, happens);
            }
            _ => self.trouble(rules, happens),
        }
        Ok(())
    }

    /// What must hold at any time.
    pub fn check(&self, rules: &Rules) -> Result<(), String> {
        // A branch that is committed again may leave its receipt after its decision was deleted.
        let trouble = self.lost || self.by_hand || self.undone;
        // What an old primary says is not what its successor knows. Where the numbers don't tell that it is one, it is asked.
        let old_says = self.stale.is_some() && self.failed_over || rules.asks_predecessor();
        if self.told && !trouble && !old_says {
            return Err("somebody was told that the databases disagree, and they don't".into());
        }
        if rules.mistake.is_none() && !trouble && self.orphan(rules) {
            return Err("a receipt is there without a decision".into());
        }
        let home = &self.servers[HOME];
        if !trouble && home.work && home.row.is_some_and(|row| row.state == State::Aborted) {
            return Err("home's row says aborted, and its work is there".into());
        }
        Ok(())
    }

    /// A participant has committed, and home knows nothing of it.
    pub fn orphan(&self, rules: &Rules) -> bool {
        let home = &self.servers[HOME];
        let known = home.row.is_some_and(|row| row.state != State::Aborted);
        !known && rules.participants().any(|at| self.servers[at].receipt)
    }

    /// Nothing is under way any more, whoever recovers or cleans.
    pub fn is_still(&self) -> bool {
        !matches!(self.client, Client::Running { .. })
            && self.servers.iter().chain(&self.stale).all(|server| server.session == Session::Gone)
            && self.late.iter().all(|late| *late == Late::default())
    }

    /// The server on which the coordinator's session is.
    pub fn session(&mut self, at: usize) -> &mut Server {
        match &mut self.stale {
            Some(stale) if at == HOME && self.failed_over => stale,
            _ => &mut self.servers[at],
        }
    }

    pub fn session_is(&self, at: usize) -> Session {
        self.stale.as_ref().filter(|_| at == HOME && self.failed_over).unwrap_or(&self.servers[at]).session
    }

    /// The primary that somebody takes for home.
    pub fn home(&mut self, stale: bool) -> &mut Server {
        match &mut self.stale {
            Some(server) if stale => server,
            _ => &mut self.servers[HOME],
        }
    }

    /// Whether a prepared branch can be ended by others than its session.
    pub fn is_free(&self, rules: &Rules, at: usize) -> bool {
        !rules.owned || self.servers[at].session == Session::Gone
    }

    /// What happens, in words for a trace.
    pub fn words(&self, happens: Move) -> String {
        match (happens, &self.client) {
            (Move::Coordinator(how), Client::Running { machine, .. }) => {
                format!("coordinator: {:?}: {how:?}", machine.next())
            }
            (Move::Recoverer(who, how), _) => match &self.recoveries[who] {
                Some(recovery) => format!("recoverer {who}: {}: {how:?}", recovery.words()),
                None => format!("{happens:?}"),
            },
            (Move::Delivered(at), _) => match self.session_is(at) {
                Session::Broken(Some(step)) => format!("late: {step:?}"),
                _ => format!("{happens:?}"),
            },
            (happens, _) => format!("{happens:?}"),
        }
    }

    /// Whether the ending that the coordinator has told is what the databases hold.
    pub fn kept_its_word(&self, rules: &Rules, work_in: bool) -> Result<(), String> {
        let Client::Ended { ending, .. } = self.client else { return Ok(()) };
        if rules.writers().next().is_none() {
            return Ok(());
        }
        match (ending, work_in) {
            (Ending::Committed, false) => Err("the coordinator has said committed, and nothing is there".into()),
            (Ending::RolledBack, true) => Err("the coordinator has said rolled back, and the work is there".into()),
            _ => Ok(()),
        }
    }

    /// Whether a participant's branch was ended against a coordinator that lives and holds the decision.
    pub fn decided_against(&self, rules: &Rules) -> Result<(), String> {
        let held = matches!(self.servers[HOME].branch, Branch::Open(held) if held.intent);
        // An old primary that is asked takes what an operator has committed for decided.
        let misled = self.by_hand && rules.asks_predecessor();
        if held && rules.mistake.is_none() && !misled {
            return Err("a branch was ended while the coordinator's session holds the decision".into());
        }
        Ok(())
    }

    /// A request of the coordinator on a server, with what is broken on purpose.
    pub fn execute(server: &mut Server, rules: &Rules, step: Step) -> Answer {
        match (step, server.branch) {
            (Step::Intent { .. }, _) if rules.late_row() => Answer::Wrote,
            (Step::Decide, Branch::Open(_)) if rules.late_row() && server.row.is_some() => {
                server.branch = Branch::RolledBack;
                Answer::RolledBack
            }
            (Step::Decide, Branch::Open(held)) if rules.late_row() => {
                server.commit(Held { intent: true, ..held });
                Answer::Committed
            }
            _ => server.execute(step),
        }
    }

    /// Whether receipts may be deleted.
    pub fn may_forget(&self, rules: &Rules) -> bool {
        let row = self.servers[HOME].row.filter(|row| row.state == State::Committed);
        row.is_some_and(|row| row.closed || rules.has(Mistake::ReceiptsDeletedEarly) && self.client.is_through())
    }
}

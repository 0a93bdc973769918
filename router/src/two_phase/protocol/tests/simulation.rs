//! Many transactions at once over three databases, in a random order from one seed.
//!
//! The databases, the processes of coordinators and the recoverers are shared: what happens to one of them happens to
//! all transactions that are there.

use fastrand::Rng;

use super::client::Client;
use super::explorer::narrate;
use super::rules::{HOME, MOST, Mistake, Predecessor, RECOVERERS, Role, Rules, Tombstone};
use super::server::Session;
use super::world::{How, Move, World};
use crate::two_phase::protocol::{Ending, State};

const TRANSACTIONS: usize = 8;
const PROCESSES: usize = 2;
/// How many moves a schedule has before its transactions are brought to their end.
const MOVES: usize = 250;
/// One of so many moves may hurt.
const MERCY: u64 = 10;
/// One of so many steps hits a whole database, a process or a recoverer.
const BLOW: u64 = 100;
/// How many schedules are run where the environment asks for no other number.
const SCHEDULES: u64 = 5_000;

/// One transaction of many.
struct Transaction {
    rules: Rules,
    world: World,
    /// Which database is its home; the others follow.
    home: usize,
    process: usize,
    trace: Vec<Move>,
}

impl Transaction {
    /// The transaction's own number of a database.
    fn own(&self, database: usize) -> usize {
        (database + MOST - self.home) % MOST
    }

    fn go(&mut self, happens: Move) -> Result<(), String> {
        self.trace.push(happens);
        self.world.go(&self.rules, happens)?;
        self.world.check(&self.rules)
    }
}

#[derive(Debug, Default)]
struct Seen {
    moves: usize,
    committed: usize,
    rolled_back: usize,
    unknown: usize,
    died: usize,
    /// Somebody was told that the databases disagree.
    told: usize,
    /// All that is left of them is forgotten.
    forgotten: usize,
}

struct Schedule {
    random: Rng,
    transactions: Vec<Transaction>,
    seen: Seen,
}

impl Schedule {
    fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Rng::with_seed(seed);
        let sqlite = random.u64(..4) == 0;
        let owned = random.u64(..2) == 0;
        let base = Rules {
            sqlite,
            owned,
            forgets: owned && random.u64(..2) == 0,
            recoverers: RECOVERERS,
            operator: mistake.is_none() && random.u64(..8) == 0,
            failover: mistake.is_none() && random.u64(..8) == 0,
            predecessor: [Some(Predecessor::Installed), Some(Predecessor::Adopted)]
                .get(random.usize(..8))
                .copied()
                .flatten()
                .filter(|_| !sqlite),
            promotion: random.u64(..4) == 0,
            grows: random.u64(..4) != 0,
            commit_on_lost_home: random.u64(..2) == 0,
            mistake,
            ..Rules::of(&[])
        };
        let transactions = (0..TRANSACTIONS).map(|_| {
            let parts = std::array::from_fn::<_, MOST, _>(|_| match random.usize(..8) {
                0 => Role::Idle,
                1 => Role::Reader,
                2 => Role::Looked,
                _ => Role::Writes,
            });
            let rules = Rules { roles: parts.to_vec(), ..base.clone() };
            // A file can't be prepared.
            let home = if sqlite { 0 } else { random.usize(..MOST) };
            let process = random.usize(..PROCESSES);
            Transaction { world: World::new(&rules), rules, home, process, trace: Vec::new() }
        });
        Self { transactions: transactions.collect(), random, seen: Seen::default() }
    }

    /// Runs it all, or names the transaction that has gone wrong.
    fn run(&mut self) -> Result<(), (usize, String)> {
        let mut moves = Vec::new();
        for _ in 0..MOVES {
            if self.random.u64(..BLOW) == 0 {
                self.blow()?;
                continue;
            }
            let which = self.random.usize(..TRANSACTIONS);
            self.step(which, &mut moves).map_err(|what| (which, what))?;
        }
        for which in 0..TRANSACTIONS {
            self.end(which, &mut moves).map_err(|what| (which, what))?;
        }
        Ok(())
    }

    fn step(&mut self, which: usize, moves: &mut Vec<Move>) -> Result<(), String> {
        let transaction = &mut self.transactions[which];
        moves.clear();
        transaction.world.moves(&transaction.rules, moves);
        if self.random.u64(..MERCY) != 0 {
            moves.retain(|happens| !hurts(*happens));
        }
        if moves.is_empty() {
            return Ok(());
        }
        let happens = moves[self.random.usize(..moves.len())];
        self.seen.moves += 1;
        transaction.go(happens)?;
        if happens == Move::DeletesRow {
            self.forget_before(which);
        }
        Ok(())
    }

    /// The mark of what was forgotten stands at home, and is above all that are older.
    fn forget_before(&mut self, which: usize) {
        let home = self.transactions[which].home;
        for older in self.transactions[..which].iter_mut().filter(|older| older.home == home) {
            older.world.forgotten = true;
        }
    }

    /// A database ends all sessions, a process of coordinators dies, or a recoverer.
    fn blow(&mut self) -> Result<(), (usize, String)> {
        let (kind, database) = (self.random.usize(..3), self.random.usize(..MOST));
        let (process, who) = (self.random.usize(..PROCESSES), self.random.usize(..RECOVERERS));
        for (which, transaction) in self.transactions.iter_mut().enumerate() {
            let own = transaction.own(database);
            let running = matches!(transaction.world.client, Client::Running { .. });
            let happens = match kind {
                0 if transaction.world.session_is(own) == Session::Live => Move::Killed(own),
                1 if running && transaction.process == process => Move::CoordinatorDies,
                2 => Move::RecovererDies(who),
                _ => continue,
            };
            transaction.go(happens).map_err(|what| (which, what))?;
        }
        Ok(())
    }

    /// Whoever is at work comes to an end or dies, all that is on its way arrives or does not, and recovery looks once
    /// more.
    fn end(&mut self, which: usize, moves: &mut Vec<Move>) -> Result<(), String> {
        let dies = self.random.u64(..2) == 0;
        while !self.transactions[which].world.is_still() {
            let transaction = &mut self.transactions[which];
            moves.clear();
            transaction.world.moves(&transaction.rules, moves);
            moves.retain(|happens| match happens {
                Move::Coordinator(How::Well) => !dies,
                Move::CoordinatorDies => dies,
                Move::Delivered(_) | Move::Noticed(_) | Move::FinishDelivered(..) | Move::FinishDropped(..) => true,
                // It may hold a lock that others wait for.
                happens => matches!(happens, Move::RecovererDies(_)),
            });
            transaction.go(moves[self.random.usize(..moves.len())])?;
        }
        let Transaction { world, rules, .. } = &self.transactions[which];
        world.settle(rules)?;
        match world.client {
            Client::Ended { ending: Ending::Committed, .. } => self.seen.committed += 1,
            Client::Ended { ending: Ending::RolledBack, .. } => self.seen.rolled_back += 1,
            Client::Ended { ending: Ending::Unknown, .. } => self.seen.unknown += 1,
            _ => self.seen.died += 1,
        }
        let row = world.servers[HOME].row;
        self.seen.told += usize::from(row.is_some_and(|row| row.state == State::Heuristic));
        self.seen.forgotten += usize::from(row.is_none() && world.servers[HOME].work && world.forgotten);
        Ok(())
    }
}

fn hurts(happens: Move) -> bool {
    matches!(
        happens,
        Move::Coordinator(How::ReplyLost | How::Late | How::Refused)
            | Move::Recoverer(_, How::ReplyLost | How::Late | How::InVain | How::Refused | How::Without(_))
            | Move::CoordinatorDies
            | Move::CoordinatorDiesBeforeSync
            | Move::Killed(_)
            | Move::RecovererDies(_)
            | Move::FinishDropped(..)
            | Move::FailsOver { .. }
            | Move::Promotes { .. }
            | Move::ByHand(..)
    )
}

/// Runs schedules, and says what has gone wrong with which seed.
fn simulate(seeds: std::ops::Range<u64>, mistake: Option<Mistake>) -> Result<Seen, String> {
    let mut all = Seen::default();
    for seed in seeds {
        let mut schedule = Schedule::new(seed, mistake);
        if let Err((which, what)) = schedule.run() {
            let Transaction { rules, trace, .. } = &schedule.transactions[which];
            let lines = narrate(rules, trace).join("\n  ");
            return Err(format!("seed {seed}, transaction {which}: {what}\n  {lines}\nin the world of {rules:?}"));
        }
        let seen = schedule.seen;
        all.moves += seen.moves;
        all.committed += seen.committed;
        all.rolled_back += seen.rolled_back;
        all.unknown += seen.unknown;
        all.died += seen.died;
        all.told += seen.told;
        all.forgotten += seen.forgotten;
    }
    Ok(all)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}")))
}

/// `MULTIDB_SCHEDULES` is how many, and `MULTIDB_SEED` the first seed.
#[test]
fn databases_agree_in_every_random_schedule() {
    let first = from_environment("MULTIDB_SEED").unwrap_or(0);
    let schedules = from_environment("MULTIDB_SCHEDULES").unwrap_or(SCHEDULES);
    let seen = simulate(first..first + schedules, None).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{schedules} schedules: {seen:?}");
    if schedules >= SCHEDULES {
        let least = usize::try_from(schedules / 100).expect("a number of schedules");
        for (kind, count) in [
            ("committed", seen.committed),
            ("rolled back", seen.rolled_back),
            ("unknown", seen.unknown),
            ("died", seen.died),
            ("forgotten", seen.forgotten),
        ] {
            assert!(count > least, "only {count} were {kind}: {seen:?}");
        }
    }
}

#[test]
fn random_schedules_find_what_is_broken_too() {
    for mistake in [
        Mistake::LateRow(Tombstone::None),
        Mistake::LateRow(Tombstone::Collected),
        Mistake::SelectOnly,
        Mistake::SqliteProbeRolledBack,
        Mistake::RowDeletedEarly,
        Mistake::ReceiptsDeletedEarly,
        Mistake::ClosedWhenNotListed,
        Mistake::EmptyListing,
        Mistake::PrepareBeforeReply,
        Mistake::MarkUnasked,
        Mistake::InstalledIsAdopted,
        Mistake::PromotedTrusted,
        Mistake::TombstoneOfForgotten,
        Mistake::AdoptedUnsettled,
        Mistake::AdoptedUndecided,
        Mistake::SettledAsHome,
    ] {
        let found = simulate(0..SCHEDULES, Some(mistake)).expect_err("a mistake that leads to nothing wrong");
        println!("{mistake:?}: {}", found.lines().next().unwrap_or_default());
    }
}

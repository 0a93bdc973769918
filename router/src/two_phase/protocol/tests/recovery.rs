//! What recoverers do in the modelled world.

use super::rules::{Mistake, RECOVERERS, Rules};
use super::server::{Row, Server};
use super::standing::NAMED;
use super::world::{How, Move, World};
use crate::two_phase::protocol::recoverer::Trust;
use crate::two_phase::protocol::{Finding, HomeSays, Incarnations, Outcome, Receipts, Recoverer, State, Task};

/// A recoverer at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recovery {
    pub machine: Recoverer,
    /// The databases of the branches that it has listed, as bits.
    branches: u8,
    /// It takes the old primary for home.
    pub stale: bool,
    /// Its probe holds the row's lock.
    holding: bool,
    /// One of the branches was found on a promoted standby.
    promoted: bool,
    /// Databases that have failed over or restarted since, as bits: its connections to them are lost.
    pub gone: u8,
}

impl Recovery {
    pub fn words(&self) -> String {
        let holding = if self.holding { ", lets go" } else { "" };
        format!("{:?} of {:b}{holding}", self.machine.next(), self.branches)
    }

    fn has_lost(&self, at: usize) -> bool {
        self.gone & 1 << at != 0
    }

    fn database(&self, branch: usize) -> usize {
        (0..8).filter(|at| self.branches & 1 << at != 0).nth(branch).expect("one of those listed")
    }
}

impl Server {
    /// A probe has found nothing, and ends.
    pub fn end_probe(&mut self, rules: &Rules, stays: bool) {
        self.probed = false;
        if stays && rules.tombstones() {
            self.row = Some(Row { state: State::Aborted, closed: false });
            self.limbo = None;
        }
    }
}

impl World {
    pub(super) fn recovery_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        let prepared = self.listing(rules);
        for who in 0..rules.recoverers.min(RECOVERERS) {
            match &self.recoveries[who] {
                // They are all alike: the second begins while the first is at work.
                None if who > 0 && self.recoveries[who - 1].is_none() => {}
                None => {
                    // By a receipt alone: its decision is looked for.
                    if rules.cleaning && rules.participants().any(|at| self.servers[at].receipt && self.asks(rules, at))
                    {
                        moves.push(Move::Lists { who, branches: 0, stale: false });
                        if self.stale.is_some() {
                            moves.push(Move::Lists { who, branches: 0, stale: true });
                        }
                    }
                    for branches in (1..=prepared).filter(|branches| branches & !prepared == 0) {
                        moves.push(Move::Lists { who, branches, stale: false });
                        if self.stale.is_some() {
                            moves.push(Move::Lists { who, branches, stale: true });
                        }
                    }
                }
                Some(recovery) => {
                    moves.push(Move::RecovererDies(who));
                    moves.push(Move::Recoverer(who, How::Well));
                    hows(rules, recovery, |how| moves.push(Move::Recoverer(who, how)));
                }
            }
        }
        for at in rules.participants() {
            for (is, commit) in [(self.late[at].commit, true), (self.late[at].roll_back, false)] {
                if is {
                    moves.extend([Move::FinishDelivered(at, commit), Move::FinishDropped(at, commit)]);
                }
            }
        }
    }

    /// What is prepared, as bits.
    pub fn listing(&self, rules: &Rules) -> u8 {
        let is_listed = |at: &usize| self.servers[*at].prepared() && self.asks(rules, *at);
        rules.participants().filter(is_listed).fold(0, |bits, at| bits | 1 << at)
    }

    /// Whether a participant is asked. Where it is another server it may be a copy, until it is adopted.
    pub fn asks(&self, rules: &Rules, at: usize) -> bool {
        rules.grows || !self.servers[at].standing.incarnations(rules).is_promoted()
    }

    pub fn list(&mut self, rules: &Rules, who: usize, branches: u8, stale: bool) {
        let machine = Recoverer::new(branches.count_ones() as usize, rules.commit_on_lost_home);
        let listed = rules.databases().filter(|at| branches & 1 << at != 0);
        let promoted = listed.map(|at| self.servers[at].standing.incarnations(rules)).any(Incarnations::is_promoted);
        self.recoveries[who] = Some(Recovery { machine, branches, stale, holding: false, promoted, gone: 0 });
    }

    pub(super) fn recoverer_dies(&mut self, who: usize) {
        if let Some(recovery) = self.recoveries[who].take()
            && recovery.holding
        {
            self.home(recovery.stale).probed = false;
        }
    }

    pub fn recoverer_step(&mut self, rules: &Rules, who: usize, how: How) -> Result<Option<Outcome>, String> {
        let Some(mut recovery) = self.recoveries[who] else { return Ok(None) };
        let finding = match recovery.machine.next() {
            Task::Probe => self.probe(rules, &mut recovery, how),
            Task::AskReceipts => Some(Finding::Receipts(self.ask_receipts(rules, &recovery, how))),
            Task::Finish { branch, .. } | Task::ListAgain(branch) | Task::AskReceipt(branch)
                if recovery.has_lost(recovery.database(branch)) =>
            {
                Some(Finding::Failed)
            }
            Task::Finish { branch, commit } => {
                Some(self.finish_branch(rules, recovery.database(branch), commit, how)?)
            }
            Task::MarkHeuristic { .. } | Task::ListAgain(_) | Task::AskReceipt(_) if how == How::Refused => {
                let empty = matches!(recovery.machine.next(), Task::ListAgain(_)) && rules.has(Mistake::EmptyListing);
                Some(if empty { Finding::Gone } else { Finding::Failed })
            }
            Task::MarkHeuristic { decided } => Some(self.mark(rules, recovery.stale, decided)),
            Task::ListAgain(branch) => {
                let listed = self.servers[recovery.database(branch)].prepared();
                Some(if listed { Finding::Listed } else { Finding::Gone })
            }
            Task::AskReceipt(branch) => {
                let server = &self.servers[recovery.database(branch)];
                let held = server.is_forgotten() && !rules.has(Mistake::TakenAtItsWord);
                Some(if held { Finding::Held } else { Finding::Receipt(server.receipt) })
            }
            Task::End(_) => None,
        };
        if let Some(finding) = finding {
            recovery.machine.found(finding);
        }
        let Task::End(outcome) = recovery.machine.next() else {
            self.recoveries[who] = Some(recovery);
            return Ok(None);
        };
        self.told |= outcome == Outcome::Heuristic;
        self.recoveries[who] = None;
        Ok(Some(outcome))
    }

    fn mark(&mut self, rules: &Rules, stale: bool, decided: bool) -> Finding {
        let row = &mut self.home(stale).row;
        let open = match row.map(|row| (row.state, row.closed)) {
            None | Some((State::Aborted, _)) => !decided,
            Some((State::Committed, closed)) => decided && !closed,
            Some((State::Heuristic, _)) => true,
        };
        if !open && !rules.has(Mistake::MarkUnasked) {
            return Finding::Closed;
        }
        *row = Some(Row { state: State::Heuristic, closed: false });
        self.told = true;
        Finding::Done
    }

    fn probe(&mut self, rules: &Rules, recovery: &mut Recovery, how: How) -> Option<Finding> {
        let forgotten = self.forgotten && recovery.promoted && !rules.has(Mistake::PromotedTrusted);
        let listed = self.listing(rules) & recovery.branches & !recovery.gone != 0;
        let home = self.home(recovery.stale);
        let absent = Finding::Home(absent(rules, home.standing.incarnations(rules), forgotten));
        if recovery.holding {
            recovery.holding = false;
            let old = rules.tombstones() && recovery.branches != 0 && !listed && !rules.has(Mistake::TombstoneUnasked);
            let stays = !forgotten || rules.has(Mistake::TombstoneOfForgotten);
            home.end_probe(rules, !old && recovery.branches != 0 && stays);
            return Some(if old { Finding::Home(HomeSays::Nothing) } else { absent });
        }
        match home.row {
            _ if how == How::Refused => Some(Finding::Home(HomeSays::Nothing)),
            Some(row) => Some(Finding::Home(HomeSays::Row(row.state))),
            None if rules.has(Mistake::SelectOnly) => Some(absent),
            None if home.locked(rules.sqlite) => Some(Finding::Home(HomeSays::Nothing)),
            None => {
                home.probed = true;
                recovery.holding = true;
                None
            }
        }
    }

    fn ask_receipts(&self, rules: &Rules, recovery: &Recovery, how: How) -> Receipts {
        let reached = |at: &usize| {
            how != How::Refused && how != How::Without(*at) && !recovery.has_lost(*at) && self.asks(rules, *at)
        };
        Receipts {
            found: rules.participants().filter(reached).any(|at| self.servers[at].receipt),
            complete: rules.participants().all(|at| reached(&at)),
        }
    }

    fn finish_branch(&mut self, rules: &Rules, at: usize, commit: bool, how: How) -> Result<Finding, String> {
        match how {
            How::Refused => return Ok(Finding::Failed),
            How::InVain => {
                let told = self.is_free(rules, at) && self.servers[at].forget();
                let ended = if rules.has(Mistake::TakenAtItsWord) { Finding::Done } else { Finding::Held };
                return Ok(if told { ended } else { Finding::Failed });
            }
            How::Late => {
                let late = &mut self.late[at];
                *(if commit { &mut late.commit } else { &mut late.roll_back }) = true;
                return Ok(Finding::Failed);
            }
            _ => {}
        }
        let done = self.is_free(rules, at) && self.servers[at].finish(commit);
        if done {
            self.decided_against(rules)?;
        }
        Ok(if done && how == How::Well { Finding::Done } else { Finding::Failed })
    }

    pub(super) fn deliver_finish(&mut self, rules: &Rules, at: usize, commit: bool) -> Result<(), String> {
        self.drop_finish(at, commit);
        if self.is_free(rules, at) && self.servers[at].finish(commit) {
            self.decided_against(rules)?;
        }
        Ok(())
    }

    pub(super) fn drop_finish(&mut self, at: usize, commit: bool) {
        let late = &mut self.late[at];
        *(if commit { &mut late.commit } else { &mut late.roll_back }) = false;
    }
}

/// What home says where it has no row, with what is broken on purpose.
fn absent(rules: &Rules, home: Incarnations<'_>, forgotten: bool) -> HomeSays {
    match home.absent(NAMED, forgotten) {
        HomeSays::Nothing if rules.has(Mistake::OldPrimaryAsked) => HomeSays::Absent { trusted: Trust::Other },
        HomeSays::Nothing | HomeSays::Absent { trusted: Trust::Other }
            if rules.has(Mistake::InstalledIsAdopted) && !home.is_promoted() =>
        {
            HomeSays::Absent { trusted: Trust::Adopted }
        }
        says => says,
    }
}

/// How else the next task may go.
fn hows(rules: &Rules, recovery: &Recovery, mut push: impl FnMut(How)) {
    let task = recovery.machine.next();
    if matches!(task, Task::Finish { .. }) && rules.losses {
        push(How::ReplyLost);
        push(How::Late);
    }
    if matches!(task, Task::Finish { .. }) && rules.forgets {
        push(How::InVain);
    }
    if rules.unreachable && !recovery.holding {
        push(How::Refused);
    }
    if rules.unreachable && task == Task::AskReceipts && rules.participants().len() > 1 {
        rules.participants().for_each(|at| push(How::Without(at)));
    }
}

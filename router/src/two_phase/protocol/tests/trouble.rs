//! What servers and operators do to the modelled world.

use super::client::Client;
use super::rules::{HOME, Mistake, RECOVERERS, Role, Rules};
use super::server::{Branch, Held, Server, Session};
use super::standing::Standing;
use super::world::{Late, Move, World};
use crate::two_phase::protocol::{Adopting, Step, adopting};

impl World {
    pub(super) fn trouble_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        for at in rules.databases() {
            match self.session_is(at) {
                Session::Broken(late) => {
                    moves.push(Move::Noticed(at));
                    if late.is_some() {
                        moves.push(Move::Delivered(at));
                    }
                }
                Session::Live if rules.kills => moves.push(Move::Killed(at)),
                _ => {}
            }
        }
        let forgotten = rules.participants().filter(|at| self.servers[*at].is_forgotten());
        moves.extend(forgotten.map(Move::Restarts));
        let home = &self.servers[HOME];
        if home.limbo.is_some() && home.row.is_none() && !home.probed {
            moves.push(Move::Reappears);
        }
        if rules.operator && !self.by_hand {
            // Where a branch was committed before, who rolls it back by hand leaves nothing that would tell.
            let is_again = |at: usize| self.undone && self.servers[at].standing != Standing::INSTALLED;
            let is_there = |at: usize| self.servers[at].prepared() && self.is_free(rules, at) && !is_again(at);
            let prepared = rules.participants().filter(|at| is_there(*at));
            moves.extend(prepared.flat_map(|at| [Move::ByHand(at, true), Move::ByHand(at, false)]));
        }
        if rules.failover || rules.predecessor.is_some() {
            self.failover_moves(rules, moves);
        }
        if rules.promotion {
            self.promotion_moves(rules, moves);
        }
    }

    fn failover_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        let home = &self.servers[HOME];
        if home.standing.incarnations(rules).is_promoted() {
            moves.push(Move::Adopts);
        }
        if self.failed_over || !rules.failover || home.probed || self.stale.is_some_and(|stale| stale.probed) {
            return;
        }
        // Of a SQLite file an older copy was put back.
        for stale in [false, true].into_iter().filter(|stale| !(*stale && rules.sqlite)) {
            moves.push(Move::FailsOver { kept: true, stale });
            // What was cleaned up is not lost any more: a standby can't be behind for that long.
            if home.row.is_some_and(|row| !row.closed) {
                moves.push(Move::FailsOver { kept: false, stale });
            }
        }
    }

    /// A participant fails over to a standby that was behind, or not, and an operator does what the runbook says.
    fn promotion_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        for at in rules.participants().filter(|at| rules.roles[*at] == Role::Writes) {
            let server = &self.servers[at];
            if !self.promoted {
                moves.push(Move::Promotes { at, kept: true });
                // Who has written alone has prepared nothing.
                if server.branch == Branch::Committed && rules.writers().count() > 1 {
                    moves.push(Move::Promotes { at, kept: false });
                }
            }
            if !server.standing.incarnations(rules).is_promoted() {
                continue;
            }
            let home = &self.servers[HOME];
            // A commit that may come back is older than the rows that were deleted since, so it is there or not.
            let is_forgotten =
                self.forgotten && home.row.is_none() && !home.locked(rules.sqlite) && home.limbo.is_none();
            if server.prepared() && is_forgotten && self.is_free(rules, at) {
                moves.push(Move::Settles(at));
            }
            let row = home.row.map(|row| row.state);
            let refused = server.prepared() && adopting(row, self.forgotten) == Adopting::Refuse;
            if !refused || rules.has(Mistake::AdoptedUnsettled) {
                moves.push(Move::AdoptsParticipant(at));
            }
        }
    }

    pub(super) fn trouble(&mut self, rules: &Rules, happens: Move) {
        match happens {
            Move::Reappears => {
                let home = &mut self.servers[HOME];
                if let Some(held) = home.limbo.take() {
                    home.commit(held);
                }
            }
            Move::Delivered(at) => self.deliver(rules, at),
            Move::Noticed(at) | Move::Killed(at) => self.session(at).hang_up(),
            Move::Restarts(at) => {
                self.servers[at].restart();
                self.disconnect(rules, at);
            }
            Move::FailsOver { kept, stale } => self.fail_over(rules, kept, stale),
            Move::Adopts => self.servers[HOME].standing.adopt(),
            Move::Promotes { at, kept } => self.promote(rules, at, kept),
            Move::Settles(at) => {
                let commit = rules.writers().any(|other| self.servers[other].work)
                    && !rules.has(Mistake::SettledAsHome)
                    || self.servers[HOME].work;
                let server = &mut self.servers[at];
                server.finish(commit);
                server.receipt = false;
            }
            Move::AdoptsParticipant(at) => {
                let row = self.servers[HOME].row.map(|row| row.state);
                let server = &mut self.servers[at];
                if adopting(row, self.forgotten) == Adopting::Commit && !rules.has(Mistake::AdoptedUndecided) {
                    server.finish(true);
                }
                server.standing.adopt();
            }
            Move::ByHand(at, commit) => {
                self.servers[at].finish(commit);
                self.by_hand = true;
            }
            _ => unreachable!("{happens:?} is no trouble"),
        }
    }

    fn deliver(&mut self, rules: &Rules, at: usize) {
        if let Client::Running { piped, .. } = &mut self.client
            && at == HOME
            && std::mem::take(piped)
        {
            self.session(HOME).execute(Step::Intent { always: true });
            return;
        }
        let server = self.session(at);
        let before = server.branch;
        if let Session::Broken(Some(step)) = server.session {
            World::execute(server, rules, step);
            server.session = Session::Broken(None);
        }
        self.note_loss(at, before);
    }

    /// What an old primary commits after a failover is lost.
    pub(super) fn note_loss(&mut self, at: usize, before: Branch) {
        if at == HOME && self.stale.is_some_and(|stale| stale.branch == Branch::Committed) {
            self.lost |= before != Branch::Committed;
        }
    }

    fn promote(&mut self, rules: &Rules, at: usize, kept: bool) {
        let old = self.servers[at];
        let branch = match old.branch {
            Branch::Committed if !kept => Branch::Prepared(Held { work: true, receipt: true, ..Held::default() }),
            Branch::Open(_) => Branch::RolledBack,
            Branch::Forgotten(held) => Branch::Prepared(held),
            branch => branch,
        };
        let new = Server { standing: old.standing.promoted(), ..Server::new(branch, Session::Gone) };
        self.servers[at] = if kept { Server { work: old.work, receipt: old.receipt, ..new } } else { new };
        self.undone |= !kept;
        self.promoted = true;
        self.disconnect(rules, at);
    }

    /// Whoever recovers or cleans has lost the connection to a server.
    fn disconnect(&mut self, rules: &Rules, at: usize) {
        self.late[at] = Late::default();
        self.recoveries.iter_mut().flatten().for_each(|recovery| recovery.gone |= 1 << at);
        self.look_elsewhere(rules, at);
    }

    fn fail_over(&mut self, rules: &Rules, kept: bool, stale: bool) {
        let old = self.servers[HOME];
        let mut new = Server::new(Branch::RolledBack, Session::Gone);
        // A SQLite file has no incarnation.
        new.standing = if rules.sqlite { old.standing } else { old.standing.promoted() };
        // Nobody asks the one before it any more.
        for who in 0..RECOVERERS {
            if self.recoveries[who].is_some_and(|recovery| recovery.stale) {
                self.recoverer_dies(who);
            }
        }
        if kept {
            new.row = old.row;
            new.work = old.work;
        }
        self.lost |= !kept;
        self.servers[HOME] = new;
        self.stale = stale.then_some(old);
        self.failed_over = true;
    }
}

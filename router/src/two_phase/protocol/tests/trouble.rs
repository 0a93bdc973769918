//! What servers and operators do to the modelled world.

use super::client::Client;
use super::rules::{HOME, Rules};
use super::server::{Branch, Server, Session};
use super::world::{Move, World};
use crate::two_phase::protocol::Step;

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
        let home = &self.servers[HOME];
        if home.limbo.is_some() && home.row.is_none() && !home.probed {
            moves.push(Move::Reappears);
        }
        if rules.operator && !self.by_hand {
            let prepared = rules.participants().filter(|at| self.servers[*at].prepared() && self.is_free(rules, *at));
            moves.extend(prepared.flat_map(|at| [Move::ByHand(at, true), Move::ByHand(at, false)]));
        }
        if rules.failover {
            self.failover_moves(rules, moves);
        }
    }

    fn failover_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        if self.failed_over {
            if !self.adopted && !rules.sqlite {
                moves.push(Move::Adopts);
            }
            return;
        }
        let home = &self.servers[HOME];
        if home.probed {
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
            Move::FailsOver { kept, stale } => self.fail_over(kept, stale),
            Move::Adopts => self.adopted = true,
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

    fn fail_over(&mut self, kept: bool, stale: bool) {
        let old = self.servers[HOME];
        let mut new = Server::new(Branch::RolledBack, Session::Gone);
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

//! The last pass of recovery, with all databases up, and what must hold after it.

use super::rules::{HOME, Mistake, RECOVERERS, Rules};
use super::server::Server;
use super::world::{How, World};
use crate::two_phase::protocol::Outcome;

/// More tasks than a recoverer can have.
const TASKS: usize = 40;

impl World {
    /// Recovers what is still, and checks what the databases hold then.
    pub fn settle(&self, rules: &Rules) -> Result<(), String> {
        let mut world = self.clone();
        (0..RECOVERERS).for_each(|who| world.recoverer_dies(who));
        world.closer = None;
        world.servers.iter_mut().for_each(Server::restart);
        let mut left = false;
        let listed = world.listing(rules);
        if listed != 0 {
            left |= world.recover(rules, listed)? == Outcome::Left;
        }
        if world.orphan(rules) && !rules.has(Mistake::NoAudit) {
            left |= world.recover(rules, 0)? == Outcome::Left;
        }
        world.close_all(rules);
        world.judge(rules, left)?;
        world.check(rules)?;
        // What SQLite has written and not synced may still come back, or not.
        if let Some(held) = world.servers[HOME].limbo.take().filter(|_| world.servers[HOME].row.is_none()) {
            world.servers[HOME].commit(held);
            world.close_all(rules);
            world.judge(rules, left)?;
        }
        Ok(())
    }

    fn close_all(&mut self, rules: &Rules) {
        if self.is_unclosed() {
            self.start_look(rules);
            while self.closer.is_some() {
                self.look(rules, How::Well);
            }
        }
    }

    fn recover(&mut self, rules: &Rules, branches: u8) -> Result<Outcome, String> {
        self.list(rules, 0, branches, false);
        for _ in 0..TASKS {
            if let Some(outcome) = self.recoverer_step(rules, 0, How::Well)? {
                return Ok(outcome);
            }
        }
        Err("a recoverer comes to no end".into())
    }

    fn judge(&self, rules: &Rules, left: bool) -> Result<(), String> {
        let mut works = rules.writers().map(|at| self.servers[at].work);
        let first = works.next().unwrap_or(false);
        let split = works.any(|work| work != first);
        let trouble = self.lost || self.by_hand;
        let prepared = rules.participants().any(|at| self.servers[at].prepared());
        let unasked = rules.participants().any(|at| !self.asks(rules, at));
        let reported = self.told || left || unasked;
        // It may have been committed before its standby was promoted, and forgotten since.
        let waits = prepared && self.promoted && (self.forgotten || unasked);
        if split && !trouble && !waits {
            return Err("split: the work is in one database, and not in another".into());
        }
        if split && !reported {
            return Err("split, and nobody is told".into());
        }
        if prepared && !(reported && (trouble || waits || self.failed_over)) {
            return Err("a branch stays prepared".into());
        }
        if trouble || prepared || unasked {
            return Ok(());
        }
        if self.is_unclosed() {
            return Err("the decision can't be closed, though all have committed".into());
        }
        self.kept_its_word(rules, first)
    }
}

//! How far the levels of a transaction are on one server. Pure: no connection, no SQL.
//!
//! A level has four states. *Pending*: the transaction has it, the server has not heard of it. *Sent*: its control
//! statement is under way. *Open*: the server has confirmed it. *Closing*: it ended well, and its RELEASE waits for the
//! next control statement. Pending levels lie above the open ones and need no memory of their own: they are the
//! difference between the transaction's depth and `open`.

use super::control::{Control, Start};

/// The states of all levels of one branch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    open: u32,
    sent: u32,
    closing: u32,
}

/// What ending a level takes on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the server has not heard of the level.
    Local,
    /// RELEASE of this level, at once or with the next control statement.
    Release(u32),
    /// ROLLBACK TO this level.
    RollbackTo(u32),
}

impl Levels {
    /// Whether the server has the transaction open.
    pub fn begun(self) -> bool {
        self.open > 0
    }

    /// Whether every level up to `depth` is open, so that a statement may simply run.
    pub fn ready(self, depth: u32) -> bool {
        self.open == depth
    }

    /// Marks the missing levels as sent, and gives the control statements that open them.
    #[inline]
    pub fn send<'a>(&mut self, depth: u32, start: &'a Start) -> impl Iterator<Item = Control<'a>> + use<'a> {
        let release = (self.closing > 0).then_some(Control::Release(self.open + 1));
        let missing = self.open + 1..=depth;
        self.sent = depth.saturating_sub(self.open);
        let opened =
            missing.map(move |level| if level == 1 { Control::Begin(start) } else { Control::Savepoint(level) });
        release.into_iter().chain(opened)
    }

    /// The server's answer came: what was sent is open, and what was closing is gone.
    pub fn confirm(&mut self) {
        self.open += self.sent;
        self.sent = 0;
        self.closing = 0;
    }

    /// What was sent failed, or its answer was lost: it is pending again.
    pub fn fail(&mut self) {
        self.sent = 0;
    }

    /// The level above `depth` ended well.
    pub fn release(&mut self, depth: u32) -> Ending {
        if self.open <= depth {
            return Ending::Local;
        }
        self.closing += self.open - depth;
        self.open = depth;
        Ending::Release(depth + 1)
    }

    /// The release went out at once and was confirmed.
    pub fn released(&mut self) {
        self.closing = 0;
    }

    /// The level above `depth` is to be undone. Work that earlier levels handed down to `depth` stays.
    pub fn roll_back(&mut self, depth: u32) -> Ending {
        if self.open <= depth {
            return Ending::Local;
        }
        // ROLLBACK TO destroys what lies above and leaves the level itself, which is then released like any other.
        self.open = depth;
        self.closing = 1;
        Ending::RollbackTo(depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server does with the control statements: a stack of savepoints, each with the length of the work then.
    #[derive(Default, Clone)]
    struct Server {
        savepoints: Vec<(u32, usize)>,
        work: Vec<u32>,
    }

    impl Server {
        fn control(&mut self, control: Control<'_>) {
            match control {
                Control::Begin(_) => {
                    assert!(self.savepoints.is_empty(), "BEGIN inside a transaction");
                    self.savepoints.push((1, 0));
                }
                Control::Savepoint(level) => {
                    assert!(!self.savepoints.is_empty(), "SAVEPOINT outside of a transaction");
                    self.savepoints.push((level, self.work.len()));
                }
                Control::Release(level) => {
                    let at = self.position(level);
                    self.savepoints.truncate(at);
                }
                Control::RollbackTo(level) => {
                    let at = self.position(level);
                    self.work.truncate(self.savepoints[at].1);
                    self.savepoints.truncate(at + 1);
                }
                other => panic!("no level statement: {other:?}"),
            }
        }

        /// Like every server, finds the newest savepoint of the name.
        fn position(&self, level: u32) -> usize {
            assert_ne!(level, 1, "level 1 is ended by COMMIT and ROLLBACK");
            self.savepoints.iter().rposition(|(name, _)| *name == level).expect("no such savepoint")
        }
    }

    /// What the user means: each level's work, undone or handed down as a whole.
    #[derive(Clone)]
    struct Meant {
        levels: Vec<Vec<u32>>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        Statement,
        Ok,
        Err,
    }

    fn apply(step: Step, n: u32, deferred: bool, levels: &mut Levels, server: &mut Server, meant: &mut Meant) -> bool {
        let depth = u32::try_from(meant.levels.len()).expect("few levels");
        match step {
            Step::Enter => meant.levels.push(Vec::new()),
            Step::Statement => {
                if !levels.ready(depth) {
                    levels.send(depth, &Start::default()).for_each(|control| server.control(control));
                    levels.confirm();
                }
                server.work.push(n);
                meant.levels.last_mut().expect("a level").push(n);
            }
            Step::Ok | Step::Err if depth == 1 => return false,
            Step::Ok => {
                let work = meant.levels.pop().expect("a level");
                meant.levels.last_mut().expect("a level").extend(work);
                if let Ending::Release(level) = levels.release(depth - 1)
                    && !deferred
                {
                    server.control(Control::Release(level));
                    levels.released();
                }
            }
            Step::Err => {
                meant.levels.pop();
                if let Ending::RollbackTo(level) = levels.roll_back(depth - 1) {
                    server.control(Control::RollbackTo(level));
                    if !deferred {
                        server.control(Control::Release(level));
                        levels.released();
                    }
                }
            }
        }
        assert_eq!(server.work, meant.levels.concat(), "after {step:?}");
        true
    }

    fn explore(left: u32, deferred: bool, state: &(Levels, Server, Meant)) -> u64 {
        if left == 0 {
            return 1;
        }
        let mut seen = 1;
        for step in [Step::Enter, Step::Statement, Step::Ok, Step::Err] {
            let (mut levels, mut server, mut meant) = state.clone();
            if apply(step, left, deferred, &mut levels, &mut server, &mut meant) {
                seen += explore(left - 1, deferred, &(levels, server, meant));
            }
        }
        seen
    }

    #[test]
    fn the_server_holds_what_the_levels_mean_after_every_sequence_of_ten_steps() {
        for deferred in [true, false] {
            let start = (Levels::default(), Server::default(), Meant { levels: vec![Vec::new()] });
            let seen = explore(10, deferred, &start);
            assert!(seen > 100_000, "only {seen} states were seen");
        }
    }

    #[test]
    fn a_level_whose_opening_failed_is_pending_again() {
        let mut levels = Levels::default();
        assert_eq!(levels.send(2, &Start::default()).count(), 2);
        levels.fail();
        assert!(!levels.begun());
        assert_eq!(levels.roll_back(1), Ending::Local);
    }
}

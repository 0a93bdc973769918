//! What the coordinator does in the modelled world.

use super::rules::{HOME, Mistake, Role, Rules};
use super::server::{Branch, Held, Server, Session};
use super::standing::NAMED;
use super::world::{How, Move, World};
use crate::two_phase::protocol::{Answer, Coordinator, Ending, Part, State, Step};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    Running {
        machine: Coordinator,
        /// Its probe holds the row's lock: at the old primary or not.
        probing: Option<bool>,
        /// Its intent is on its way and counts as written, which is a mistake.
        piped: bool,
    },
    Ended {
        ending: Ending,
        left: bool,
        two_phases: bool,
    },
    Dead,
}

impl Client {
    pub fn new(rules: &Rules) -> Self {
        let parts = rules.roles.iter().map(|role| match role {
            Role::Idle => Part::Idle,
            Role::Reader => Part::Reader,
            Role::Looked | Role::Writes => Part::Open,
        });
        Self::Running { machine: Coordinator::new(HOME, false, parts), probing: None, piped: false }
    }

    /// It has committed all branches itself, and may clean up after itself.
    pub fn is_through(&self) -> bool {
        matches!(self, Self::Ended { ending: Ending::Committed, left: false, two_phases: true })
    }
}

impl World {
    pub(super) fn client_moves(&self, rules: &Rules, moves: &mut Vec<Move>) {
        let Client::Running { machine, probing, piped } = &self.client else { return };
        moves.push(Move::CoordinatorDies);
        if *piped && self.session_is(HOME) == Session::Live && !self.servers[HOME].probed {
            moves.push(Move::Delivered(HOME));
        }
        // A row that is inserted this late waits for the probe.
        if rules.late_row() && machine.next() == Step::Decide && self.servers[HOME].probed {
            return;
        }
        let mut push = |how| moves.push(Move::Coordinator(how));
        push(How::Well);
        let Some(at) = place(machine.next()) else {
            if probing.is_none() && rules.losses {
                push(How::Refused);
            }
            if probing.is_none() && self.stale.is_some() {
                push(How::Stale);
            }
            return;
        };
        if self.session_is(at) == Session::Live {
            if rules.losses {
                push(How::ReplyLost);
                push(How::Late);
            }
            if rules.refusals {
                push(How::Refused);
            }
        } else if rules.losses && matches!(machine.next(), Step::Apply(_) | Step::RollBack(_)) {
            push(How::Refused);
        }
        if rules.sqlite && matches!(machine.next(), Step::Decide | Step::CommitAlone(HOME)) {
            moves.push(Move::CoordinatorDiesBeforeSync);
        }
    }

    pub(super) fn client_step(&mut self, rules: &Rules, how: How) -> Result<(), String> {
        let Client::Running { machine, .. } = &self.client else { return Ok(()) };
        let step = machine.next();
        let answer = match place(step) {
            None => self.client_probes(rules, how),
            Some(at) => Some(self.request(rules, step, at, how)),
        };
        if let (Client::Running { machine, .. }, Some(answer)) = (&mut self.client, answer) {
            machine.answer(step, answer);
        }
        self.end_client(rules)
    }

    /// A coordinator that has nothing more to do gives its connections back.
    pub(super) fn end_client(&mut self, rules: &Rules) -> Result<(), String> {
        let Client::Running { machine, .. } = &self.client else { return Ok(()) };
        let Step::End(ending) = machine.next() else { return Ok(()) };
        let (left, two_phases) = (machine.left(), machine.used_two_phases());
        self.client = Client::Ended { ending, left, two_phases };
        for at in rules.databases() {
            let server = self.session(at);
            server.session = match (server.session, server.branch) {
                (Session::Live, Branch::Open(_)) => return Err(format!("the branch on {at} was left open")),
                // Whoever leaves a prepared branch closes its connection.
                (Session::Live, Branch::Prepared(_)) => Session::Broken(None),
                (Session::Live, _) => Session::Gone,
                (session, _) => session,
            };
        }
        Ok(())
    }

    pub(super) fn client_dies(&mut self) {
        if let Client::Running { probing: Some(stale), .. } = self.client {
            self.home(stale).probed = false;
        }
        self.client = Client::Dead;
        for server in self.servers.iter_mut().chain(&mut self.stale) {
            if server.session == Session::Live {
                server.session = Session::Broken(None);
            }
        }
    }

    pub(super) fn client_dies_before_sync(&mut self) {
        if let Branch::Open(held) = self.servers[HOME].branch {
            self.servers[HOME].limbo = Some(held);
        }
        self.servers[HOME].hang_up();
        self.client_dies();
    }

    fn request(&mut self, rules: &Rules, step: Step, at: usize, how: How) -> Answer {
        let Client::Running { piped, .. } = &mut self.client else { unreachable!("only a coordinator asks") };
        if let Step::Intent { .. } = step
            && rules.has(Mistake::PrepareBeforeReply)
        {
            *piped = true;
            return Answer::Wrote;
        }
        let flush = step == Step::Decide && std::mem::take(piped);
        let free = self.is_free(rules, at);
        let server = self.session(at);
        if server.session != Session::Live {
            return match step {
                // On a new connection.
                Step::Apply(_) | Step::RollBack(_) if how == How::Well && free => {
                    if server.finish(matches!(step, Step::Apply(_))) { Answer::Done } else { Answer::Failed }
                }
                _ => lost(step),
            };
        }
        if flush && server.execute(Step::Intent { always: true }) != Answer::Wrote {
            server.branch = Branch::RolledBack;
        }
        let before = server.branch;
        let answer = answer(server, rules, step, how);
        self.note_loss(at, before);
        answer
    }

    fn client_probes(&mut self, rules: &Rules, how: How) -> Option<Answer> {
        let Client::Running { probing, .. } = self.client else { unreachable!("only a coordinator asks") };
        let stale = probing.unwrap_or(how == How::Stale);
        let forgotten = self.forgotten && !rules.has(Mistake::MarkIgnored);
        let home = self.home(stale);
        let trusted = home.standing.name() == NAMED;
        let (answer, holds) = match (probing, home.row.map(|row| row.state)) {
            (Some(_), _) => {
                home.end_probe(rules, !forgotten);
                (Some(if trusted && !forgotten { Answer::RolledBack } else { Answer::Unknown }), None)
            }
            _ if how == How::Refused => (Some(Answer::Unknown), None),
            (None, Some(State::Committed)) => (Some(Answer::Committed), None),
            (None, Some(State::Aborted)) => (Some(Answer::RolledBack), None),
            (None, Some(State::Heuristic)) => (Some(Answer::Unknown), None),
            (None, None) if home.locked(rules.sqlite) => (Some(Answer::Unknown), None),
            (None, None) => {
                home.probed = true;
                (None, Some(stale))
            }
        };
        if let Client::Running { probing, .. } = &mut self.client {
            *probing = holds;
        }
        answer
    }
}

/// The database of a step; none for the probe, which has a connection of its own.
fn place(step: Step) -> Option<usize> {
    match step {
        Step::Receipt(at)
        | Step::EndReader(at)
        | Step::Withdraw(at)
        | Step::CommitAlone(at)
        | Step::Prepare(at)
        | Step::Apply(at)
        | Step::RollBack(at) => Some(at),
        Step::Intent { .. } | Step::Decide => Some(HOME),
        Step::Probe | Step::End(_) => None,
    }
}

fn answer(server: &mut Server, rules: &Rules, step: Step, how: How) -> Answer {
    match how {
        How::ReplyLost => {
            World::execute(server, rules, step);
            server.session = Session::Broken(None);
            lost(step)
        }
        How::Late => {
            // The others change nothing that anybody could see before their branch is rolled back.
            let matters = matches!(
                step,
                Step::Prepare(_) | Step::Decide | Step::CommitAlone(_) | Step::Apply(_) | Step::RollBack(_)
            );
            server.session = Session::Broken(matters.then_some(step));
            lost(step)
        }
        How::Refused => match step {
            // It was begun for the row, and then the row was refused.
            Step::Intent { always: true } if matches!(server.branch, Branch::None | Branch::Committed) => {
                server.branch = Branch::Open(Held::default());
                Answer::Failed
            }
            Step::Decide | Step::CommitAlone(_) => {
                server.branch = Branch::RolledBack;
                Answer::RolledBack
            }
            Step::Apply(_) | Step::RollBack(_) => {
                server.session = Session::Broken(None);
                Answer::Failed
            }
            _ => Answer::Failed,
        },
        _ => World::execute(server, rules, step),
    }
}

/// What the coordinator is told where no reply comes.
fn lost(step: Step) -> Answer {
    if matches!(step, Step::Decide | Step::CommitAlone(_)) { Answer::Unknown } else { Answer::Failed }
}

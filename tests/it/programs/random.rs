//! Random programs. A seed gives the same ones again.

use fastrand::Rng;
use multidb::testing::{Fault, Point};
use multidb::{CommitMode, Propagation};

use super::grammar;
use super::program::{Action, Channel, Ending, How, Moment, On, Program, Relief, Scope, Step};
use super::trouble::MOMENTS;
use crate::fixture::Kind;

/// How deep a program is, how many steps a body has, and how many the whole.
const DEPTH: u32 = 4;
const BODY: usize = 4;
const SIZE: usize = 16;

const POINTS: [Point; 10] = [
    Point::Begin,
    Point::Statement,
    Point::Savepoint,
    Point::Release,
    Point::RollbackTo,
    Point::Commit,
    Point::Rollback,
    Point::Prepare,
    Point::CommitPrepared,
    Point::RollbackPrepared,
];
const FAULTS: [Fault; 7] = [
    Fault::Refused,
    Fault::UniqueViolation,
    Fault::Serialization,
    Fault::Deadlock,
    Fault::LockTimeout,
    Fault::ConnectionLost,
    Fault::ReplyLost,
];

/// A program for databases of these kinds.
pub(super) fn program(rng: &mut Rng, kinds: [Kind; 2]) -> Program {
    let faulty = rng.u8(..20) == 0;
    let mut maker = Maker { rng, kinds, left: SIZE, faulty };
    let mut program = Program { steps: maker.body(0), ..Program::default() };
    if faulty {
        program.faults = (0..rng.usize(1..=2)).map(|_| fault(rng)).collect();
        return program;
    }
    program.undone = rng.u8(..24) == 0;
    program
}

/// A failure of any kind, most often one that leaves a commit in doubt.
fn fault(rng: &mut Rng) -> (usize, Point, u32, Fault) {
    if rng.bool() {
        let point = *pick(rng, &[Point::Commit, Point::Commit, Point::Prepare, Point::CommitPrepared]);
        return (rng.usize(..2), point, rng.u32(..2), *pick(rng, &[Fault::ReplyLost, Fault::ConnectionLost]));
    }
    (rng.usize(..2), *pick(rng, &POINTS), rng.u32(..3), *pick(rng, &FAULTS))
}

fn pick<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}

struct Maker<'a> {
    rng: &'a mut Rng,
    kinds: [Kind; 2],
    left: usize,
    /// Failures are planned.
    faulty: bool,
}

impl Maker<'_> {
    fn one_in(&mut self, number: u32) -> bool {
        self.rng.u32(..number) == 0
    }

    fn site(&mut self) -> usize {
        usize::from(self.one_in(4))
    }

    fn body(&mut self, depth: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.rng.usize(1..=BODY) {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let action = self.action(depth);
            steps.push(Step { action, tolerant: self.rng.u8(..10) < 7 });
        }
        steps
    }

    fn action(&mut self, depth: u32) -> Action {
        let opens = depth < DEPTH && self.rng.u8(..10) < if depth == 0 { 6 } else { 3 };
        if opens {
            return self.opening(depth);
        }
        match self.rng.u8(..40) {
            0..10 => Action::Insert(
                self.site(),
                *pick(self.rng, &[How::Execute, How::Execute, How::Returning, How::Calls, How::Boxed]),
            ),
            10..31 => self.text(),
            31 => Action::PanicInBind(self.site()),
            32 => Action::Panic,
            33 => Action::Fail,
            34 => Action::Hooks,
            35 if self.one_in(2) => Action::Stumble(self.site()),
            35 => Action::SetRollback(self.rng.u8(..4) > 0),
            36 => Action::Commit,
            37 => {
                if self.one_in(2) {
                    Action::Commit
                } else {
                    Action::RollBack
                }
            }
            38 => Action::Stumble(self.site()),
            _ if self.one_in(3) => Action::Kill(self.site()),
            _ => {
                let words = pick(self.rng, &MOMENTS);
                Action::Explode(self.site(), Moment { words, after: self.rng.bool() })
            }
        }
    }

    fn text(&mut self) -> Action {
        let site = self.site();
        let text = grammar::text(self.rng, self.kinds[site]);
        let channel = match self.rng.u8(..16) {
            0..7 => Channel::Batch,
            _ if text.rows => *pick(self.rng, &[Channel::Load, Channel::First, Channel::Iterate]),
            7..11 if text.single => Channel::Execute,
            7..13 => Channel::Batch,
            13 | 14 => Channel::Raw,
            _ => *pick(self.rng, &[Channel::RawUnwatched, Channel::RawPanic]),
        };
        Action::Send(site, channel, text)
    }

    fn opening(&mut self, depth: u32) -> Action {
        match self.rng.u8(..20) {
            0..14 => {
                let scope = self.scope(depth);
                Action::Scope(scope, self.body(depth + 1))
            }
            14 | 15 => Action::Transaction(self.site(), self.body(depth + 1)),
            16 | 17 => {
                let ending = *pick(self.rng, &[Ending::Release, Ending::RollBack, Ending::Drop]);
                Action::Savepoint(ending, self.body(depth + 1))
            }
            18 if self.one_in(4) => {
                let relief = if self.one_in(3) { Relief::Kill } else { Relief::Release };
                Action::Wait(self.site(), relief, self.body(depth + 1))
            }
            _ => Action::Stream(self.site(), self.body(depth + 1)),
        }
    }

    fn scope(&mut self, depth: u32) -> Scope {
        let on = if self.one_in(4) { On::Both } else { On::One(self.site()) };
        let mut scope = Scope::plain(on);
        if depth > 0 || self.one_in(5) {
            scope.propagation = match self.rng.u8(..16) {
                0..6 => Propagation::Nested,
                6..8 => Propagation::Join,
                8..11 => Propagation::RequiresNew,
                11 => Propagation::Durable,
                12 => Propagation::Mandatory,
                13 => Propagation::Supports,
                14 => Propagation::Never,
                _ => Propagation::NotSupported,
            };
        }
        scope.manual = self.one_in(5);
        scope.read_only = self.one_in(9);
        scope.serializable = self.one_in(12);
        scope.verified = self.one_in(if self.faulty { 3 } else { 10 }) && !scope.read_only;
        scope.retry = if self.one_in(4) { self.rng.u32(1..3) } else { 0 };
        let transactional =
            !matches!(scope.propagation, Propagation::Supports | Propagation::Never | Propagation::NotSupported);
        if self.one_in(10) && transactional && !scope.manual && !scope.read_only {
            scope.key = Some(self.rng.u8(..2));
        }
        if on == On::Both && scope.key.is_none() && self.one_in(6) && !scope.verified {
            scope.commit = CommitMode::BestEffort;
        }
        scope
    }
}

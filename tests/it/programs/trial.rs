//! A program, run and judged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::ground::{ALIASES, Ground};
use super::history::Came;
use super::judge::{judge, judge_undone};
use super::program::{Action, Channel, How, Mark, On, Program, Relief, Scope, Step, Text};
use super::run::run;
use super::shrink::shrink;
use crate::fixture::Kind;

/// How long sessions may wait for each other before they are killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many programs with the same problem are made small.
const SEEN_LIMIT: usize = 5;

/// The ground with what its programs need.
pub(super) struct Trial {
    ground: Ground,
    /// The last id that was given out.
    next: Cell<i64>,
    /// Kills sessions that wait for each other for too long.
    guard: mpsc::Sender<bool>,
    /// How often each problem was found.
    seen: BTreeMap<String, usize>,
}

/// A program that fails.
pub(super) struct Found {
    pub(super) program: Program,
    pub(super) problem: String,
}

impl Found {
    /// What failures of one kind share: the problem, and the kinds of steps that it takes.
    pub(super) fn kind(&self) -> String {
        format!("{} {:?}", kind_of(&self.problem), self.program.outline())
    }
}

fn kind_of(problem: &str) -> String {
    let problem = problem.split(['=', '(', '"']).next().unwrap_or_default();
    problem.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

impl Trial {
    pub(super) fn new(kinds: [Kind; 2], in_memory: bool) -> Option<Self> {
        let ground = Ground::new(kinds, in_memory)?;
        let mut killers = [ground.sites[0].killer(), ground.sites[1].killer()];
        let (guard, guarded) = mpsc::channel();
        std::thread::spawn(move || {
            let mut runs = false;
            loop {
                match guarded.recv_timeout(PATIENCE) {
                    Ok(begins) => runs = begins,
                    Err(RecvTimeoutError::Timeout) if runs => killers.iter_mut().for_each(|kill| kill()),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Some(Self { ground, next: Cell::new(0), guard, seen: BTreeMap::new() })
    }

    /// Runs a program. One that fails is made as small as can be, unless many have failed like it.
    pub(super) fn judge(&mut self, program: Program) -> Option<Found> {
        let problem = self.fails(&program)?;
        let seen = self.seen.entry(kind_of(&problem)).or_insert(0);
        *seen += 1;
        if *seen > SEEN_LIMIT {
            return None;
        }
        let (program, problem) = shrink(program, problem, |smaller| self.fails(smaller));
        Some(Found { program, problem })
    }

    fn fails(&mut self, program: &Program) -> Option<String> {
        let in_memory = self.ground.sites.iter().any(|site| site.in_memory);
        if in_memory && (program.undone || !program.faults.is_empty()) {
            // In such a test it would be another database, and with its connection it is lost.
            return None;
        }
        self.guard.send(true).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| self.try_it(program)));
        self.guard.send(false).unwrap();
        let problem = match result {
            Ok(Ok(())) => return None,
            Ok(Err(problem)) => problem,
            Err(panic) => format!("a panic that nobody planned: {}", text_of(&*panic)),
        };
        self.ground.renew();
        Some(problem)
    }

    fn try_it(&mut self, program: &Program) -> Result<(), String> {
        let from = self.next.get() + 1;
        let begin = Instant::now();
        let databases = self.ground.open(program);
        let mut entered = databases.enter();
        if program.undone {
            let history = run(&self.ground, program, &self.next);
            drop((entered, databases));
            self.ground.end_test();
            let held = self.held(from)?;
            judge_undone(&history, [&held[0], &held[1]])?;
            entered = self.ground.open(&Program::default()).enter();
        } else {
            self.run_and_judge(program, from)?;
            self.ground.rests()?;
        }
        for innocent in innocents() {
            let from = self.next.get() + 1;
            let failed = self.run_and_judge(&innocent, from).map_err(|problem| format!("afterwards: {problem}"))?;
            if program.faults.is_empty() && !kills(&program.steps) && begin.elapsed() < PATIENCE {
                self.all_there(from).map_err(|problem| format!("afterwards: {problem}: {failed}"))?;
            }
        }
        drop(entered);
        Ok(())
    }

    /// Gives what statements said that failed.
    fn run_and_judge(&self, program: &Program, from: i64) -> Result<String, String> {
        let history = run(&self.ground, program, &self.next);
        self.ground.settle()?;
        let held = self.held(from)?;
        judge(&history, [&held[0], &held[1]])?;
        let failed = history.sent.iter().map(|sent| &sent.came).chain(history.levels.iter().map(|level| &level.came));
        Ok(failed.filter(|came| matches!(came, Came::Err(..))).map(Came::to_string).collect::<Vec<_>>().join(", "))
    }

    /// All rows of an innocent program are there: nothing has refused it.
    fn all_there(&self, from: i64) -> Result<(), String> {
        let held = self.held(from)?;
        for (site, held) in held.iter().enumerate() {
            if held.len() != 2 {
                return Err(format!("an innocent program on `{}` was refused", ALIASES[site]));
            }
        }
        Ok(())
    }

    fn held(&self, from: i64) -> Result<[BTreeMap<i64, usize>; 2], String> {
        let mut held = [BTreeMap::new(), BTreeMap::new()];
        for (site, held) in held.iter_mut().enumerate() {
            for id in self.ground.held(site, from)? {
                *held.entry(id).or_insert(0) += 1;
            }
        }
        Ok(held)
    }
}

/// What must go well after any program: on each database a statement by itself, and a scope.
fn innocents() -> Vec<Program> {
    let put = |site, text: bool| {
        let action = if text {
            let sql = "INSERT INTO {t} (id) VALUES ({0})".to_owned();
            Action::Send(site, Channel::Batch, Text { sql, marks: vec![Mark::Put], single: true, rows: false })
        } else {
            Action::Insert(site, How::Execute)
        };
        Step { action, tolerant: true }
    };
    let scope =
        |site| Step { action: Action::Scope(Scope::plain(On::One(site)), vec![put(site, true)]), tolerant: true };
    let steps = vec![put(0, false), put(1, false), scope(0), scope(1)];
    vec![Program { steps, ..Program::default() }]
}

fn kills(steps: &[Step]) -> bool {
    steps.iter().any(|step| match &step.action {
        Action::Kill(_) | Action::Wait(_, Relief::Kill, _) => true,
        Action::Send(_, _, text) => text.sql.contains("terminate") || text.sql.contains("KILL"),
        other => other.inner().is_some_and(|steps| kills(steps)),
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("not a text").to_owned()
}

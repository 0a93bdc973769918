//! Makes a program that fails smaller, for as long as it fails.

use multidb::{CommitMode, Propagation};

use super::program::{Action, Channel, On, Program, Scope, Step};

/// How many programs are tried at most.
const TRIES: usize = 250;

/// The smallest program that was found, with what it fails by.
pub(super) fn shrink(
    mut program: Program,
    mut problem: String,
    mut fails: impl FnMut(&Program) -> Option<String>,
) -> (Program, String) {
    let mut tries = 0;
    'again: loop {
        for candidate in smaller(&program) {
            tries += 1;
            if tries > TRIES {
                return (program, problem);
            }
            if let Some(found) = fails(&candidate) {
                (program, problem) = (candidate, found);
                continue 'again;
            }
        }
        return (program, problem);
    }
}

/// Programs that are a little smaller, the smallest first.
fn smaller(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    if program.undone {
        all.push(Program { undone: false, ..program.clone() });
    }
    if !program.faults.is_empty() {
        all.push(Program { faults: Vec::new(), ..program.clone() });
        for at in 0..program.faults.len() {
            let mut faults = program.faults.clone();
            faults.remove(at);
            all.push(Program { faults, ..program.clone() });
        }
    }
    for steps in smaller_steps(&program.steps) {
        all.push(Program { steps, ..program.clone() });
    }
    all
}

fn smaller_steps(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    let replaced = |at: usize, with: Vec<Step>| {
        let mut steps = steps.to_vec();
        steps.splice(at..=at, with);
        steps
    };
    for at in 0..steps.len() {
        all.push(replaced(at, Vec::new()));
    }
    for (at, step) in steps.iter().enumerate() {
        if let Some(inner) = step.action.inner() {
            all.push(replaced(at, inner.clone()));
            for inner in smaller_steps(inner) {
                let mut step = step.clone();
                *step.action.inner_mut().unwrap() = inner;
                all.push(replaced(at, vec![step]));
            }
        }
        for action in simpler(&step.action) {
            all.push(replaced(at, vec![Step { action, tolerant: step.tolerant }]));
        }
        if step.tolerant {
            all.push(replaced(at, vec![Step { tolerant: false, ..step.clone() }]));
        }
    }
    all
}

/// The same action with fewer options.
fn simpler(action: &Action) -> Vec<Action> {
    match action {
        Action::Scope(scope, steps) => {
            let plain = Scope::plain(scope.on);
            let variants = [
                Scope { retry: 0, ..scope.clone() },
                Scope { manual: false, ..scope.clone() },
                Scope { read_only: false, ..scope.clone() },
                Scope { serializable: false, ..scope.clone() },
                Scope { verified: false, ..scope.clone() },
                Scope { key: None, ..scope.clone() },
                Scope { commit: CommitMode::Atomic, ..scope.clone() },
                Scope { propagation: Propagation::Nested, ..scope.clone() },
                Scope { on: On::One(0), ..scope.clone() },
            ];
            let fewer = std::iter::once(plain).chain(variants).filter(|variant| variant != scope);
            fewer.map(|scope| Action::Scope(scope, steps.clone())).collect()
        }
        Action::Send(site, channel, text) if *channel != Channel::Batch && !text.rows => {
            vec![Action::Send(*site, Channel::Batch, text.clone())]
        }
        _ => Vec::new(),
    }
}

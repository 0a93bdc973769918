//! The machines alone: after every answer that they may get they go on, and come to their end.

use crate::two_phase::protocol::recoverer::Trust;
use crate::two_phase::protocol::{
    Answer, Coordinator, Ending, Finding, HomeSays, Outcome, Part, Receipts, Recoverer, State, Step, Task,
};

/// No branch is asked for more than this many things, and home is asked for two more.
const STEPS_OF_A_BRANCH: usize = 5;
const STEPS_OF_HOME: usize = 2;
/// No branch that was found has more tasks than this, and there are three before them and one after.
const TASKS_OF_A_BRANCH: usize = 4;
const OTHER_TASKS: usize = 4;

const PARTS: [Part; 3] = [Part::Idle, Part::Reader, Part::Open];

fn answers(step: Step) -> &'static [Answer] {
    match step {
        Step::Receipt(_) | Step::Intent { always: false } => &[Answer::Wrote, Answer::Read, Answer::Failed],
        Step::Intent { always: true } => &[Answer::Wrote, Answer::Failed],
        Step::EndReader(_) | Step::Withdraw(_) | Step::Prepare(_) | Step::Apply(_) | Step::RollBack(_) => {
            &[Answer::Done, Answer::Failed]
        }
        Step::CommitAlone(_) | Step::Decide | Step::Probe => &[Answer::Committed, Answer::RolledBack, Answer::Unknown],
        Step::End(_) => &[],
    }
}

/// What has been asked for so far.
#[derive(Clone)]
struct Asked {
    home: usize,
    home_is_reader: bool,
    steps: Vec<(Step, Answer)>,
}

impl Asked {
    fn had(&self, test: impl Fn(Step, Answer) -> bool) -> bool {
        self.steps.iter().any(|(step, answer)| test(*step, *answer))
    }

    /// What may not be asked for after this.
    fn check(&self, step: Step) {
        let intended = self.had(|step, answer| matches!(step, Step::Intent { .. }) && answer == Answer::Wrote);
        let committed = self.had(|step, answer| {
            matches!(step, Step::Decide | Step::Probe | Step::CommitAlone(_)) && answer == Answer::Committed
        });
        let sent = self.had(|step, _| matches!(step, Step::Decide | Step::CommitAlone(_)));
        let refused = self.had(|step, answer| {
            matches!(step, Step::Decide | Step::Probe | Step::CommitAlone(_)) && answer == Answer::RolledBack
        });
        match step {
            Step::Intent { .. } => {
                let ended = self.had(|step, _| step == Step::EndReader(self.home));
                assert!(ended || !self.home_is_reader, "a decision in a read-only transaction: {:?}", self.steps);
            }
            Step::Prepare(_) => assert!(intended, "prepared before home held the decision: {:?}", self.steps),
            Step::Apply(_) => assert!(committed, "applied before home was committed: {:?}", self.steps),
            Step::RollBack(at) => {
                let home_first = self.had(|step, _| step == Step::RollBack(self.home));
                assert!(!sent || refused, "rolled back while home may be committed: {:?}", self.steps);
                assert!(!intended || refused || at == self.home || home_first, "home comes first: {:?}", self.steps);
            }
            Step::End(Ending::Committed) => assert!(!refused, "{:?}", self.steps),
            Step::End(Ending::RolledBack) => assert!(!committed, "{:?}", self.steps),
            _ => {}
        }
    }
}

fn try_all(machine: &Coordinator, asked: &Asked, limit: usize) -> usize {
    let step = machine.next();
    asked.check(step);
    assert!(asked.steps.len() <= limit, "no end: {:?}", asked.steps);
    let after = answers(step).iter().map(|answer| {
        let (mut machine, mut asked) = (machine.clone(), asked.clone());
        machine.answer(step, *answer);
        asked.steps.push((step, *answer));
        try_all(&machine, &asked, limit)
    });
    after.sum::<usize>().max(1)
}

#[test]
fn a_coordinator_comes_to_its_end_and_never_applies_or_rolls_back_too_early_whatever_it_is_answered() {
    let mut ways = 0;
    for (home, named) in (0..3).flat_map(|home| [false, true].map(|named| (home, named))) {
        for code in 0..27 {
            let parts = [code % 3, code / 3 % 3, code / 9].map(|at| PARTS[at]);
            let machine = Coordinator::new(home, named, parts);
            let asked = Asked { home, home_is_reader: parts[home] == Part::Reader, steps: Vec::new() };
            ways += try_all(&machine, &asked, 3 * STEPS_OF_A_BRANCH + STEPS_OF_HOME);
        }
    }
    println!("{ways} ways through a coordinator of three branches");
    assert!(ways > 2_000, "only {ways} ways");
}

#[test]
fn a_transaction_without_a_fault_commits_whoever_has_written() {
    for (code, wrote, named) in (0..27 * 8 * 2).map(|all| (all % 27, all / 27 % 8, all / 27 / 8 == 1)) {
        let parts = [code % 3, code / 3 % 3, code / 9].map(|at| PARTS[at]);
        let has_written = |at: usize| wrote & 1 << at != 0 && parts[at] == Part::Open;
        let mut machine = Coordinator::new(0, named, parts);
        loop {
            let step = machine.next();
            let answer = match step {
                Step::Receipt(at) if has_written(at) => Answer::Wrote,
                Step::Intent { always } if always || has_written(0) => Answer::Wrote,
                Step::Receipt(_) | Step::Intent { .. } => Answer::Read,
                Step::CommitAlone(_) | Step::Decide => Answer::Committed,
                Step::End(ending) => break assert_eq!(ending, Ending::Committed, "{parts:?}, {wrote:b} wrote"),
                _ => Answer::Done,
            };
            machine.answer(step, answer);
        }
        let writers = (0..3).filter(|at| has_written(*at)).count();
        // Where its name leads home, home holds the decision also about another one that has written alone.
        let home_may = parts[0] != Part::Reader && writers == 1 && !has_written(0);
        assert_eq!(machine.used_two_phases(), writers > 1 || named && home_may, "{parts:?}, {wrote:b} wrote");
        assert!(!machine.left());
    }
}

fn findings(task: Task) -> Vec<Finding> {
    match task {
        Task::Probe => {
            let rows = [State::Committed, State::Aborted, State::Heuristic].map(HomeSays::Row);
            let absent = [Trust::Same, Trust::Adopted, Trust::Other].map(|trusted| HomeSays::Absent { trusted });
            rows.into_iter().chain(absent).chain([HomeSays::Nothing]).map(Finding::Home).collect()
        }
        Task::AskReceipts => [(true, true), (true, false), (false, true), (false, false)]
            .map(|(found, complete)| Finding::Receipts(Receipts { found, complete }))
            .into(),
        Task::MarkHeuristic { .. } => vec![Finding::Done, Finding::Failed, Finding::Closed],
        Task::Finish { .. } => vec![Finding::Done, Finding::Failed, Finding::Held],
        Task::ListAgain(_) => vec![Finding::Listed, Finding::Gone, Finding::Failed],
        Task::AskReceipt(_) => vec![Finding::Receipt(true), Finding::Receipt(false), Finding::Failed, Finding::Held],
        Task::End(_) => Vec::new(),
    }
}

fn recover_all_ways(machine: Recoverer, way: &[(Task, Finding)], limit: usize) -> usize {
    let task = machine.next();
    assert!(way.len() <= limit, "no end: {way:?}");
    if let Task::End(outcome) = task {
        judge(outcome, way);
    }
    let after = findings(task).into_iter().map(|finding| {
        let mut machine = machine;
        machine.found(finding);
        recover_all_ways(machine, &[way, &[(task, finding)]].concat(), limit)
    });
    after.sum::<usize>().max(1)
}

/// What may have led to this outcome, and what must have.
fn judge(outcome: Outcome, way: &[(Task, Finding)]) {
    let finished =
        |wanted| way.iter().any(|(task, _)| matches!(task, Task::Finish { commit, .. } if *commit == wanted));
    let found = |finding| way.iter().any(|(_, found)| *found == finding);
    let any_receipt = |found: &Finding| matches!(found, Finding::Receipts(Receipts { found: true, .. }));
    assert!(!(finished(true) && finished(false)), "both ways: {way:?}");
    assert!(!found(Finding::Home(HomeSays::Nothing)) || outcome == Outcome::Left && way.len() == 1, "{way:?}");
    if finished(false) {
        let absent = |trusted| found(Finding::Home(HomeSays::Absent { trusted }));
        let complete = found(Finding::Receipts(Receipts { found: false, complete: true }));
        let aborted = found(Finding::Home(HomeSays::Row(State::Aborted)));
        assert!(aborted || absent(Trust::Same) || absent(Trust::Adopted) && complete, "no proof: {way:?}");
        assert!(!way.iter().any(|(_, found)| any_receipt(found)), "rolled back beside a receipt: {way:?}");
    }
    if finished(true) && !found(Finding::Home(HomeSays::Row(State::Committed))) {
        let is_marked = |(task, finding): &(Task, Finding)| {
            matches!(task, Task::MarkHeuristic { decided: false }) && *finding == Finding::Done
        };
        let told = found(Finding::Home(HomeSays::Row(State::Heuristic))) || way.iter().any(is_marked);
        assert!(told, "committed after a lost home, and that is stored nowhere: {way:?}");
        assert_eq!(outcome, Outcome::Heuristic, "committed, and home knows nothing of it: {way:?}");
    }
    if found(Finding::Listed) || found(Finding::Held) {
        assert!(matches!(outcome, Outcome::Left | Outcome::Heuristic), "a branch is still open: {way:?}");
    }
}

#[test]
fn a_recoverer_comes_to_its_end_and_never_finishes_on_less_than_proof_whatever_it_finds() {
    let mut ways = 0;
    for (branches, commit) in (0..3).flat_map(|branches| [(branches, false), (branches, true)]) {
        let machine = Recoverer::new(branches, commit);
        ways += recover_all_ways(machine, &[], branches * TASKS_OF_A_BRANCH + OTHER_TASKS);
    }
    println!("{ways} ways through a recoverer of up to two branches");
    assert!(ways > 500, "only {ways} ways");
}

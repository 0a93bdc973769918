//! Recovery: finishes the branches that a coordinator has left prepared.
//!
//! Any number of recoverers may run at once, in any process. None holds a lease, and none decides by a clock: what decides is
//! the row at home, and the lock on it that says whether the coordinator's session lives.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::result::QueryResult;

use super::protocol::{Closing, Finding, HomeSays, Outcome, Participant, Recoverer, State, Task, closing};
use super::report::{InDoubt, OPEN_LIMIT, Reason, RecoveryReport};
use super::site::{Site, Sites};
use crate::alias::Alias;
use crate::connection::decision::{Asked, Keep};
use crate::connection::survey::{Decision, Prepared, Survey};
use crate::databases::Databases;
use crate::fault;
use crate::telemetry::TARGET;
use crate::transaction_id::{Home, TransactionId};

/// One pass over all databases.
pub(crate) fn recover(databases: &Databases) -> RecoveryReport {
    let mut report = RecoveryReport::default();
    let mut sites = Sites::open(databases, &mut report);
    let mut found: BTreeMap<TransactionId, Vec<Branch>> = BTreeMap::new();
    for at in 0..sites.len() {
        // A listing that fails is no empty listing: it is reported, and the others go on.
        for prepared in sites.list(at, &mut report) {
            found.entry(prepared.id.clone()).or_default().push(Branch { at, prepared });
        }
    }
    fault::point("recover.list.after");
    for (id, branches) in found {
        let finished = Pass::new(databases, &mut sites, &id, &branches).run();
        let aliases: Vec<Alias> = branches.iter().map(|branch| sites.at(branch.at).alias.clone()).collect();
        tell(&id, &aliases, &finished);
        report.add(id, aliases, finished);
    }
    close(&mut sites, &mut report);
    audit(databases, &mut sites, &mut report);
    recall(&mut sites, &mut report);
    super::cleaning::delete_outdated(&mut sites);
    let (in_doubt, heuristic) = (report.left().len(), report.heuristic().len());
    if in_doubt + heuristic > 0 {
        let oldest = report.left().iter().map(InDoubt::age).max();
        tracing::warn!(target: TARGET, in_doubt, heuristic, ?oldest, "transactions are left in doubt");
    }
    if let Some(first) = report.open().first() {
        let decisions = report.open().len() + report.more_open();
        tracing::warn!(target: TARGET, decisions, %first, "decisions stay open");
    }
    // A sign of life, by which somebody can notice that nobody recovers.
    tracing::debug!(target: TARGET, %report, "a pass of recovery has ended");
    report
}

/// A prepared branch, and the database that it was found in.
struct Branch {
    at: usize,
    prepared: Prepared,
}

/// What became of a transaction, and why nothing could be done if so.
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    /// What the database answered that was to be asked, or to finish a branch.
    pub(super) said: Option<String>,
}

impl Finished {
    const HEURISTIC: Self = Self { outcome: Outcome::Heuristic, reason: None, said: None };
}

fn tell(id: &TransactionId, aliases: &[Alias], Finished { outcome, reason, said }: &Finished) {
    let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
    match outcome {
        Outcome::Committed | Outcome::RolledBack => {
            tracing::info!(target: TARGET, %id, ?aliases, ?outcome, "a transaction was recovered");
        }
        Outcome::Left => {
            let said = said.as_deref().unwrap_or_default();
            tracing::warn!(target: TARGET, %id, ?aliases, reason, said, "a transaction in doubt is left alone");
        }
        Outcome::Heuristic => {
            tracing::error!(target: TARGET, %id, ?aliases, "heuristic: the databases disagree, and an operator must look");
        }
    }
}

/// The recovery of one transaction.
struct Pass<'a> {
    databases: &'a Databases,
    sites: &'a mut Sites,
    id: &'a TransactionId,
    branches: &'a [Branch],
    /// The last error.
    said: Option<String>,
    has_waited: bool,
}

/// How long a branch is left alone on MariaDB once its transaction may be finished: the session that has prepared it may just be
/// ending, see [`Survey::may_forget`]. It makes that rare. What counts is what is found afterwards.
const UNTIL_FREE: Duration = Duration::from_millis(50);

/// Whether a branch is still open that its server says to have ended.
pub(super) fn is_open(survey: &mut dyn Survey, id: &TransactionId, branch: &str) -> QueryResult<bool> {
    if !survey.may_forget() || survey.receipts(id)?.iter().any(|name| name == branch) {
        return Ok(false);
    }
    survey.is_held(id, branch)
}

fn held(alias: &Alias, branch: &str) -> String {
    format!("`{alias}`: branch {branch} is on no list, and its receipt is locked")
}

impl<'a> Pass<'a> {
    fn new(databases: &'a Databases, sites: &'a mut Sites, id: &'a TransactionId, branches: &'a [Branch]) -> Self {
        Self { databases, sites, id, branches, said: None, has_waited: false }
    }

    fn run(mut self) -> Finished {
        let home = match self.home() {
            Ok(home) => home,
            Err(reason) => return Finished { outcome: Outcome::Left, reason: Some(reason), said: None },
        };
        let mut machine = Recoverer::new(self.branches.len(), self.databases.commits_on_lost_home());
        let mut reason = None;
        loop {
            let finding = match machine.next() {
                Task::End(outcome) => return Finished { outcome, reason, said: self.said },
                Task::Probe => {
                    let says = self.probe(home);
                    let is_before = self.id.home().is_some_and(|named| self.is_before(home, named));
                    let why = if is_before { Reason::Failover } else { Reason::Alive };
                    reason = (says == HomeSays::Nothing).then_some(why);
                    Finding::Home(says)
                }
                Task::AskReceipts => {
                    reason = Some(Reason::Failover);
                    let receipts = self.sites.receipts(self.id);
                    fault::point("receipts.after_check");
                    Finding::Receipts(receipts)
                }
                Task::Finish { branch, commit } => {
                    reason = reason.filter(|reason| *reason == Reason::Held).or(Some(Reason::NotFinished));
                    fault::point_at("recover.finish.before", branch);
                    let finished = self.finish(branch, commit);
                    fault::point_at("recover.finish.after", branch);
                    finished
                }
                Task::ListAgain(branch) => self.list_again(branch),
                Task::AskReceipt(branch) => self.receipt(branch),
                Task::MarkHeuristic { decided } => self.mark(home, decided),
            };
            if finding == Finding::Held {
                reason = Some(Reason::Held);
            }
            machine.found(finding);
        }
    }

    /// The database that holds the decision, if it can be asked.
    fn home(&self) -> Result<usize, Reason> {
        let home = self.id.home().expect("prepared branches have long names");
        let at = self.sites.of(&home.database_id).ok_or(Reason::HomeUnknown)?;
        let site = self.sites.at(at);
        match () {
            () if *site.identity.environment != *home.environment => Err(Reason::OtherEnvironment),
            () if site.identity.incarnation.is_none() => Err(Reason::Standby),
            () => Ok(at),
        }
    }

    /// An old primary that still answers: its successor has named the transaction.
    fn is_before(&self, home: usize, named: &Home) -> bool {
        self.sites.at(home).incarnations().is_before(&named.incarnation)
    }

    fn probe(&mut self, home: usize) -> HomeSays {
        fault::point("recover.probe.before");
        let says = self.ask(home);
        fault::point("recover.probe.after");
        says
    }

    fn ask(&mut self, home: usize) -> HomeSays {
        let named = &*self.id.home().expect("prepared branches have long names").incarnation;
        let is_promoted = self.branches.iter().any(|branch| self.sites.at(branch.at).incarnations().is_promoted());
        let (site, mut others) = self.sites.split(home);
        // An old list: the transaction may have been committed and forgotten since.
        let mut open = || {
            self.branches.iter().any(|Branch { at, prepared }| {
                others.get(*at).is_some_and(|site| site.prepared().is_ok_and(|listed| listed.contains(prepared)))
            })
        };
        let keep = match self.branches {
            [] => Keep::Never,
            // It may not have got its COMMIT, and the decision may be deleted since.
            _ if is_promoted => Keep::IfOpenAndNotForgotten(&mut open),
            _ => Keep::IfOpen(&mut open),
        };
        match site.confirm().and_then(|()| site.survey.ask(self.id, keep)) {
            Ok(Asked::Row(letter)) => State::of(&letter).map_or(HomeSays::Nothing, HomeSays::Row),
            Ok(asked) => site.incarnations().absent(named, asked == Asked::Forgotten),
            // Blocked, busy, or anything else: not proven dead.
            Err(error) => {
                self.said = Some(format!("`{}`: {error}", site.alias));
                HomeSays::Nothing
            }
        }
    }

    fn finish(&mut self, branch: usize, commit: bool) -> Finding {
        let Branch { at, prepared } = &self.branches[branch];
        let Some(gid) = prepared.gid() else { return Finding::Failed };
        let Site { alias, survey, .. } = self.sites.at_mut(*at);
        if survey.may_forget() && !std::mem::replace(&mut self.has_waited, true) {
            std::thread::sleep(UNTIL_FREE);
        }
        let finished = survey.finish(&gid, commit).and_then(|()| is_open(&mut **survey, self.id, &prepared.branch));
        match finished {
            Ok(false) => Finding::Done,
            Ok(true) => {
                self.said = Some(held(alias, &prepared.branch));
                Finding::Held
            }
            Err(error) => {
                self.said = Some(format!("`{alias}`: {error}"));
                Finding::Failed
            }
        }
    }

    fn list_again(&mut self, branch: usize) -> Finding {
        let Branch { at, prepared } = &self.branches[branch];
        match self.sites.at_mut(*at).prepared() {
            Ok(listed) if listed.contains(prepared) => Finding::Listed,
            Ok(_) => Finding::Gone,
            Err(_) => Finding::Failed,
        }
    }

    fn receipt(&mut self, branch: usize) -> Finding {
        let Branch { at, prepared } = &self.branches[branch];
        let Site { alias, survey, .. } = self.sites.at_mut(*at);
        let found = survey.receipts(self.id).map(|found| found.contains(&prepared.branch));
        // Somebody else may have been told that it has ended.
        let open = found.and_then(|found| Ok((found, !found && survey.is_held(self.id, &prepared.branch)?)));
        match open {
            Ok((_, true)) => {
                self.said = Some(held(alias, &prepared.branch));
                Finding::Held
            }
            Ok((found, false)) => Finding::Receipt(found),
            Err(_) => Finding::Failed,
        }
    }

    fn mark(&mut self, home: usize, decided: bool) -> Finding {
        match self.sites.at_mut(home).survey.mark(self.id, decided) {
            Ok(true) => Finding::Done,
            Ok(false) => Finding::Closed,
            Err(_) => Finding::Failed,
        }
    }
}

/// Looks for receipts whose decision is missing. Where the last branch was committed by hand, or home lost its commit after
/// it, nothing is prepared, and nothing else tells.
fn audit(databases: &Databases, sites: &mut Sites, report: &mut RecoveryReport) {
    for at in 0..sites.len() {
        let mut after = String::new();
        loop {
            let Ok(ids) = sites.at_mut(at).survey.receipt_ids(&after) else { break };
            let Some(last) = ids.last() else { break };
            after = last.to_string();
            for id in without_decision(sites, &ids) {
                let finished = Pass::new(databases, sites, &id, &[]).run();
                if finished.outcome == Outcome::Heuristic {
                    let aliases = vec![sites.at(at).alias.clone()];
                    tell(&id, &aliases, &finished);
                    report.add(id, aliases, finished);
                }
            }
        }
    }
}

/// Reports what was found to be heuristic before, until an operator has settled it.
fn recall(sites: &mut Sites, report: &mut RecoveryReport) {
    for home in 0..sites.len() {
        let mut after = String::new();
        loop {
            let found = sites.at_mut(home).survey.heuristic(&after);
            let ids = found.unwrap_or_else(|error| {
                report.problem(sites.at(home).alias.clone(), error.to_string());
                Vec::new()
            });
            let Some(last) = ids.last() else { break };
            after = last.to_string();
            for id in ids {
                report.recall(id);
            }
        }
    }
}

/// Those of these whose home can be asked and has no row.
fn without_decision(sites: &mut Sites, ids: &[TransactionId]) -> Vec<TransactionId> {
    let mut missing = Vec::new();
    for home in 0..sites.len() {
        let site = sites.at_mut(home);
        let is_here = |id: &&TransactionId| id.home().is_some_and(|home| home.database_id == site.identity.database_id);
        let here: Vec<TransactionId> = ids.iter().filter(is_here).cloned().collect();
        if here.is_empty() {
            continue;
        }
        let Ok(known) = site.survey.known(&here) else { continue };
        missing.extend(here.into_iter().filter(|id| !known.contains(id)));
    }
    missing
}

/// Closes committed transactions whose participants have all committed, and finds those that somebody has rolled back in part.
fn close(sites: &mut Sites, report: &mut RecoveryReport) {
    for home in 0..sites.len() {
        let mut after = String::new();
        loop {
            let found = match sites.at_mut(home).survey.unclosed(OPEN_LIMIT.as_secs(), &after) {
                Ok(found) => found,
                Err(error) => {
                    report.problem(sites.at(home).alias.clone(), error.to_string());
                    break;
                }
            };
            let Some(last) = found.last() else { break };
            after = last.id.to_string();
            close_those(sites, home, &found, report);
        }
    }
}

fn close_those(sites: &mut Sites, home: usize, found: &[Decision], report: &mut RecoveryReport) {
    let mut done = Vec::new();
    for Decision { id, participants, stays_open } in found {
        let states = participants.iter().map(|branch| participant(sites, id, branch)).collect::<Vec<_>>();
        if let Some(at) = states.iter().position(|state| *state == Participant::Held) {
            report_held(sites, id, &participants[at], report);
        }
        match closing(states) {
            Closing::Close => done.push(id.clone()),
            Closing::Leave => {
                let missing = sites.missing(participants);
                // A younger one may be under way, or be complete and not cleaned yet: nothing here tells which.
                if *stays_open && !missing.is_empty() {
                    report.stays_open(id.clone(), sites.at(home).alias.clone(), missing);
                }
            }
            Closing::Heuristic => {
                if sites.at_mut(home).survey.mark(id, true).is_ok_and(|marked| marked) {
                    let aliases = vec![sites.at(home).alias.clone()];
                    tell(id, &aliases, &Finished::HEURISTIC);
                    report.add(id.clone(), aliases, Finished::HEURISTIC);
                }
            }
        }
    }
    // What recovery commits waits for no standby, and a receipt that one could lose is no evidence.
    if done.is_empty() || !sites.are_confirmed() {
        return;
    }
    if sites.at_mut(home).survey.close(&done).is_ok() {
        fault::point("clean.close.after");
        report.closed += done.len();
    }
}

/// Tells of a branch that its server has forgotten, unless this pass has.
fn report_held(sites: &Sites, id: &TransactionId, branch: &str, report: &mut RecoveryReport) {
    let Some(at) = sites.of_branch(branch) else { return };
    if report.left().iter().any(|left| left.id == *id) {
        return;
    }
    let alias = &sites.at(at).alias;
    let finished = Finished { outcome: Outcome::Left, reason: Some(Reason::Held), said: Some(held(alias, branch)) };
    let aliases = vec![alias.clone()];
    tell(id, &aliases, &finished);
    report.add(id.clone(), aliases, finished);
}

/// What is known of a participant: its receipt, the list, and its receipt once more, since it may commit in between.
fn participant(sites: &mut Sites, id: &TransactionId, branch: &str) -> Participant {
    let Some(at) = sites.of_branch(branch) else { return Participant::Unknown };
    let site: &mut Site = sites.at_mut(at);
    let has_receipt = |site: &mut Site| site.survey.receipts(id).map(|found| found.iter().any(|name| name == branch));
    match has_receipt(site) {
        Ok(true) => return Participant::Receipt,
        Ok(false) => {}
        Err(_) => return Participant::Unknown,
    }
    match site.prepared() {
        Ok(listed) if listed.iter().any(|listed| listed.id == *id && listed.branch == branch) => Participant::Listed,
        Ok(_) => match has_receipt(site) {
            Ok(true) => Participant::Receipt,
            Ok(false) => match site.survey.is_held(id, branch) {
                Ok(true) => Participant::Held,
                Ok(false) => Participant::Gone,
                Err(_) => Participant::Unknown,
            },
            Err(_) => Participant::Unknown,
        },
        Err(_) => Participant::Unknown,
    }
}

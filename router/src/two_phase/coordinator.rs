//! Commits a transaction over several databases: does what the protocol says, and tells it what came of it.

use std::sync::Arc;

use super::applying::{Branch, Rest};
use super::cleaning;
use super::protocol::{Answer, Coordinator, Ending, Part, Step};
use super::rules::Ability;
use crate::alias::Alias;
use crate::connection::control::Gid;
use crate::connection::decision;
use crate::connection::gate::Gate;
use crate::connection::identity::Identity;
use crate::connection::receipt;
use crate::connection::slot::{AnySlot, NotPrepared, Outcome};
use crate::databases::Databases;
use crate::error::{Error, Result};
use crate::failure::{Failure, FailureClass};
use crate::fault;
use crate::telemetry::TARGET;
use crate::transaction_id::TransactionId;

/// A branch, as the coordinator sees it.
pub(crate) struct Member {
    /// Its index in the registry.
    pub(crate) database: usize,
    pub(crate) slot: Arc<dyn AnySlot>,
    /// Its number in the transaction.
    pub(crate) number: u32,
    /// It was begun read-only.
    pub(crate) reader: bool,
}

/// A transaction over several databases that is to be committed. Its first member is home.
pub(crate) struct Joint<'a> {
    pub(crate) databases: &'a Databases,
    pub(crate) gate: &'a Gate,
    pub(crate) id: TransactionId,
    pub(crate) members: Vec<Member>,
    /// A row proves the commit also where one database alone has written.
    pub(crate) verifies: bool,
    /// Its connections are those of a test whose work is rolled back: nobody will ever recover it.
    pub(crate) rehearsed: bool,
    /// It is over for its function once it is decided.
    pub(crate) hands_over: bool,
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Fate {
    Committed,
    RolledBack(Error),
    Unknown(Error),
}

/// The name of a transaction whose decision is on this database.
pub(crate) fn name(databases: &Databases, id: &TransactionId, home: &dyn AnySlot) -> Result<TransactionId> {
    let identity = checked(databases, home)?;
    let home = identity.home().ok_or_else(|| Error::Config {
        alias: Some(home.alias().clone()),
        key: None,
        problem: "it is a standby or read-only, and can't hold the decision of a transaction over several databases"
            .into(),
        remedy: "let its URL lead to the primary, or list a model of another database first".into(),
    })?;
    Ok(id.at(home))
}

/// The name of a branch in its transaction.
pub(crate) fn branch_name(databases: &Databases, number: u32, slot: &dyn AnySlot) -> Result<String> {
    Ok(format!("{number}_{}", checked(databases, slot)?.database_id))
}

/// What a database is, if it may be a part of such a transaction.
fn checked(databases: &Databases, slot: &dyn AnySlot) -> Result<Arc<Identity>> {
    let identity = slot.identity()?;
    let refused = |problem: String, remedy: String| {
        Err(Error::Config { alias: Some(slot.alias().clone()), key: None, problem, remedy })
    };
    if let Some(environment) = databases.environment()
        && *environment != *identity.environment
    {
        let problem = format!(
            "it belongs to the environment `{}`, and this application runs in `{environment}`: it may be a copy",
            identity.environment
        );
        return refused(problem, format!("mend the URL, or call `databases.adopt(\"{}\")`", slot.alias()));
    }
    if let Some((setting, is, should)) = &identity.shortcoming {
        let problem =
            format!("`{setting}` is `{is}`, with which a commit over several databases could be lost in part");
        return refused(problem, format!("set it to `{should}`"));
    }
    Ok(identity)
}

/// What is known of the members while they are committed.
struct Run<'a> {
    joint: &'a Joint<'a>,
    /// The transaction's name, once home was asked.
    id: Option<TransactionId>,
    /// The names of the branches.
    branches: Vec<Option<String>>,
    /// Which of them have left a receipt.
    wrote: Vec<bool>,
    prepared: Vec<bool>,
    /// Branches whose PREPARE had no answer.
    in_doubt: Vec<bool>,
    /// A row stands for the commit of the only branch that has written.
    proven: bool,
    /// Branches that a thread is to commit.
    handed_over: Vec<Branch>,
    error: Option<Error>,
}

/// Commits it, or rolls it back.
pub(crate) fn commit(joint: &Joint<'_>) -> Fate {
    let members = joint.members.len();
    let parts = joint.members.iter().map(|member| match () {
        () if !member.slot.begun() => Part::Idle,
        () if member.reader => Part::Reader,
        () => Part::Open,
    });
    let named = joint.id.home().is_some();
    let mut machine = Coordinator::new(0, named, parts);
    let mut run = Run {
        joint,
        id: None,
        branches: vec![None; members],
        wrote: vec![false; members],
        prepared: vec![false; members],
        in_doubt: vec![false; members],
        proven: false,
        handed_over: Vec::new(),
        error: None,
    };
    let ending = loop {
        let step = machine.next();
        if let Step::End(ending) = step {
            break ending;
        }
        let answer = run.perform(step).unwrap_or_else(|error| {
            run.error.get_or_insert(error);
            Answer::Failed
        });
        run.tell(step, answer);
        machine.answer(step, answer);
    };
    if !run.handed_over.is_empty() {
        run.hand_over();
    } else if ending == Ending::Committed && machine.used_two_phases() {
        fault::point("apply.all_done");
    }
    let complete = ending == Ending::Committed && !machine.left() && (machine.used_two_phases() || run.proven);
    fault::point("connection.before_return");
    for member in &joint.members {
        // Prepared ones are let go, and with them their connections. The others have ended.
        let _ = member.slot.roll_back();
    }
    if complete
        && !joint.rehearsed
        && let Some(id) = &run.id
    {
        let on = joint.members.iter().map(|member| member.database);
        cleaning::complete(joint.databases, id.clone(), on);
    }
    run.fate(ending)
}

impl Run<'_> {
    fn slot(&self, at: usize) -> &dyn AnySlot {
        &*self.joint.members[at].slot
    }

    fn perform(&mut self, step: Step) -> Result<Answer> {
        match step {
            Step::Receipt(at) => self.receipt(at),
            Step::EndReader(at) => {
                self.end_reader(at)?;
                fault::point_at("readonly.after_commit", at);
                Ok(Answer::Done)
            }
            Step::Intent { always } => self.intend(always),
            Step::Withdraw(at) => {
                if !self.joint.rehearsed {
                    let (id, branch) = self.names(at)?;
                    receipt::withdraw(self.slot(at), &id, &branch)?;
                }
                Ok(Answer::Done)
            }
            Step::CommitAlone(at) => Ok(self.commit_alone(at)),
            Step::Prepare(at) => self.prepare(at),
            Step::Decide => {
                fault::point("prepare.all_done");
                fault::point("decide.before_commit");
                let answer = self.outcome(self.slot(0).commit());
                if answer == Answer::Committed {
                    self.slot(0).sync_folder();
                }
                fault::point("decide.after_commit");
                Ok(answer)
            }
            Step::Probe => {
                fault::point("decide.probe.before");
                let answer = self.ask(0);
                fault::point("decide.probe.after");
                Ok(answer)
            }
            Step::Apply(at) => self.apply(at),
            Step::RollBack(at) => self.roll_back(at),
            Step::End(_) => unreachable!("the loop ends there"),
        }
    }

    fn receipt(&mut self, at: usize) -> Result<Answer> {
        if self.joint.rehearsed {
            return Ok(Answer::Wrote);
        }
        let (id, branch) = self.names(at)?;
        let participants = self.all_open()?;
        fault::point_at("receipt.before_insert", at);
        let wrote = receipt::leave(self.slot(at), &id, &branch, &participants)?;
        fault::point_at("receipt.after_insert", at);
        self.wrote[at] = wrote;
        Ok(if wrote { Answer::Wrote } else { Answer::Read })
    }

    /// The names of all branches beside home that may have written.
    fn all_open(&mut self) -> Result<String> {
        let open: Vec<usize> = (1..self.joint.members.len())
            .filter(|at| self.slot(*at).begun() && !self.joint.members[*at].reader)
            .collect();
        let names: Result<Vec<String>> = open.into_iter().map(|at| Ok(self.names(at)?.1)).collect();
        let names = names?;
        self.are_distinct(&names)?;
        Ok(names.join(","))
    }

    /// Two aliases of one database would be two branches that wait for each other.
    fn are_distinct(&self, names: &[String]) -> Result<()> {
        let home = self.id.as_ref().and_then(TransactionId::home).map(|home| &*home.database_id);
        let others = names.iter().filter_map(|name| Some(name.split_once('_')?.1));
        let mut seen: Vec<&str> = Vec::new();
        for id in home.into_iter().chain(others) {
            if seen.contains(&id) {
                return Err(self.one_database(id));
            }
            seen.push(id);
        }
        Ok(())
    }

    fn one_database(&self, id: &str) -> Error {
        let of_this = |member: &&Member| member.slot.identity().is_ok_and(|identity| *identity.database_id == *id);
        let aliases: Vec<&Alias> =
            self.joint.members.iter().filter(of_this).map(|member| member.slot.alias()).collect();
        let (first, second) = (aliases.first().expect("home, or a branch"), aliases.last().expect("likewise"));
        Error::Config {
            alias: Some((*second).clone()),
            key: Some("same_as".into()),
            problem: format!("it is one database with `{first}`, under another URL, or a copy of it"),
            remedy: format!(
                "write `same_as = \"{first}\"`, or mend the URL; a copy needs its own row in `multidb_meta`"
            ),
        }
    }

    fn end_reader(&mut self, at: usize) -> Result<()> {
        match self.slot(at).commit() {
            Outcome::Committed => Ok(()),
            Outcome::RolledBack(error) => Err(error),
            // It had nothing to lose.
            Outcome::Unknown => Err(Error::Pool {
                database: self.slot(at).alias().clone(),
                problem: "the connection was lost while its part, which had only read, was ended".into(),
            }),
        }
    }

    /// The reply is read here, before any PREPARE leaves.
    fn intend(&mut self, always: bool) -> Result<Answer> {
        if self.joint.rehearsed {
            let wrote = always || self.slot(0).begun();
            return Ok(if wrote { Answer::Wrote } else { Answer::Read });
        }
        let id = self.id()?;
        let writers =
            self.branches.iter().zip(&self.wrote).filter_map(|(branch, wrote)| branch.as_deref().filter(|_| *wrote));
        let participants = writers.collect::<Vec<_>>().join(",");
        fault::point("intent.before");
        self.slot(0).before_decision()?;
        let wrote = decision::intend(self.slot(0), &id, &participants, always)?;
        fault::point("intent.after");
        Ok(if wrote { Answer::Wrote } else { Answer::Read })
    }

    fn prepare(&mut self, at: usize) -> Result<Answer> {
        let gid = self.gid(at)?;
        fault::point_at("prepare.before", at);
        let prepared = self.slot(at).prepare(&gid);
        fault::point_at("prepare.after", at);
        match prepared {
            Ok(()) => {
                self.prepared[at] = true;
                Ok(Answer::Done)
            }
            Err(NotPrepared { error, in_doubt }) => {
                self.in_doubt[at] = in_doubt;
                Err(self.unprepared(error, at))
            }
        }
    }

    /// Why a branch is not prepared, and what to do. PostgreSQL's own words leave that out.
    fn unprepared(&self, error: Error, at: usize) -> Error {
        let alias = self.slot(at).alias();
        match error {
            Error::NotPreparable { database, problem, remedy } => {
                let home = self.joint.databases.at(self.joint.members[0].database);
                // Home commits by itself. Which database it is can be chosen if all of them prepare.
                let or_home = match Ability::of(home) {
                    Ability::Prepares => {
                        format!("; or list a model of `{alias}` first, since the first one is not prepared")
                    }
                    Ability::OnlyDecides(_) | Ability::Nothing(_) => String::new(),
                };
                Error::NotPreparable { database, problem, remedy: remedy + &or_home }
            }
            other => beyond_limit(other, alias),
        }
    }

    fn apply(&mut self, at: usize) -> Result<Answer> {
        let gid = self.gid(at)?;
        let prepared = match self.slot(at).take_prepared() {
            Ok(prepared) => prepared,
            Err(error) => return self.left_to_recovery(at, Err(error)),
        };
        let branch = Branch { at, prepared, gid };
        if self.joint.hands_over && !self.joint.rehearsed {
            self.handed_over.push(branch);
            return Ok(Answer::HandedOver);
        }
        let id = self.id.clone().unwrap_or_else(|| self.joint.id.clone());
        Ok(branch.apply(&id))
    }

    fn hand_over(&mut self) {
        let Some(id) = self.id.clone() else { return };
        let branches = std::mem::take(&mut self.handed_over);
        let on = self.joint.members.iter().map(|member| member.database).collect();
        Rest { databases: self.joint.databases.clone(), id, branches, on }.hand_over();
    }

    fn commit_alone(&mut self, at: usize) -> Answer {
        let verifies = self.joint.verifies && !self.joint.rehearsed;
        if verifies {
            if let Err(error) = self.prove(at) {
                // COMMIT was never sent.
                self.error.get_or_insert(error);
                let _ = self.slot(at).roll_back();
                return Answer::RolledBack;
            }
            self.proven = true;
        }
        fault::point_at("alone.before_commit", at);
        let mut answer = self.outcome(self.slot(at).commit());
        fault::point_at("alone.after_commit", at);
        if verifies && answer == Answer::Unknown {
            answer = self.ask(at);
        }
        answer
    }

    /// Leaves the decision about the only branch that has written in itself.
    fn prove(&mut self, at: usize) -> Result<()> {
        let id = name(self.joint.databases, &self.joint.id, self.slot(at))?;
        self.id = Some(id.clone());
        decision::intend(self.slot(at), &id, "", true).map(drop)
    }

    fn outcome(&mut self, outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Committed => Answer::Committed,
            Outcome::RolledBack(error) => {
                self.error.get_or_insert(error);
                Answer::RolledBack
            }
            Outcome::Unknown => Answer::Unknown,
        }
    }

    /// Asks what became of a commit whose reply was lost.
    fn ask(&mut self, at: usize) -> Answer {
        let Ok(id) = self.id() else { return Answer::Unknown };
        let database = self.joint.databases.at(self.joint.members[at].database);
        match database.driver().probe(&id) {
            decision::Verdict::Committed => Answer::Committed,
            decision::Verdict::RolledBack => {
                let text = "the connection was lost at COMMIT, and the database says that nothing was committed";
                let failure = Failure::new(FailureClass::NotCommitted, text);
                self.error.get_or_insert_with(|| self.joint.gate.blame(Arc::new(failure)));
                Answer::RolledBack
            }
            decision::Verdict::Unknown => Answer::Unknown,
        }
    }

    fn roll_back(&mut self, at: usize) -> Result<Answer> {
        if at != 0 {
            fault::point_at("abort.before", at);
        }
        let undone = match (self.prepared[at], self.in_doubt[at]) {
            (true, _) => self.gid(at).and_then(|gid| self.slot(at).finish_prepared(&gid, false)),
            (false, true) => Err(Error::Closed { database: self.slot(at).alias().clone() }),
            (false, false) => self.slot(at).roll_back(),
        };
        if at == 0 {
            fault::point("abort.after_home");
        } else {
            fault::point_at("abort.after", at);
        }
        // What is not prepared is rolled back with its session at the latest.
        if self.prepared[at] || self.in_doubt[at] {
            return self.left_to_recovery(at, undone);
        }
        if let Err(error) = undone {
            let alias = self.slot(at).alias();
            tracing::error!(target: TARGET, %alias, %error, "a transaction could not be rolled back; its connection is discarded");
        }
        Ok(Answer::Done)
    }

    fn left_to_recovery(&mut self, at: usize, finished: Result<()>) -> Result<Answer> {
        let Err(error) = finished else { return Ok(Answer::Done) };
        let (id, alias) = (self.id()?, self.slot(at).alias());
        tracing::warn!(target: TARGET, %id, %alias, %error, "a prepared branch is left to recovery");
        Ok(Answer::Failed)
    }

    /// The transaction's name: home is asked once.
    fn id(&mut self) -> Result<TransactionId> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let id = name(self.joint.databases, &self.joint.id, self.slot(0))?;
        Ok(self.id.insert(id).clone())
    }

    /// The names of the transaction and of a branch.
    fn names(&mut self, at: usize) -> Result<(TransactionId, String)> {
        let id = self.id()?;
        if self.branches[at].is_none() {
            let Member { slot, number, .. } = &self.joint.members[at];
            self.branches[at] = Some(branch_name(self.joint.databases, *number, &**slot)?);
        }
        Ok((id, self.branches[at].clone().expect("set above")))
    }

    fn gid(&mut self, at: usize) -> Result<Gid> {
        if self.joint.rehearsed {
            let number = self.joint.members[at].number;
            return Ok(Gid::new(&self.joint.id.to_string(), &number.to_string()).expect("digits"));
        }
        let (id, branch) = self.names(at)?;
        Ok(Gid::new(&id.to_string(), &branch).expect("letters and digits"))
    }

    fn tell(&self, step: Step, answer: Answer) {
        let (at, phase) = match step {
            Step::Prepare(at) => (at, "prepare"),
            Step::Decide => (0, "decide"),
            Step::Apply(at) => (at, "commit"),
            Step::RollBack(at) => (at, "rollback"),
            Step::Intent { .. } => (0, "start"),
            _ => return,
        };
        let id = self.id.as_ref().unwrap_or(&self.joint.id);
        tracing::debug!(target: TARGET, %id, alias = %self.slot(at).alias(), phase, ?answer, "a phase over several databases");
    }

    fn fate(mut self, ending: Ending) -> Fate {
        let id = self.id.clone().unwrap_or_else(|| self.joint.id.clone());
        match ending {
            Ending::Committed => {
                tracing::debug!(target: TARGET, %id, "complete");
                Fate::Committed
            }
            Ending::RolledBack => {
                let error = self.error.take();
                Fate::RolledBack(error.expect("nothing is rolled back without a reason"))
            }
            Ending::Unknown => {
                let involved = self.joint.members.iter().filter(|member| member.slot.begun());
                let databases: Vec<Alias> = involved.map(|member| member.slot.alias().clone()).collect();
                tracing::error!(target: TARGET, %id, ?databases, "in doubt");
                Fate::Unknown(Error::OutcomeUnknown { id, databases })
            }
        }
    }
}

/// The error of a server that prepares no more transactions than it is set to.
fn beyond_limit(error: Error, alias: &Alias) -> Error {
    let text = error.to_string();
    let is_limit = ["prepared transactions are disabled", "maximum number of prepared transactions reached"];
    if !is_limit.iter().any(|limit| text.contains(limit)) {
        return error;
    }
    Error::Config {
        alias: Some(alias.clone()),
        key: None,
        problem: format!("the transaction was rolled back, since it could not be prepared: {text}"),
        remedy: "set `max_prepared_transactions` to at least the number of connections and restart PostgreSQL; \
                 `databases.recover()` says whether transactions in doubt fill it"
            .into(),
    }
}

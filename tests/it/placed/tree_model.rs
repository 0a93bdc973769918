//! What a random program must do, in plain Rust: Django's `atomic` with the library's propagations.

use multidb::Propagation;

use super::layout::Layout;
use super::tree::{Action, End, Lists, Scope, Step};
use super::*;
use crate::fixture::Kind;

/// What a program does.
pub(super) struct Foretold {
    pub(super) journal: Vec<String>,
    pub(super) rows: Rows,
    /// The receipts of each transaction that was committed on several databases.
    pub(super) proofs: Vec<usize>,
}

/// Runs a program in the mind.
pub(super) fn foretell(layout: &'static Layout, program: &Scope) -> Foretold {
    let mut mind = Mind {
        layout,
        stack: Vec::new(),
        ids: 0,
        frames: 0,
        told: Foretold { journal: Vec::new(), rows: Rows::default(), proofs: Vec::new() },
    };
    let did = mind.scope(program);
    mind.note(told(&did));
    mind.told.rows.0.iter_mut().for_each(|rows| rows.sort_unstable());
    mind.told
}

/// Why a body didn't reach its end.
enum Stop {
    Error(&'static str),
    Panic,
}

type Did = Result<(), Stop>;

fn told(did: &Did) -> &'static str {
    match did {
        Ok(()) => "ok",
        Err(Stop::Error(word)) => word,
        Err(Stop::Panic) => "panic",
    }
}

struct Mind {
    layout: &'static Layout,
    stack: Vec<Entry>,
    ids: i64,
    frames: u32,
    told: Foretold,
}

enum Entry {
    Open(Transaction),
    /// Hides those below: what follows runs in autocommit.
    Hidden,
}

#[derive(Default)]
struct Transaction {
    frames: Vec<Frame>,
    levels: Vec<Level>,
    /// The first is home.
    branches: Vec<Branch>,
    manual: bool,
    /// Statements since the last commit.
    writes: u32,
}

struct Frame {
    number: u32,
    kind: Of,
    /// The level that it has or has joined, from 1 on.
    level: usize,
    undone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Scope,
    Joined,
    Savepoint,
}

#[derive(Default)]
struct Level {
    rows: Vec<(usize, i64)>,
    hooks: Vec<Hook>,
    doomed: bool,
}

/// Its name, and the model of the row that it puts after a commit.
#[derive(Clone, Copy)]
struct Hook(i64, Option<usize>);

/// The sites of one connection, the level that they joined in, and whether anything was sent.
struct Branch {
    sites: Vec<usize>,
    level: usize,
    begun: bool,
    /// It was begun in a transaction over several databases, so that SQLite has been asked how many rows were changed before.
    counts: bool,
    /// It has changed a row, be it undone.
    changed: bool,
}

impl Branch {
    fn new(sites: Vec<usize>, level: usize) -> Self {
        Self { sites, level, begun: false, counts: false, changed: false }
    }

    /// Whether it counts as written.
    fn has_written(&self, layout: &Layout) -> bool {
        let knows_better = self.counts && layout.sites[self.sites[0]] == Kind::Sqlite;
        self.begun && (self.changed || !knows_better)
    }
}

/// What a scope has entered.
#[derive(Clone, Copy)]
enum Entered {
    Transaction,
    /// A frame by its number.
    Frame(u32),
    Suspended,
    Autocommit,
}

impl Transaction {
    fn is_doomed(&self) -> bool {
        self.levels.iter().any(|level| level.doomed)
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().unwrap()
    }

    /// The levels from `level` on become a part of the one below.
    fn merge(&mut self, level: usize) {
        for ended in self.levels.split_off(level - 1) {
            let top = self.top();
            top.rows.extend(ended.rows);
            top.hooks.extend(ended.hooks);
            top.doomed |= ended.doomed;
        }
        self.branches.iter_mut().for_each(|branch| branch.level = branch.level.min(level - 1));
    }

    /// The levels from `level` on are undone, and what joined in them is no part of the transaction any more.
    fn undo(&mut self, level: usize) {
        self.levels.truncate(level - 1);
        self.branches.retain(|branch| branch.level < level);
    }

    fn is_in_its_own_scope(&self) -> bool {
        self.frames.iter().filter(|frame| frame.kind != Of::Savepoint).count() == 1
    }
}

impl Mind {
    fn open(&mut self) -> Option<&mut Transaction> {
        match self.stack.last_mut() {
            Some(Entry::Open(open)) => Some(open),
            _ => None,
        }
    }

    fn next(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    fn note(&mut self, what: &str) {
        let (depth, doomed) = self.open().map_or((0, false), |open| (open.levels.len(), open.is_doomed()));
        let doomed = if doomed { " doomed" } else { "" };
        self.told.journal.push(format!("{what} @{depth}{doomed}"));
    }

    fn steps(&mut self, steps: &[Step]) -> Did {
        for step in steps {
            let did = self.step(&step.action);
            self.note(told(&did));
            if !step.tolerant {
                did?;
            }
        }
        Ok(())
    }

    fn step(&mut self, action: &Action) -> Did {
        match action {
            Action::Put(model) => {
                let id = self.next();
                self.put(*model, id)
            }
            Action::Refused(model) => self.put(*model, TAKEN),
            Action::Hooks(model) => {
                let hook = Hook(self.next(), *model);
                match self.open() {
                    Some(open) => open.top().hooks.push(hook),
                    None => self.hook(hook),
                }
                Ok(())
            }
            Action::SetRollback(undone) => {
                let open = self.open().ok_or(Stop::Error("no scope"))?;
                open.frames.iter_mut().rfind(|frame| frame.kind == Of::Scope).unwrap().undone = *undone;
                Ok(())
            }
            Action::Commit => self.end_manually(true),
            Action::RollBack => self.end_manually(false),
            Action::Fail => Err(Stop::Error("purpose")),
            Action::Panic => Err(Stop::Panic),
            Action::Scope(scope) => self.scope(scope),
            Action::Transaction(model, steps) => {
                if self.open().is_none() {
                    return Ok(());
                }
                self.enlist(*model)?;
                let frame = self.push(Of::Scope);
                let did = self.steps(steps);
                self.leave(Entered::Frame(frame), did)
            }
            Action::Savepoint(end, steps) => self.savepoint(*end, steps),
        }
    }

    /// Whether a transaction of the thread has locked the SQLite file of a site.
    fn is_locked(&self, site: usize) -> bool {
        let locks = |entry: &Entry| match entry {
            Entry::Open(open) => open.branches.iter().any(|branch| branch.begun && branch.sites.contains(&site)),
            Entry::Hidden => false,
        };
        self.layout.sites[site] == Kind::Sqlite && self.stack.iter().any(locks)
    }

    fn put(&mut self, model: usize, id: i64) -> Did {
        let site = self.layout.at[model];
        let is_locked = self.is_locked(site);
        self.enlist(model)?;
        let Some(open) = self.open() else {
            return match id {
                _ if is_locked => Err(Stop::Error("locked")),
                TAKEN => Err(Stop::Error("refused")),
                _ => {
                    self.told.rows.0[model].push(id);
                    Ok(())
                }
            };
        };
        if open.is_doomed() {
            return Err(Stop::Error("doomed"));
        }
        let is_across = open.branches.len() > 1;
        let branch = open.branches.iter_mut().find(|branch| branch.sites.contains(&site)).unwrap();
        if !branch.begun {
            (branch.begun, branch.counts) = (true, is_across);
        }
        branch.changed |= id != TAKEN;
        open.writes += 1;
        if id == TAKEN {
            open.top().doomed = true;
            return Err(Stop::Error("refused"));
        }
        open.top().rows.push((model, id));
        Ok(())
    }

    /// The site of a model becomes a part of the open transaction.
    fn enlist(&mut self, model: usize) -> Did {
        let site = self.layout.at[model];
        let can_prepare = self.layout.sites[site] != Kind::Sqlite;
        let Some(open) = self.open() else { return Ok(()) };
        if open.branches.iter().any(|branch| branch.sites.contains(&site)) {
            return Ok(());
        }
        if !can_prepare {
            return Err(Stop::Error("not atomic"));
        }
        open.branches.push(Branch::new(vec![site], open.levels.len()));
        Ok(())
    }

    fn push(&mut self, kind: Of) -> u32 {
        self.frames += 1;
        let number = self.frames;
        let open = self.open().unwrap();
        if kind != Of::Joined {
            open.levels.push(Level::default());
        }
        open.frames.push(Frame { number, kind, level: open.levels.len(), undone: false });
        number
    }

    fn savepoint(&mut self, end: End, steps: &[Step]) -> Did {
        if self.open().is_none() {
            return Err(Stop::Error("no scope"));
        }
        let frame = self.push(Of::Savepoint);
        self.steps(steps)?;
        let open = self.open().unwrap();
        let Some(at) = open.frames.iter().position(|known| known.number == frame) else {
            // A commit of the manual scope has ended it.
            return if end == End::Drop { Ok(()) } else { Err(Stop::Error("ended")) };
        };
        let level = open.frames[at].level;
        match end {
            // It ends with its scope.
            End::Drop => return Ok(()),
            End::Release => {
                let doomed = open.is_doomed();
                open.frames.truncate(at);
                if doomed {
                    open.undo(level);
                    return Err(Stop::Error("doomed"));
                }
                open.merge(level);
            }
            End::RollBack => {
                open.frames.truncate(at);
                open.undo(level);
            }
        }
        Ok(())
    }

    fn scope(&mut self, scope: &Scope) -> Did {
        let entered = self.enter(scope)?;
        let did = self.steps(&scope.steps);
        self.leave(entered, did)
    }

    fn models(lists: Lists) -> Vec<usize> {
        match lists {
            Lists::One(model) => vec![model],
            Lists::All => vec![0, 1, 2],
        }
    }

    fn enter(&mut self, scope: &Scope) -> Result<Entered, Stop> {
        use Propagation::{Durable, Join, Mandatory, Nested, Never, NotSupported, RequiresNew, Supports};
        let is_open = self.open().is_some();
        let models = Self::models(scope.lists);
        match (scope.propagation, is_open) {
            (RequiresNew, _) | (Nested | Join | Durable, false) => return self.begin(&models, scope.manual),
            (Durable, true) => return Err(Stop::Error("durable")),
            (Never, true) => return Err(Stop::Error("never")),
            (Mandatory, false) => return Err(Stop::Error("mandatory")),
            _ if scope.manual => return Err(Stop::Error("conflict")),
            _ => {}
        }
        match (scope.propagation, is_open) {
            (Nested, true) => {
                let frame = self.push(Of::Scope);
                if let Err(stop) = models.iter().try_for_each(|model| self.enlist(*model)) {
                    return self.leave(Entered::Frame(frame), Err(stop)).map(|()| Entered::Autocommit);
                }
                Ok(Entered::Frame(frame))
            }
            (Join | Mandatory | Supports, true) => {
                models.iter().try_for_each(|model| self.enlist(*model))?;
                Ok(Entered::Frame(self.push(Of::Joined)))
            }
            (NotSupported, true) => {
                self.stack.push(Entry::Hidden);
                Ok(Entered::Suspended)
            }
            _ => Ok(Entered::Autocommit),
        }
    }

    fn begin(&mut self, models: &[usize], manual: bool) -> Result<Entered, Stop> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for site in models.iter().map(|model| self.layout.at[*model]) {
            if self.is_locked(site) {
                return Err(Stop::Error("busy"));
            }
            let is_file = |site: usize| self.layout.sites[site] == Kind::Sqlite;
            if groups.concat().contains(&site) {
                continue;
            }
            match groups.iter_mut().find(|group| is_file(site) && is_file(group[0])) {
                Some(files) => files.push(site),
                None => groups.push(vec![site]),
            }
        }
        // What can't prepare decides.
        let home = groups.iter().position(|group| self.layout.sites[group[0]] == Kind::Sqlite).unwrap_or(0);
        groups[..=home].rotate_right(1);
        let branches = groups.into_iter().map(|sites| Branch::new(sites, 1)).collect();
        self.stack.push(Entry::Open(Transaction { branches, manual, ..Transaction::default() }));
        self.push(Of::Scope);
        Ok(Entered::Transaction)
    }

    fn leave(&mut self, entered: Entered, did: Did) -> Did {
        match entered {
            Entered::Autocommit => did,
            Entered::Suspended => {
                self.stack.pop();
                did
            }
            Entered::Frame(number) => self.leave_frame(number, did),
            Entered::Transaction => self.end(did),
        }
    }

    fn leave_frame(&mut self, number: u32, did: Did) -> Did {
        let open = self.open().unwrap();
        let at = open.frames.iter().position(|frame| frame.number == number).unwrap();
        let Frame { kind, level, undone, .. } = open.frames[at];
        let doomed = open.is_doomed();
        open.frames.truncate(at);
        if kind == Of::Joined {
            // Savepoints that were dropped in it end with it.
            open.merge(level + 1);
            open.top().doomed |= did.is_err();
            return did;
        }
        if did.is_ok() && !undone && !doomed {
            open.merge(level);
            return did;
        }
        open.undo(level);
        if undone || did.is_err() { did } else { Err(Stop::Error("doomed")) }
    }

    /// Ends the innermost transaction.
    fn end(&mut self, did: Did) -> Did {
        let Some(Entry::Open(mut open)) = self.stack.pop() else { unreachable!("it was entered") };
        let result = match did {
            Err(stop) => Err(stop),
            Ok(()) if open.frames[0].undone => Ok(false),
            Ok(()) if open.is_doomed() => Err(Stop::Error("doomed")),
            Ok(()) if open.manual && open.writes > 0 => Err(Stop::Error("pending")),
            Ok(()) => Ok(true),
        };
        let committed = matches!(result, Ok(true));
        let hooks = self.finish(&mut open, committed);
        self.hooks(&hooks, committed);
        result.map(drop)
    }

    /// `commit` and `rollback` in a manual scope, which goes on.
    fn end_manually(&mut self, commit: bool) -> Did {
        let open = self.open().ok_or(Stop::Error("no scope"))?;
        if !open.manual || !open.is_in_its_own_scope() {
            return Err(Stop::Error("not manual"));
        }
        if commit && open.is_doomed() {
            return Err(Stop::Error("doomed"));
        }
        if commit && open.frames[0].undone {
            return Err(Stop::Error("conflict"));
        }
        let Some(Entry::Open(mut open)) = self.stack.pop() else { unreachable!("it is open") };
        let hooks = self.finish(&mut open, commit);
        open.frames.truncate(1);
        open.frames[0].undone = false;
        self.stack.push(Entry::Open(open));
        self.hooks(&hooks, commit);
        Ok(())
    }

    /// Keeps or drops what the transaction did, and gives its hooks.
    fn finish(&mut self, open: &mut Transaction, commit: bool) -> Vec<Hook> {
        let levels = std::mem::replace(&mut open.levels, vec![Level::default()]);
        let written = open.branches.iter().filter(|branch| branch.has_written(self.layout)).count();
        if commit && written > 1 {
            self.told.proofs.push(written - usize::from(open.branches[0].has_written(self.layout)));
        }
        for branch in &mut open.branches {
            *branch = Branch::new(std::mem::take(&mut branch.sites), 1);
        }
        open.writes = 0;
        let mut hooks = Vec::new();
        for level in levels {
            hooks.extend(level.hooks);
            for (model, id) in level.rows.into_iter().filter(|_| commit) {
                self.told.rows.0[model].push(id);
            }
        }
        hooks
    }

    fn hooks(&mut self, hooks: &[Hook], committed: bool) {
        self.stack.push(Entry::Hidden);
        for hook in hooks {
            if committed {
                self.hook(*hook);
            } else {
                self.note(&format!("r{}", hook.0));
            }
        }
        self.stack.pop();
    }

    /// Runs a hook after a commit.
    fn hook(&mut self, Hook(name, model): Hook) {
        let put = model.map(|model| {
            let put = vec![Step { action: Action::Put(model), tolerant: false }];
            let lists = Lists::One(model);
            told(&self.scope(&Scope { lists, propagation: Propagation::Nested, manual: false, steps: put }))
        });
        self.note(&format!("c{name} {}", put.unwrap_or_default()));
    }
}

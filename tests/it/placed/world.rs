//! The layouts with their databases, and a case in each of them.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use diesel::connection::{Connection, SimpleConnection};
use multidb::testing::Layouts;
use multidb::{DatabaseConfig, Databases, StaticRouter, schema, scope};
use tempfile::TempDir;

use super::layout::{LAYOUTS, Layout};
use super::models::{Account, Audit, Entry, IDS, TABLES, TAKEN, begin_after};
use super::observer::Observer;
use crate::fixture::{self, Kind};

/// All layouts for which there are servers.
pub(super) struct World {
    placed: Vec<Mutex<Placed>>,
    _folder: TempDir,
}

/// What the tests share while any of them runs: to make the databases takes longer than a test.
pub(super) fn world() -> Arc<World> {
    static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut shared = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let world = Arc::new(World::new());
        *shared = Arc::downgrade(&world);
        world
    })
}

/// Runs a claim in every layout. Gives what it returned and left, which is the same in all of them.
#[track_caller]
pub(super) fn everywhere<T: PartialEq + Debug>(claim: impl Fn() -> T) -> (T, Rows) {
    let world = world();
    let layouts = world.placed.iter().fold(Layouts::new(), |layouts, placed| {
        let placed = lock(placed);
        layouts.with(placed.layout.name, &placed.databases)
    });
    layouts.check(|layout| {
        let mut placed = world.layouts().find(|placed| placed.layout.name == layout.name).unwrap();
        let Left { returned, rows, .. } = placed.case(&claim);
        (returned, rows)
    })
}

fn lock(placed: &Mutex<Placed>) -> MutexGuard<'_, Placed> {
    placed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reachable =
            LAYOUTS.iter().filter(|layout| layout.sites.iter().all(|kind| fixture::server(*kind).is_some()));
        let placed = reachable.map(|layout| Mutex::new(Placed::new(layout, folder.path()))).collect();
        Self { placed, _folder: folder }
    }

    /// Each layout, while nobody else uses it.
    pub(super) fn layouts(&self) -> impl Iterator<Item = MutexGuard<'_, Placed>> {
        self.placed.iter().map(lock)
    }
}

/// A layout with its databases.
pub(super) struct Placed {
    pub(super) layout: &'static Layout,
    pub(super) databases: Databases,
    /// One for each site, and the id of its database.
    observers: Vec<(Observer, String)>,
    /// How many rows each table had after the last case.
    held: [usize; 3],
    /// The proofs that were there then.
    pub(super) proofs: Proofs,
    base: i64,
    /// A case has begun and not come to its end.
    disturbed: bool,
}

/// The rows of a case, by model.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Rows(pub(super) [Vec<i64>; 3]);

impl Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const A: usize, const B: usize, const C: usize> PartialEq<([i64; A], [i64; B], [i64; C])> for Rows {
    fn eq(&self, (accounts, entries, audits): &([i64; A], [i64; B], [i64; C])) -> bool {
        self.0[0] == *accounts && self.0[1] == *entries && self.0[2] == *audits
    }
}

/// How many rows of each kind the library has in its own tables, over all databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Proofs {
    pub(super) decisions: usize,
    pub(super) receipts: usize,
}

/// What a case returned, and what it left.
pub(super) struct Left<T> {
    pub(super) returned: T,
    pub(super) rows: Rows,
    /// Those that stand there now.
    pub(super) proofs: Proofs,
}

impl Placed {
    fn new(layout: &'static Layout, folder: &Path) -> Self {
        let urls: Vec<String> =
            layout.sites.iter().enumerate().map(|(at, kind)| make(layout, at, *kind, folder)).collect();
        let mut observers: Vec<Observer> =
            urls.iter().zip(layout.sites).map(|(url, kind)| observe(*kind, url)).collect();
        for (table, site) in TABLES.iter().zip(layout.at) {
            let sql = format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY); INSERT INTO {table} VALUES ({TAKEN})");
            observers[site].run(&sql).unwrap();
        }
        let aliases = layout.aliases();
        let mut builder = Databases::builder();
        for (at, alias) in aliases.iter().enumerate().filter(|(at, alias)| !aliases[..*at].contains(alias)) {
            let mut config = DatabaseConfig::new(*alias, urls[layout.at[at]].clone());
            // No other process has the file, so a lock is this thread's own, and waiting for it doesn't help.
            config.sqlite.busy_timeout = Some("10ms".into());
            builder = builder.database(config);
        }
        let [account, entry, audit] = aliases;
        let router = StaticRouter::new().model::<Account>(account).model::<Entry>(entry).model::<Audit>(audit);
        let databases = builder.router(router).build().unwrap();
        schema::install(&databases).unwrap();
        let id = |observer: &mut Observer| observer.texts("SELECT database_id AS text FROM multidb_meta").remove(0);
        let observers = observers
            .into_iter()
            .map(|mut observer| {
                let id = id(&mut observer);
                (observer, id)
            })
            .collect();
        Self { layout, databases, observers, held: [1; 3], proofs: Proofs::default(), base: 0, disturbed: false }
    }

    /// Runs a body on these databases, checks that nothing is left open, and tells what it left.
    pub(super) fn case<T>(&mut self, body: impl FnOnce() -> T) -> Left<T> {
        self.base += IDS;
        if std::mem::replace(&mut self.disturbed, true) {
            let (held, ..) = self.look();
            self.held = held;
        }
        begin_after(self.base);
        let entered = self.databases.enter();
        let returned = body();
        drop(entered);
        self.is_at_rest();
        let (held, rows, proofs) = self.look();
        for (model, rows) in rows.0.iter().enumerate() {
            assert_eq!(held[model], self.held[model] + rows.len(), "{}: rows of earlier cases", self.layout.name);
        }
        (self.held, self.proofs, self.disturbed) = (held, proofs, false);
        Left { returned, rows, proofs }
    }

    /// How many rows each table has, those of this case, and what the library has in its own tables, where each row must
    /// belong to a transaction that was committed.
    fn look(&mut self) -> ([usize; 3], Rows, Proofs) {
        let (mut held, mut rows, mut decisions, mut receipts) = ([0; 3], Rows::default(), BTreeSet::new(), Vec::new());
        for (site, (observer, _)) in self.observers.iter_mut().enumerate() {
            let mut query =
                "SELECT 'd ' || gid AS text FROM multidb_decision WHERE state = 'c' UNION ALL SELECT 'a ' || gid \
                             FROM multidb_decision WHERE state <> 'c' UNION ALL SELECT 'r ' || gid FROM multidb_receipt"
                    .to_owned();
            for model in (0..3).filter(|model| self.layout.at[*model] == site) {
                let (table, base) = (TABLES[model], self.base);
                let counted = format!("SELECT 'n{model} ' || COUNT(*) FROM {table}");
                let listed = format!("SELECT 'i{model} ' || id FROM {table} WHERE id > {base}");
                query = format!("{query} UNION ALL {counted} UNION ALL {listed}");
            }
            for line in observer.texts(&query) {
                let (kind, value) = line.split_once(' ').unwrap();
                let model = || kind[1..].parse::<usize>().unwrap();
                match &kind[..1] {
                    "d" => assert!(decisions.insert(value.to_owned()), "two decisions about {value}"),
                    "r" => receipts.push(value.to_owned()),
                    "n" => held[model()] = value.parse().unwrap(),
                    "i" => rows.0[model()].push(value.parse::<i64>().unwrap() - self.base),
                    _ => panic!("{}: nobody has asked for it, and it is aborted: {value}", self.layout.name),
                }
            }
        }
        rows.0.iter_mut().for_each(|ids| ids.sort_unstable());
        let orphan = receipts.iter().find(|gid| !decisions.contains(*gid));
        assert_eq!(orphan, None, "{}: a receipt without a decision", self.layout.name);
        (held, rows, Proofs { decisions: decisions.len(), receipts: receipts.len() })
    }

    /// No transaction is open or prepared, and every connection is back.
    fn is_at_rest(&mut self) {
        let name = self.layout.name;
        assert_eq!(scope::depth(), 0, "{name}");
        for alias in self.layout.aliases() {
            let state = self.databases.database(alias).unwrap().pool_state();
            assert_eq!(state.connections, state.idle_connections, "{name}: a connection of `{alias}` is out");
        }
        let ids: Vec<String> = self.observers.iter().map(|(_, id)| id.clone()).collect();
        for (observer, _) in &mut self.observers {
            observer.finds_no_lock().unwrap_or_else(|error| panic!("{name}: {error}"));
            let left: Vec<String> =
                observer.prepared().into_iter().filter(|branch| ids.iter().any(|id| branch.contains(id))).collect();
            assert!(left.is_empty(), "{name}: still prepared: {left:?}");
        }
    }
}

/// Makes an empty database, and gives its URL.
fn make(layout: &Layout, at: usize, kind: Kind, folder: &Path) -> String {
    let name = fixture::fresh_name();
    if kind == Kind::Sqlite {
        return folder.join(format!("{name}.db")).to_str().unwrap().to_owned();
    }
    let server = fixture::server(kind).unwrap();
    if layout.sites == [Kind::Postgres, Kind::Postgres] && at == 1 {
        // A database of its own where the others are schemas, which take no time to make.
        observe(kind, server).run(&format!("CREATE DATABASE {name}")).unwrap();
        let (address, _) = server.rsplit_once('/').unwrap();
        return format!("{address}/{name}");
    }
    let (create, url) = fixture::create_statement(kind, server, &name);
    observe(kind, server).run(&create).unwrap();
    url
}

fn observe(kind: Kind, url: &str) -> Observer {
    match kind {
        Kind::Sqlite => {
            let mut conn = diesel::SqliteConnection::establish(url).unwrap();
            conn.batch_execute("PRAGMA busy_timeout = 10").unwrap();
            Observer::Sqlite(conn)
        }
        Kind::Postgres => Observer::Postgres(diesel::PgConnection::establish(url).unwrap()),
        Kind::Mysql => {
            let mut conn = diesel::MysqlConnection::establish(url).unwrap();
            // `||` puts texts together, as on the others.
            conn.batch_execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')").unwrap();
            Observer::Mysql(conn)
        }
    }
}

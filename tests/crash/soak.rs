//! Money moves between three databases while clients, recoverers and servers are killed at random. `scripts/soak` runs it.
//!
//! Each transfer leaves an entry in both databases. A client writes down what it tries and what it was told, so that in the
//! end each `Ok` must be found in both, each error in neither, and what nobody was told of in both or in neither.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use fastrand::Rng;
use multidb::{Acknowledge, AnyConn, Databases, Error, Model, Scope, atomic, atomic_many, scope};

use crate::child::recover;
use crate::places::{Account, Audit, Entry, Kind, Places, registry};

diesel::table! { soak_balances (id) { id -> BigInt, balance -> BigInt, } }
diesel::table! { soak_entries (transfer) { transfer -> BigInt, cents -> BigInt, } }

/// How many accounts each database has.
const ACCOUNTS: u64 = 20;
/// What each holds at first.
const OPENING: i64 = 1_000;
const CLIENTS: usize = 3;
const THREADS: u64 = 2;
const RECOVERERS: usize = 2;
/// One in so many kills is a server's.
const SERVER_KILLS: u64 = 40;
/// One process in so many is paused for a while instead of being killed.
const PAUSES: u64 = 5;
/// How often it says how far it is, in seconds.
const TELLS_EVERY: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One transfer.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
struct Transfer {
    id: i64,
    from: usize,
    to: usize,
    accounts: [i64; 2],
    cents: i64,
    /// The scope lists both models. Otherwise the second database joins.
    listed: bool,
    /// The third database takes a fee.
    fee: bool,
    /// A part of it is undone by a savepoint, and done again.
    wavers: bool,
    /// It fails in the end.
    fails: bool,
    /// It returns once it is decided.
    acknowledge: Acknowledge,
}

/// One of its databases.
#[derive(Clone, Copy)]
enum Side {
    From,
    To,
    Third,
}

impl Transfer {
    fn random(random: &mut Rng) -> Self {
        let from = random.u64(..3);
        let to = (from + 1 + random.u64(..2)) % 3;
        let account = |random: &mut Rng| i64::try_from(random.u64(..ACCOUNTS)).unwrap();
        Self {
            id: i64::try_from(random.u64(..) >> 1).unwrap(),
            from: usize::try_from(from).unwrap(),
            to: usize::try_from(to).unwrap(),
            accounts: [account(random), account(random)],
            cents: i64::try_from(2 + random.u64(..50)).unwrap(),
            listed: random.u64(..2) == 0,
            fee: random.u64(..4) == 0,
            wavers: random.u64(..4) == 0,
            fails: random.u64(..10) == 0,
            acknowledge: if random.u64(..3) == 0 { Acknowledge::Decided } else { Acknowledge::Applied },
        }
    }

    fn run(self) -> Result<(), Error> {
        match (self.from, self.to) {
            (0, 1) => self.between::<Account, Entry, Audit>(),
            (0, _) => self.between::<Account, Audit, Entry>(),
            (1, 0) => self.between::<Entry, Account, Audit>(),
            (1, _) => self.between::<Entry, Audit, Account>(),
            (_, 0) => self.between::<Audit, Account, Entry>(),
            _ => self.between::<Audit, Entry, Account>(),
        }
    }

    fn between<From: Model, To: Model, Third: Model>(self) -> Result<(), Error> {
        if self.listed {
            return atomic_many::<(From, To)>().acknowledge(self.acknowledge).run(|scope: &Scope<'_>| {
                self.change(&mut scope.conn::<From, AnyConn>()?, Side::From)?;
                self.change(&mut scope.conn::<To, AnyConn>()?, Side::To)?;
                self.end::<Third>()
            });
        }
        atomic::<From>().acknowledge(self.acknowledge).run(|conn: &mut AnyConn| {
            self.change(conn, Side::From)?;
            atomic::<To>().run(|conn: &mut AnyConn| self.change(conn, Side::To))?;
            self.end::<Third>()
        })
    }

    fn change(self, conn: &mut AnyConn, side: Side) -> Result<(), Error> {
        if self.wavers {
            let point = scope::savepoint("wavers")?;
            self.enter(conn, side)?;
            point.rollback()?;
        }
        self.enter(conn, side)
    }

    fn enter(self, conn: &mut AnyConn, side: Side) -> Result<(), Error> {
        let fee = i64::from(self.fee);
        let (cents, account) = match side {
            Side::From => (-self.cents, self.accounts[0]),
            Side::To => (self.cents - fee, self.accounts[1]),
            Side::Third => (fee, self.accounts[1]),
        };
        let balance = soak_balances::table.find(account);
        diesel::update(balance).set(soak_balances::balance.eq(soak_balances::balance + cents)).execute(conn)?;
        let entry = (soak_entries::transfer.eq(self.id), soak_entries::cents.eq(cents));
        diesel::insert_into(soak_entries::table).values(entry).execute(conn)?;
        Ok(())
    }

    fn end<Third: Model>(self) -> Result<(), Error> {
        if self.fee {
            atomic::<Third>().run(|conn: &mut AnyConn| self.change(conn, Side::Third))?;
        }
        if self.fails { Err(Error::from(diesel::result::Error::RollbackTransaction)) } else { Ok(()) }
    }
}

/// A process of the soak. Run by itself it does nothing.
#[test]
fn takes_part() {
    let Ok(urls) = std::env::var("MULTIDB_SOAK_URLS") else { return };
    let databases = registry(urls.split(' '));
    let Ok(journal) = std::env::var("MULTIDB_SOAK_JOURNAL") else {
        loop {
            drop(databases.recover());
        }
    };
    let seed = number("MULTIDB_SOAK_SEED").unwrap();
    let _recovery = databases.start_recovery();
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (databases, journal) = (&databases, format!("{journal}.{thread}"));
            threads.spawn(move || transfer_for_ever(databases, Path::new(&journal), seed.wrapping_add(thread)));
        }
    });
}

fn transfer_for_ever(databases: &Databases, journal: &Path, seed: u64) {
    let _entered = databases.enter();
    let mut journal = OpenOptions::new().create(true).append(true).open(journal).unwrap();
    let mut random = Rng::with_seed(seed);
    loop {
        let transfer = Transfer::random(&mut random);
        tell(&mut journal, "try", transfer.id);
        let told = match transfer.run() {
            Ok(()) => "ok",
            Err(error) if error.is_in_doubt() => "unknown",
            Err(_) => "no",
        };
        tell(&mut journal, told, transfer.id);
    }
}

/// One write for a line, which a kill can't tear.
fn tell(journal: &mut File, told: &str, id: i64) {
    journal.write_all(format!("{told} {id}\n").as_bytes()).unwrap();
}

/// The processes, and what may be killed.
struct Soak {
    urls: String,
    folder: tempfile::TempDir,
    children: Vec<Child>,
    started: u64,
    random: Rng,
}

impl Soak {
    fn start(&mut self, at: usize) {
        self.started += 1;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "soak::takes_part", "--nocapture"]).env("MULTIDB_SOAK_URLS", &self.urls);
        if at < CLIENTS {
            command.env("MULTIDB_SOAK_JOURNAL", self.folder.path().join(format!("journal{}", self.started)));
            command.env("MULTIDB_SOAK_SEED", self.random.u64(..).to_string());
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match self.children.get_mut(at) {
            Some(old) => *old = child,
            None => self.children.push(child),
        }
    }

    fn kill(&mut self, at: usize) {
        self.children[at].kill().unwrap();
        self.children[at].wait().unwrap();
    }

    /// Stops a process for a while, as a machine does that is short of memory.
    fn pause(&mut self, at: usize) {
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &self.children[at].id().to_string()]).status().unwrap();
            assert!(sent.success());
        };
        signal("-STOP");
        std::thread::sleep(Duration::from_millis(100 + self.random.u64(..2_000)));
        signal("-CONT");
    }

    fn journals(&self) -> Vec<PathBuf> {
        let files = self.folder.path().read_dir().unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }

    /// What was told of each transfer last.
    fn told(&self) -> HashMap<i64, String> {
        let mut told = HashMap::new();
        for journal in self.journals() {
            for line in std::fs::read_to_string(journal).unwrap().lines() {
                let (word, id) = line.split_once(' ').unwrap();
                told.insert(id.parse().unwrap(), word.to_owned());
            }
        }
        told
    }
}

/// Kills a server and starts it again.
fn kill_server(name: &str) {
    let (script, folder) = (std::env::var("MULTIDB_TEST_SERVERS_SCRIPT"), std::env::var("MULTIDB_TEST_SERVERS_DIR"));
    let (Ok(script), Ok(folder)) = (script, folder) else { return };
    for action in ["kill", "restart"] {
        let done = Command::new(&script).args([action, &folder, name]).output().unwrap();
        assert!(done.status.success(), "{action} {name}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn money_is_neither_made_nor_lost_whoever_is_killed() {
    let Some(seconds) = number("MULTIDB_SOAK_SECONDS") else { return };
    let Some(places) = Places::new(&[Kind::Postgres, Kind::MariaDb, Kind::Postgres]) else { return };
    let seed = number("MULTIDB_SOAK_SEED_OF_ALL").unwrap_or_else(|| u64::from(std::process::id()));
    // The tests' servers have none; this one lives for long.
    places.execute(0, "ALTER SYSTEM SET autovacuum = on");
    places.execute(0, "SELECT pg_reload_conf()");
    for at in 0..3 {
        places.execute(at, "CREATE TABLE soak_balances (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)");
        places.execute(at, "CREATE TABLE soak_entries (transfer BIGINT PRIMARY KEY, cents BIGINT NOT NULL)");
        let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {OPENING})")).collect();
        places.execute(at, &format!("INSERT INTO soak_balances VALUES {}", rows.join(", ")));
    }
    let (urls, folder) = (places.urls.join(" "), tempfile::tempdir().unwrap());
    let mut soak = Soak { urls, folder, children: Vec::new(), started: 0, random: Rng::with_seed(seed) };
    (0..CLIENTS + RECOVERERS).for_each(|at| soak.start(at));
    println!("seed {seed}");
    let (begin, mut kills, mut pauses, mut server_kills, mut told) = (Instant::now(), 0, 0, 0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        if begin.elapsed().as_secs() >= told + TELLS_EVERY {
            told = begin.elapsed().as_secs();
            println!("after {told} s: {kills} processes and {server_kills} servers killed, {pauses} pauses");
        }
        // When something is killed follows from the seed and from nothing that it waits for.
        std::thread::sleep(Duration::from_millis(200 + soak.random.u64(..800)));
        if soak.random.u64(..SERVER_KILLS) == 0 {
            kill_server(if soak.random.u64(..2) == 0 { "postgres" } else { "mariadb" });
            server_kills += 1;
        }
        let at = usize::try_from(soak.random.u64(..(CLIENTS + RECOVERERS) as u64)).unwrap();
        if soak.random.u64(..PAUSES) == 0 {
            soak.pause(at);
            pauses += 1;
            continue;
        }
        soak.kill(at);
        soak.start(at);
        kills += 1;
    }
    (0..CLIENTS + RECOVERERS).for_each(|at| soak.kill(at));
    // What MariaDB has forgotten while a session ended is listed again.
    kill_server("mariadb");
    recover(&places.databases());
    assert_eq!(places.unfinished(), [0, 0], "open decisions, and receipts without one");
    let outcome = compare(&places, &soak.told());
    println!(
        "seed {seed}: {seconds} s, {kills} processes and {server_kills} servers killed, {pauses} pauses; of the transfers \
         {outcome:?}; nothing split, lost, made or left"
    );
    assert!(outcome.values().sum::<usize>() > 0, "nothing was transferred");
}

/// Looks for each transfer in all databases, and counts what was told of them.
fn compare(places: &Places, told: &HashMap<i64, String>) -> BTreeMap<String, usize> {
    let mut entries: HashMap<i64, Vec<i64>> = HashMap::new();
    for at in 0..3 {
        assert_eq!(places.prepared(at), 0, "a branch is left prepared on {at}");
        for (id, cents) in places.pairs(at, "SELECT transfer AS id, cents AS value FROM soak_entries") {
            entries.entry(id).or_default().push(cents);
        }
        let [balance, moved] =
            ["SELECT SUM(balance) FROM soak_balances", "SELECT COALESCE(SUM(cents), 0) FROM soak_entries"].map(|sum| {
                places.pairs(
                    at,
                    &format!("SELECT CAST(0 AS {0}) AS id, CAST(({sum}) AS {0}) AS value", places.integer(at)),
                )[0]
                .1
            });
        assert_eq!(balance, OPENING * i64::try_from(ACCOUNTS).unwrap() + moved, "the balances of {at} and its entries");
    }
    let mut counted = BTreeMap::new();
    for (id, word) in told {
        let found = entries.remove(id).unwrap_or_default();
        let whole = if found.contains(&1) { 3 } else { 2 };
        assert!(
            found.is_empty() || found.len() == whole && found.iter().sum::<i64>() == 0,
            "{id} ({word}) is split: {found:?}"
        );
        assert!(word != "ok" || !found.is_empty(), "{id} is lost");
        assert!(word != "no" || found.is_empty(), "{id} was told to have failed, and is there");
        *counted.entry(word.clone()).or_default() += 1;
    }
    assert!(entries.is_empty(), "nobody has tried {entries:?}");
    counted
}

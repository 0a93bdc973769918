//! Jobs that wait for the outcome of a transaction: run on success, on failure, or always.
//!
//! ```sh
//! cargo run --example jobs -- [FILE.db]
//! ```
//!
//! A job that is queued inside a transaction may be taken by a worker before the commit, or although there is none. So a
//! function registers a hook, which queues the job once the transaction has committed; another hook undoes on rollback
//! what no database can undo. The rows are in FILE.db, which must be new, or in memory if it is left out.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use diesel::prelude::*;
use multidb::prelude::*;
use multidb::scope::{self, on_commit, on_commit_robust, on_rollback};

diesel::table! { servers (name) { name -> Text, address -> Integer, state -> Text, } }
diesel::table! { volumes (server) { server -> Text, } }

#[derive(Insertable, Model)]
#[diesel(table_name = servers)]
#[model(app = "cyclades")]
struct Server {
    name: &'static str,
    address: i32,
    state: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("there is no room for {0}")]
    NoRoom(&'static str),
    #[error("the volume of {0} is too large")]
    VolumeTooLarge(&'static str),
    #[error(transparent)]
    Database(#[from] multidb::Error),
}

impl From<diesel::result::Error> for JobError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The queue that workers take their jobs from. It knows nothing of transactions.
static QUEUE: Mutex<Vec<Job>> = Mutex::new(Vec::new());

#[derive(Debug)]
enum Job {
    Boot(&'static str),
    Attach(&'static str),
    Watch(&'static str),
}

/// A service elsewhere, such as an address pool: what it has reserved stays reserved until it is told otherwise.
fn reserve_address(address: i32) {
    say(format_args!("  address pool: {address} is reserved"));
}

fn release_address(address: i32) {
    say(format_args!("  address pool: {address} is released"));
}

// The three kinds of jobs.

fn queue_on_success(job: Job) {
    on_commit(move || {
        say(format_args!("  queue: {job:?}"));
        QUEUE.lock().map_err(|_| "a worker has panicked").map(|mut queue| queue.push(job))
    });
}

fn release_on_failure(address: i32) {
    on_rollback(move || release_address(address));
}

/// One of the two runs, with two exceptions. A level that is undone drops both. And where the connection is lost while
/// COMMIT is under way nobody knows the outcome.
fn count_always() {
    on_commit(|| count("committed"));
    on_rollback(|| count("rolled back"));
}

/// Hooks run after the transaction, so this handle is in autocommit and sees what it has left.
fn count(outcome: &str) -> Result<(), JobError> {
    let servers: i64 = servers::table.count().get_result(&mut connection::<Server, SqliteConn>()?)?;
    say(format_args!("  metrics: {outcome}, there are {servers} servers"));
    Ok(())
}

#[transactional(Server)]
fn create(#[conn] conn: &mut SqliteConn, name: &'static str, address: i32, room: bool) -> Result<(), JobError> {
    reserve_address(address);
    release_on_failure(address);
    queue_on_success(Job::Boot(name));
    count_always();
    diesel::insert_into(servers::table).values(Server { name, address, state: "building" }).execute(conn)?;
    say(format_args!("  {name} is written"));
    if room { Ok(()) } else { Err(JobError::NoRoom(name)) }
}

/// A level of the transaction around it. It fails, so its rows are undone and its hooks are dropped.
#[transactional(Server)]
fn attach_volume(#[conn] conn: &mut SqliteConn, name: &'static str) -> Result<(), JobError> {
    queue_on_success(Job::Attach(name));
    count_always();
    diesel::insert_into(volumes::table).values(volumes::server.eq(name)).execute(conn)?;
    Err(JobError::VolumeTooLarge(name))
}

#[transactional(Server)]
fn create_with_extras(name: &'static str, address: i32) -> Result<(), JobError> {
    // In a level that stays. One that is undone takes its `on_rollback` hooks with it, and would leave the address
    // reserved.
    create(name, address, true)?;
    if let Err(error) = attach_volume(name) {
        say(format_args!("  {name} goes without a volume: {error}"));
    }
    let savepoint = scope::savepoint("watch")?;
    queue_on_success(Job::Watch(name));
    savepoint.rollback()?;
    say("  back to the savepoint");
    Ok(())
}

/// The first hook fails. What it has to tell goes to `on_hook_failure`, and the function's result is `Ok`.
#[transactional(Server)]
fn create_and_tell(name: &'static str, address: i32) -> Result<(), JobError> {
    on_commit(|| Err("the mail server is away"));
    create(name, address, true)
}

/// The failure of a hook is returned, except for that of a robust one.
#[transactional(Server, hook_errors = returned)]
fn create_and_insist(name: &'static str, address: i32) -> Result<(), JobError> {
    on_commit_robust(|| Err("the log server is away"));
    on_commit(|| Err("the mail server is away"));
    create(name, address, true)
}

/// What a worker does with the queue, each job in a transaction of its own.
fn work() -> Result<(), JobError> {
    let jobs = QUEUE.lock().map(|mut queue| std::mem::take(&mut *queue)).unwrap_or_default();
    for job in jobs {
        match job {
            Job::Boot(name) => boot(name)?,
            Job::Attach(name) => say(format_args!("  the volume of {name} is attached")),
            Job::Watch(name) => say(format_args!("  {name} is watched")),
        }
    }
    Ok(())
}

#[transactional(Server)]
fn boot(#[conn] conn: &mut SqliteConn, name: &'static str) -> Result<(), JobError> {
    diesel::update(servers::table.find(name)).set(servers::state.eq("active")).execute(conn)?;
    on_commit(move || say(format_args!("  {name} is active")));
    Ok(())
}

fn say(line: impl Display) {
    // A reader who has gone away is no reason to stop.
    drop(writeln!(io::stdout(), "{line}"));
}

/// Whether the work is done, which `is_ok` alone does not say.
fn report(result: Result<(), JobError>) {
    match result {
        Ok(()) => say("= ok"),
        Err(JobError::Database(error)) if error.is_committed() => say(format_args!("= done, but: {error}")),
        Err(error) => say(format_args!("= rolled back: {error}")),
    }
}

fn tell(arguments: &Arguments) -> Result<(), JobError> {
    let in_memory = PathBuf::from(":memory:");
    Databases::builder()
        .sqlite("default", arguments.file.as_ref().unwrap_or(&in_memory))
        .on_hook_failure(|error| say(format_args!("  on_hook_failure: {error}")))
        .install()?;
    connection::<Server, SqliteConn>()?.batch_execute(
        "CREATE TABLE servers (name TEXT PRIMARY KEY, address INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
         CREATE TABLE volumes (server TEXT PRIMARY KEY) STRICT;",
    )?;

    say("create a");
    report(create("a", 1, true));
    say("create b, for which there is no room");
    report(create("b", 2, false));
    say("create c, with levels that are undone");
    report(create_with_extras("c", 3));
    say("create d, with a hook that fails");
    report(create_and_tell("d", 4));
    say("create e, with a hook that fails and is insisted on");
    report(create_and_insist("e", 5));
    say("a job of each kind outside of any transaction");
    queue_on_success(Job::Watch("all"));
    release_on_failure(6);
    count_always();
    say("work");
    work()?;

    let rows: Vec<(String, String)> = servers::table
        .order(servers::name)
        .select((servers::name, servers::state))
        .load(&mut connection::<Server, SqliteConn>()?)?;
    for (name, state) in rows {
        say(format_args!("server {name}: {state}"));
    }
    Ok(())
}

/// Runs jobs on success, on failure and always, and says what runs when
#[derive(Debug, Parser)]
#[command(name = "jobs")]
struct Arguments {
    /// A new SQLite file for the rows; in memory if left out
    #[arg(value_name = "FILE.db")]
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    match tell(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::FAILURE
        }
    }
}

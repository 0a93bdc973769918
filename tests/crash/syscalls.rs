//! Processes that are killed before each of their system calls that change a file, where a file holds the decision: between the
//! write of a commit and its sync, too, where no other process sees it while the file is open somewhere.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use multidb::fault::Stop;

use crate::child::{BEGINS, ENDS, Started, Work, command, start, until_stopped};
use crate::layout::{Layout, on_each};
use crate::places::{Kind, Places};
use crate::table::Table;
use crate::verdict::{Expected, agree, go_on, one_pass};

use Kind::{MariaDb, Postgres, Sqlite};

/// A file holds the decision, or several do.
const LAYOUTS: [Layout; 6] = [
    Layout(&[Sqlite, Postgres]),
    Layout(&[MariaDb, Sqlite]),
    Layout(&[Sqlite, Sqlite]),
    Layout(&[Sqlite, Sqlite, Postgres]),
    Layout(&[Sqlite, Postgres]),
    Layout(&[MariaDb, Sqlite]),
];
/// From this one on the file has a write-ahead log.
const FIRST_WITH_WAL: usize = 4;
/// All that changes a file.
const CALLS: &str = "?unlink,unlinkat,?rename,renameat,pwrite64,ftruncate,fdatasync,fsync";
/// Fewer calls than this are no commit of a file.
const CALLS_EXPECTED: usize = 4;

/// A system call, and how many of the same name its thread has made with it.
type Call = (String, usize);

/// Runs the child under strace, and kills it before this call of the thread that commits. Gives the calls of its work.
fn run(places: &Places, folder: &Path, kill_at: Option<&Call>) -> (ExitStatus, Vec<Call>) {
    let trace = folder.join("trace");
    let plain = command(&places.urls, Work::Traced, &[]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e"]).arg(format!("trace={CALLS},openat")).arg("-o").arg(&trace);
    if let Some((name, count)) = kill_at {
        strace.arg("-e").arg(format!("inject={name}:signal=SIGKILL:when={count}"));
    }
    strace.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        strace.env(name, value.unwrap());
    }
    let output = strace.output().unwrap();
    (output.status, calls(&std::fs::read_to_string(trace).unwrap()))
}

/// The calls that the work made, as far as it came.
fn calls(trace: &str) -> Vec<Call> {
    let own = trace.lines().find(|line| line.contains(BEGINS)).and_then(|line| line.split_whitespace().next());
    let (mut made, mut work) = (HashMap::new(), None);
    for line in trace.lines().filter(|line| line.split_whitespace().next() == own) {
        // A call that another thread has interrupted is on two lines; other lines tell of signals and ends.
        let call = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('('));
        let Some((name, _)) = call.filter(|(name, _)| !name.contains(' ')) else { continue };
        let count = made.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1_usize);
        if line.contains(ENDS) {
            break;
        } else if line.contains(BEGINS) {
            work = Some(Vec::new());
        } else if let Some(work) = &mut work
            && name != "openat"
        {
            work.push((name.to_owned(), *count));
        }
    }
    work.unwrap_or_default()
}

/// Keeps the files open, so that what was written and not synced stays invisible. Killed, it never closes them.
fn holder(places: &Places) -> Started {
    let holder = start(places, Work::Holds, "holds", Stop::Pause);
    until_stopped(&holder);
    holder
}

fn kill_before(places: &Places, call: &Call) -> Result<&'static str, String> {
    const SIGKILL: i32 = 9;
    places.clear();
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<usize> = (0..places.urls.len()).collect();
    let holder = holder(places);
    let held = {
        let databases = places.databases();
        let known = places.sessions();
        let (status, made) = run(places, folder.path(), Some(call));
        // The call itself is in the trace, and was not carried out. What came before depends on what the files hold.
        if status.signal() != Some(SIGKILL) || made.last() != Some(call) {
            return Err(format!("not killed before {call:?}: {status}, after {made:?}"));
        }
        places.until_gone_but(&known);
        one_pass(&databases)?;
        agree(places, &all, &Expected::RowsOrNone(vec![1]))?
    };
    drop(holder);
    // Nobody has the files open any more: what was invisible would come back.
    let again = agree(places, &all, &Expected::RowsOrNone(vec![1]))?;
    if again != held {
        return Err(format!("they held {held}, and {again} once they were opened anew"));
    }
    let databases = places.databases();
    let _entered = databases.enter();
    go_on(places)?;
    // The pass after the next kill must have nothing else to write: any commit would overwrite what is invisible.
    one_pass(&databases)?;
    Ok(held)
}

fn there_is_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    let required = std::env::var("MULTIDB_TEST_SERVERS").as_deref() == Ok("required");
    assert!(found || !required, "strace is missing: run scripts/install");
    if !found {
        let _ = writeln!(io::stderr(), "left out: a test that needs strace (run scripts/test to include it)");
    }
    found
}

#[test]
fn the_databases_agree_after_a_kill_before_any_system_call_where_a_file_holds_the_decision() {
    if !there_is_strace() {
        return;
    }
    let name = |(at, layout): (usize, &Layout)| {
        let layout = layout.to_string();
        if at < FIRST_WITH_WAL { layout } else { layout.replace('S', "S(WAL)") }
    };
    let table = Table::new("killed before", LAYOUTS.iter().enumerate().map(name));
    let tried = on_each(&LAYOUTS, |column, places| {
        if column >= FIRST_WITH_WAL {
            places.execute(LAYOUTS[column].home()[0], "PRAGMA journal_mode = WAL");
        }
        let folder = tempfile::tempdir().unwrap();
        let holder = holder(places);
        let (status, calls) = run(places, folder.path(), None);
        drop(holder);
        assert!(status.success() && calls.len() >= CALLS_EXPECTED, "{places}: is ptrace allowed? {status} {calls:?}");
        for (place, call) in calls.iter().enumerate() {
            let row = format!("call {place:02}");
            if !table.enter(place, &row, column, kill_before(places, call)) {
                break;
            }
        }
    });
    if tried {
        table.end();
    }
}

//! The commit of two files, killed before each of its system calls.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use super::*;

/// Tells the other process where its files are.
const FOLDER: &str = "MULTIDB_TEST_ATTACHED";
/// All that a commit does to files. Not that it opens some: what is created there is only written to later, and before it
/// stands a lock, which changes nothing.
const CALLS: &str = "?unlink,unlinkat,?rename,renameat,pwrite64,ftruncate,fdatasync,fsync,fcntl";
/// How often the thread that commits rolls back a transaction before that. Calls are counted by name for each thread, and no
/// other thread must come to the same number.
const ROLLED_BACK_BEFORE: i64 = 10;
/// Opening these, which are not there, tells in the trace where the commit begins and ends.
const BEGINS: &str = "/multidb-commit-begins";
const ENDS: &str = "/multidb-commit-ends";
/// Fewer calls than this are no commit of two files.
const CALLS_EXPECTED: usize = 20;

/// The other process of the test below. Run by itself it does nothing.
#[test]
fn another_process() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let path = |name: &str| Path::new(&folder).join(name);
    let builder = Databases::builder().sqlite("a", path("a.db")).sqlite("b", path("b.db"));
    let databases = builder.build_lazy().expect("the databases");
    for _ in 0..ROLLED_BACK_BEFORE {
        let ticket = open(&databases, &[0, 1]).expect("a transaction");
        put(1, 3).expect("a row");
        leave(ticket, Verdict::Undo).expect("undone");
    }
    let ticket = open(&databases, &[0, 1]).expect("a transaction");
    put(0, 2).expect("a row");
    put(1, 2).expect("a row");
    drop(std::fs::File::open(BEGINS));
    let ended = leave(ticket, Verdict::Keep);
    drop(std::fs::File::open(ENDS));
    ended.expect("committed");
}

#[test]
fn a_commit_killed_before_any_of_its_system_calls_is_in_both_files_or_in_none() {
    if !there_is_strace() {
        return;
    }
    let (whole, files) = run(None);
    assert!(whole.output.status.success(), "is ptrace allowed? {}", whole.said());
    assert_eq!((files.rows(0), files.rows(1)), (vec![1, 2], vec![1, 2]));
    let commit = whole.calls_of_commit();
    let points = commit.len();
    assert!(points >= CALLS_EXPECTED, "{commit:?}");
    let (mut split, mut kept) = (Vec::new(), 0);
    for (place, call) in commit.iter().enumerate() {
        let (run, files) = run(Some(call));
        assert_eq!(run.output.status.signal(), Some(9), "not killed at {call:?}: {}", run.said());
        // The call itself may be in the trace, and was not carried out.
        let made = run.calls_of_commit();
        assert!(made.len() == place || made.len() == place + 1, "killed at another point: {}", run.said());
        assert_eq!(made[..place], commit[..place]);
        // Whoever comes first finds the journals.
        let (a, b) = if place % 2 == 0 {
            (files.rows(0), files.rows(1))
        } else {
            let b = files.rows(1);
            (files.rows(0), b)
        };
        if a != b {
            split.push((place, a, b));
        } else if a == [1, 2] {
            kept += 1;
        } else {
            assert_eq!(a, [1], "before {call:?}");
        }
    }
    assert_eq!(split, [], "of {points} points, {kept} of which kept the commit");
    assert!(0 < kept && kept < points, "{kept} of {points} points were kept: some must be on either side");
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

/// What became of the other process.
struct Run {
    output: Output,
    trace: String,
}

/// A system call, and how many of the same name its thread has made with it.
type Call = (String, usize);

/// Runs the other process on two files of its own, and kills it before this call of the thread that commits.
fn run(kill_at: Option<&Call>) -> (Run, Files) {
    let files = files(2);
    for (path, table) in files.paths.iter().zip(["items_a", "items_b"]) {
        write(path, &format!("INSERT INTO {table} VALUES (1)"));
    }
    let folder = files.paths[0].parent().expect("a folder");
    let trace = folder.join("trace");
    let (_, module) = module_path!().split_once("::").expect("a path");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e"]).arg(format!("trace={CALLS},openat")).arg("-o").arg(&trace);
    if let Some((name, count)) = kill_at {
        strace.arg("-e").arg(format!("inject={name}:signal=SIGKILL:when={count}"));
    }
    strace.arg(std::env::current_exe().expect("this program"));
    strace.args([&format!("{module}::another_process"), "--exact", "--nocapture"]);
    let output = strace.env(FOLDER, folder).output().expect("strace");
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    (Run { output, trace }, files)
}

impl Run {
    /// The calls that the commit made, as far as it came.
    fn calls_of_commit(&self) -> Vec<Call> {
        let own = self.trace.lines().find(|line| line.contains(BEGINS)).and_then(|line| line.split_whitespace().next());
        let mut made = HashMap::new();
        let mut commit = None;
        for line in self.trace.lines().filter(|line| line.split_whitespace().next() == own) {
            // A call that another thread has interrupted is on two lines; other lines tell of signals and ends.
            let call = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('('));
            let Some((name, _)) = call.filter(|(name, _)| !name.contains(' ')) else { continue };
            let count = made.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1_usize);
            if line.contains(ENDS) {
                break;
            } else if line.contains(BEGINS) {
                commit = Some(Vec::new());
            } else if let Some(commit) = &mut commit
                && name != "openat"
            {
                commit.push((name.to_owned(), *count));
            }
        }
        commit.unwrap_or_default()
    }

    fn said(&self) -> String {
        let tail: Vec<&str> = self.trace.lines().rev().take(5).collect();
        format!(
            "{}{}{tail:?}",
            String::from_utf8_lossy(&self.output.stdout),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }
}

//! One private server that may be killed.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A running server, stopped when it is dropped.
pub(crate) struct Server {
    program: &'static str,
    folder: TempDir,
    url: String,
}

impl Server {
    /// Starts a fresh one; `None` where its programs are not installed, visibly.
    pub(crate) fn start(program: &'static str) -> Option<Self> {
        Self::make(program, "start", None)
    }

    /// Makes one in a folder of its own, be it like the one in another folder.
    pub(crate) fn make(program: &'static str, action: &str, from: Option<&Path>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { program, folder, url: String::new() };
        let started = server.script(action, from);
        let said = String::from_utf8_lossy(&started.stderr);
        if said.contains("is not installed") && std::env::var("MULTIDB_TEST_SERVERS").as_deref() != Ok("required") {
            // The test harness would hide what `eprintln!` writes.
            let _ = writeln!(std::io::stderr(), "left out: tests that restart {program} (run scripts/test)");
            return None;
        }
        if !started.status.success() {
            let log = std::fs::read_to_string(server.folder().join(program).join("make.log"));
            panic!("{program} did not start: {said}\n{log:?}");
        }
        let environment = std::fs::read_to_string(server.folder().join("env")).unwrap();
        let mut values = environment.lines().filter_map(|line| line.split_once('='));
        let (_, url) = values.find(|(name, _)| name.ends_with("_URL")).unwrap();
        server.url.push_str(url);
        Some(server)
    }

    /// Where clients connect, also after a restart.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Ends all of its processes at once, as a crash does.
    pub(crate) fn kill(&self) {
        self.must("kill");
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn restart(&self) {
        self.must("restart");
    }

    /// Where all that is its lives.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An action of the script that does not fail.
    pub(crate) fn must(&self, action: &str) {
        let Output { status, stderr, .. } = self.script(action, None);
        assert!(status.success(), "{action} {}: {}", self.program, String::from_utf8_lossy(&stderr));
    }

    fn script(&self, action: &str, from: Option<&Path>) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/servers");
        let words = [OsStr::new(action), self.folder().as_os_str(), OsStr::new(self.program)];
        Command::new(script).args(words).args(from).output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script("stop", None);
    }
}

//! Named points of the protocol at which a test may stop the process. Without the feature `failpoints` they are nothing.

/// The process passes a point.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn point(_name: &'static str) {}

/// The process passes a point that there is once for each branch.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn point_at(_name: &'static str, _branch: usize) {}

#[cfg(feature = "failpoints")]
pub(crate) use armed::point_at;
#[cfg(feature = "failpoints")]
pub use armed::{POINTS, Stop, arm, point};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::Mutex;
    use std::sync::PoisonError;

    use rustix::process::{Signal, getpid, kill_process};

    /// Every point. Those that end in `.N` are there once for each branch, counted from 0, which is home.
    pub const POINTS: &[&str] = &[
        "enlist.promoted",
        "enlist.after_begin",
        "receipt.before_insert.N",
        "receipt.after_insert.N",
        "readonly.after_commit.N",
        "intent.before",
        "intent.after",
        "prepare.before.N",
        "prepare.after.N",
        "prepare.all_done",
        "decide.before_commit",
        "decide.after_commit",
        "decide.probe.before",
        "decide.probe.after",
        "apply.before.N",
        "apply.after.N",
        "apply.all_done",
        "abort.after_home",
        "abort.before.N",
        "abort.after.N",
        "alone.before_commit.N",
        "alone.after_commit.N",
        "best_effort.between.N",
        "connection.before_return",
        "recover.list.after",
        "recover.probe.before",
        "recover.probe.holding_lock",
        "recover.probe.after",
        "receipts.after_check",
        "recover.finish.before.N",
        "recover.finish.after.N",
        "clean.close.after",
        "clean.receipts.after",
        "clean.decisions.after",
    ];

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Stop {
        /// The process is killed, so that no destructor runs.
        Kill,
        /// The process is stopped, until it gets SIGCONT.
        Pause,
    }

    struct Armed {
        point: String,
        skip: u32,
        stop: Stop,
    }

    static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());

    /// The next time that the process passes `point`, after it has done so `skip` times, this happens, once. Several points may
    /// be armed: a process that was stopped at one goes on to the next.
    pub fn arm(point: &str, skip: u32, stop: Stop) {
        let armed = Armed { point: point.into(), skip, stop };
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
    }

    /// The process passes a point.
    pub fn point(name: &'static str) {
        pass(name);
    }

    pub(crate) fn point_at(name: &'static str, branch: usize) {
        pass(&format!("{name}.{branch}"));
    }

    fn pass(name: &str) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = armed.iter().position(|armed| armed.point == name) else { return };
        if armed[at].skip > 0 {
            armed[at].skip -= 1;
            return;
        }
        let stop = armed.remove(at).stop;
        drop(armed);
        let signal = match stop {
            Stop::Kill => Signal::KILL,
            Stop::Pause => Signal::STOP,
        };
        let before = switches();
        kill_process(getpid(), signal).expect("a process may stop itself");
        // Another thread may get the signal, and this one would go on until that has stopped.
        while switches() == before {
            std::thread::yield_now();
        }
    }

    /// How often the main thread has waited so far. It gets the signals of the process, and stopping is waiting.
    fn switches() -> Option<String> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).map(str::to_owned)
    }
}

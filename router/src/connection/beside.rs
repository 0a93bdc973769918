//! Connections beside the pool, for recovery and for whoever asks what became of a lost commit. They never wait for long: a
//! driver may wait for ever for a server that takes a connection and doesn't answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::backend::Dialect;
use super::settings::Settings;

/// How long such a connection may take. It saves time; nothing is decided by it.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The most connections to one database that are being opened although nobody waits for them any more.
pub const ABANDONED_LIMIT: usize = 16;

/// Opens them for one database.
#[derive(Debug, Default)]
pub struct Beside {
    abandoned: Arc<AtomicUsize>,
}

/// A connection that is being opened.
pub struct Connecting<R> {
    result: Receiver<Result<R, String>>,
    until: Instant,
    abandoned: Arc<AtomicUsize>,
    /// It is open, or nobody waits for it any more.
    settled: Arc<AtomicBool>,
}

impl Beside {
    /// Begins to open one, on a thread of its own: nothing ends a driver that waits.
    pub fn begin<B: Dialect>(&self, settings: &Settings) -> Result<Connecting<B::Raw>, String> {
        let abandoned = Arc::clone(&self.abandoned);
        if abandoned.load(Ordering::SeqCst) >= ABANDONED_LIMIT {
            return Err(format!("{ABANDONED_LIMIT} connections to it are being opened, and none is answered"));
        }
        let (sender, result) = channel();
        let settled = Arc::new(AtomicBool::new(false));
        let open = {
            let (settings, abandoned, settled) = (settings.clone(), Arc::clone(&abandoned), Arc::clone(&settled));
            move || {
                let result = B::connect(&settings).map_err(|error| error.to_string());
                if settled.swap(true, Ordering::SeqCst) {
                    abandoned.fetch_sub(1, Ordering::SeqCst);
                }
                // Nobody may wait for it any more.
                let _ = sender.send(result);
            }
        };
        let thread = std::thread::Builder::new().name("multidb-connect".into()).spawn(open);
        thread.map_err(|error| format!("no thread could be started: {error}"))?;
        Ok(Connecting { result, until: Instant::now() + CONNECT_LIMIT, abandoned, settled })
    }

    /// Opens one.
    pub fn open<B: Dialect>(&self, settings: &Settings) -> Result<B::Raw, String> {
        self.begin::<B>(settings)?.wait()
    }
}

impl<R> Connecting<R> {
    /// Waits for it.
    pub fn wait(self) -> Result<R, String> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.result.recv_timeout(left).unwrap_or_else(|_| {
            // Counted first, so that its thread never counts down from nothing.
            self.abandoned.fetch_add(1, Ordering::SeqCst);
            if self.settled.swap(true, Ordering::SeqCst) {
                self.abandoned.fetch_sub(1, Ordering::SeqCst);
            }
            Err(format!("no answer within {} s", CONNECT_LIMIT.as_secs()))
        })
    }
}

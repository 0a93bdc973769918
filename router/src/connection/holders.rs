//! Who holds the connections of a pool, for the error that says so.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;

use crate::site::Site;

/// How many holders an error names.
const HOLDERS_NAMED: usize = 8;

thread_local! {
    static HOLDER: Arc<Holder> = Arc::new(Holder { thread: std::thread::current(), holding: AtomicU32::new(0) });
}

/// A thread that holds connections. Shared, since a handle may end on another thread.
pub struct Holder {
    thread: Thread,
    holding: AtomicU32,
}

impl Holder {
    /// Whether this thread holds a connection.
    pub fn is_holding() -> bool {
        HOLDER.with(|holder| holder.holding.load(Ordering::Relaxed) > 0)
    }
}

/// The seats of a pool's connections.
#[derive(Default)]
pub struct Holders(Mutex<Vec<Weak<Seat>>>);

impl Holders {
    /// A seat for a new connection; those of closed ones are forgotten.
    pub fn seat(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat(Mutex::new(None)));
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        seat
    }
}

#[cfg(feature = "testing")]
impl Holders {
    /// Whether this thread holds one of the pool's connections.
    pub fn include_this_thread(&self) -> bool {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seats = seats.iter().filter_map(Weak::upgrade);
        HOLDER.with(|this| {
            seats.any(|seat| {
                let taken = seat.taken();
                taken.as_ref().is_some_and(|taken| !taken.handed_over && Arc::ptr_eq(&taken.holder, this))
            })
        })
    }
}

/// Says who holds one connection: the thread, and the scope or the place where its handle was taken.
pub struct Seat(Mutex<Option<Taken>>);

struct Taken {
    holder: Arc<Holder>,
    site: Site,
    /// The thread that took it has gone on without it.
    handed_over: bool,
}

impl Seat {
    /// This thread takes the connection.
    pub fn take(&self, site: Site) {
        let holder = HOLDER.with(Arc::clone);
        holder.holding.fetch_add(1, Ordering::Relaxed);
        *self.taken() = Some(Taken { holder, site, handed_over: false });
    }

    /// Another thread will give the connection back. The one that took it holds it no longer.
    pub fn hand_over(&self) {
        if let Some(taken) = &mut *self.taken()
            && !std::mem::replace(&mut taken.handed_over, true)
        {
            taken.holder.holding.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection goes back.
    #[inline]
    pub fn leave(&self) {
        let taken = self.taken().take();
        if let Some(Taken { holder, handed_over: false, .. }) = taken {
            holder.holding.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Option<Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holders = 0;
        for seat in seats.iter().filter_map(Weak::upgrade) {
            let taken = seat.taken();
            let Some(Taken { holder, site, handed_over }) = &*taken else { continue };
            holders += 1;
            if holders > HOLDERS_NAMED {
                continue;
            }
            let separator = if holders == 1 { "" } else { ", " };
            match holder.thread.name() {
                _ if *handed_over => write!(f, "{separator}{site}, whose commit is being applied")?,
                Some(thread) => write!(f, "{separator}{site} in thread `{thread}`")?,
                None => write!(f, "{separator}{site} in a thread without a name")?,
            }
        }
        match holders {
            0 => f.write_str("nobody that is known"),
            1..=HOLDERS_NAMED => Ok(()),
            more => write!(f, ", and {} more", more - HOLDERS_NAMED),
        }
    }
}

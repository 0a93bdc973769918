//! Who holds the connections of a pool, for the error that says so.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
        let mut taken = seats.iter().filter_map(Weak::upgrade).filter_map(|seat| {
            seat.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(holder, _)| Arc::clone(holder))
        });
        HOLDER.with(|this| taken.any(|holder| Arc::ptr_eq(&holder, this)))
    }
}

/// Says who holds one connection: the thread, and the scope or the place where its handle was taken.
pub struct Seat(Mutex<Option<(Arc<Holder>, Site)>>);

impl Seat {
    /// This thread takes the connection.
    pub fn take(&self, site: Site) {
        let holder = HOLDER.with(Arc::clone);
        holder.holding.fetch_add(1, Ordering::Relaxed);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((holder, site));
    }

    /// The connection goes back.
    #[inline]
    pub fn leave(&self) {
        if let Some((holder, _)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            holder.holding.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holders = 0;
        for seat in seats.iter().filter_map(Weak::upgrade) {
            let taken = seat.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((holder, site)) = &*taken else { continue };
            holders += 1;
            if holders > HOLDERS_NAMED {
                continue;
            }
            let separator = if holders == 1 { "" } else { ", " };
            match holder.thread.name() {
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

//! Which registry a call on this thread means.

use std::cell::RefCell;
use std::marker::PhantomData;

use once_cell::sync::OnceCell;

use super::registry::Databases;
use crate::error::{Error, Result};

static INSTALLED: OnceCell<Databases> = OnceCell::new();

thread_local! {
    static ENTERED: RefCell<Vec<(u64, Databases)>> = const { RefCell::new(Vec::new()) };
}

/// Makes a registry this thread's default until it is dropped. See [`Databases::enter`].
#[must_use = "the databases are this thread's default only until this is dropped"]
pub struct Entered {
    number: u64,
    // It stands for an entry of this thread, so it must not leave it.
    _thread: PhantomData<*const ()>,
}

pub(super) fn install(databases: &Databases) -> Result<()> {
    INSTALLED.set(databases.clone()).map_err(|_| {
        Error::config(
            "databases are installed already, and a process can do that once",
            "use `databases.enter()` for a second registry, in tests above all",
        )
    })
}

#[inline]
pub(super) fn current() -> Result<Databases> {
    let entered = ENTERED.with_borrow(|entered| entered.last().map(|(_, databases)| databases.clone()));
    entered.or_else(|| INSTALLED.get().cloned()).ok_or_else(|| {
        Error::config(
            "no databases are installed",
            "call `Databases::from_config(\"databases.toml\")?.router(..).install()?` at the start of `main`, or \
             `databases.enter()` in a test",
        )
    })
}

pub(super) fn enter(databases: &Databases) -> Entered {
    ENTERED.with_borrow_mut(|entered| {
        let number = entered.last().map_or(0, |(number, _)| number + 1);
        entered.push((number, databases.clone()));
        Entered { number, _thread: PhantomData }
    })
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Not only the last one: guards may be dropped in any order.
        // A guard in a thread local may outlive the list.
        let left = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            let at = entered.iter().position(|(number, _)| *number == self.number);
            at.map(|at| entered.remove(at))
        });
        drop(left);
    }
}

impl std::fmt::Debug for Entered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

//! From a database of the registry to a handle of the right type.

use std::sync::Arc;

use super::conn::Conn;
use crate::connection::attached::OwnFile;
use crate::connection::backend::Backend;
use crate::connection::pool::Pool;
use crate::connection::slot::{AnySlot, Slot};
use crate::databases::{Database, Databases, Kind};
use crate::error::Result;
use crate::site::Site;

/// A type that a `#[conn]` parameter may have: `PgConn`, `MysqlConn`, `SqliteConn` or `AnyConn`. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handle that a scope can supply",
    label = "not a multidb handle",
    note = "take `&mut PgConn`, `&mut MysqlConn` or `&mut SqliteConn` from `multidb`"
)]
pub trait Handle: Sized + sealed::Open {}

impl<B: Backend> Handle for Conn<B> {}

/// Where a handle leads.
pub enum Origin<'a> {
    /// To the branch of an open transaction, and to one of its files if it has several.
    Scope(Arc<dyn AnySlot>, Option<Box<OwnFile>>, &'a Database),
    /// To the pool: each statement in autocommit. With the place where the handle was taken.
    Pool(&'a Databases, usize, Site),
}

impl Origin<'_> {
    /// The backend of its database.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Scope(_, _, database) => database.kind(),
            Self::Pool(databases, index, _) => databases.at(*index).kind(),
        }
    }
}

pub(super) mod sealed {
    use super::{Origin, Result};

    /// Opens a handle.
    pub trait Open {
        /// Fails where the backend doesn't fit. `asked` tells who asked, for the error.
        fn open(origin: Origin<'_>, asked: &dyn Fn() -> String) -> Result<Self>
        where
            Self: Sized;
    }
}

impl<B: Backend> sealed::Open for Conn<B> {
    #[inline]
    fn open(origin: Origin<'_>, asked: &dyn Fn() -> String) -> Result<Self> {
        match origin {
            Origin::Scope(slot, file, database) => match Slot::of(slot) {
                Some(slot) => Ok(Self::in_scope(slot, file)),
                None => Err(database.wrong_backend(B::NAMES.handle, asked())),
            },
            Origin::Pool(databases, index, site) => {
                let database = databases.at(index);
                match database.driver().pool().downcast::<Pool<B>>() {
                    Ok(pool) => Ok(Self::in_autocommit(pool, databases.clone(), index, site)),
                    Err(_) => Err(database.wrong_backend(B::NAMES.handle, asked())),
                }
            }
        }
    }
}

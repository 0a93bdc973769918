//! Connections that a query has left in a state of which the driver can't get out.

use diesel::connection::{CacheSize, Connection};
use diesel::result::Error as DieselError;

use super::backend::Dialect;
use super::link::Link;
use crate::failure::classify;

impl<B: Dialect> Link<B> {
    /// Lets Diesel prepare its statements anew after one that gives rows has failed, and its client can't run it again.
    #[cold]
    pub fn forget_failed(&mut self, error: &DieselError) {
        if B::FAILED_QUERIES_HANG && classify(error).is_some() {
            let size = self.cache;
            self.raw().set_prepared_statement_cache_size(CacheSize::Disabled);
            self.raw().set_prepared_statement_cache_size(size);
        }
    }

    /// Gives the connection up: a cursor was forgotten, and only it could end its statement.
    #[cold]
    pub fn abandon(&mut self) {
        self.break_off();
        B::abandon(self.raw());
    }
}

//! What Diesel's `MultiConnection` writes for the transactions of [`AnyConn`](super::AnyConn).

use diesel::connection::{TransactionManager, TransactionManagerStatus};
use diesel::result::QueryResult;

use super::conn::Conn;
use super::manager::HandleTransactions;
use crate::connection::backend::Backend;

/// Diesel's `TransactionManager`, without its `transaction`.
pub trait Transactions<C> {
    /// What Diesel's trait has too.
    type TransactionStateData;

    fn begin_transaction(conn: &mut C) -> QueryResult<()>;
    fn rollback_transaction(conn: &mut C) -> QueryResult<()>;
    fn commit_transaction(conn: &mut C) -> QueryResult<()>;
    fn transaction_manager_status_mut(conn: &mut C) -> &mut TransactionManagerStatus;
    fn is_broken_transaction_manager(conn: &mut C) -> bool;
}

impl<B: Backend> Transactions<Conn<B>> for HandleTransactions {
    type TransactionStateData = TransactionManagerStatus;

    fn begin_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        <Self as TransactionManager<Conn<B>>>::begin_transaction(conn)
    }

    fn rollback_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        <Self as TransactionManager<Conn<B>>>::rollback_transaction(conn)
    }

    fn commit_transaction(conn: &mut Conn<B>) -> QueryResult<()> {
        <Self as TransactionManager<Conn<B>>>::commit_transaction(conn)
    }

    fn transaction_manager_status_mut(conn: &mut Conn<B>) -> &mut TransactionManagerStatus {
        <Self as TransactionManager<Conn<B>>>::transaction_manager_status_mut(conn)
    }

    fn is_broken_transaction_manager(conn: &mut Conn<B>) -> bool {
        <Self as TransactionManager<Conn<B>>>::is_broken_transaction_manager(conn)
    }
}

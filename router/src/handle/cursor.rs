//! Rows read one by one from a connection that they borrow: the only file with unsafe code.
//!
//! SQLite's and MySQL's cursors, and PostgreSQL's row-by-row mode, borrow Diesel's connection, which lies behind the
//! slot's lock. So a cursor and each of its rows keep that lock. Copying every row out instead is safe, and costs 1.65
//! times the instructions for one row and 2.43 times for a thousand (see docs/DESIGN.md).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};

use diesel::connection::LoadConnection;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::{PartialRow, Row, RowIndex, RowSealed};

use super::conn::{Conn, Place};
use crate::connection::backend::{Backend, Dialect};
use crate::connection::gate::Gate;
use crate::connection::link::Link;
use crate::connection::pool::Lease;
use crate::connection::slot::State;
use crate::connection::stale::{Stale, stale};
use crate::failure::Failure;

/// Keeps a connection for as long as a cursor or one of its rows lives.
enum Hold<'conn, B: Dialect> {
    Slot {
        state: MutexGuard<'conn, State<B>>,
        gate: Arc<Gate>,
        stale: Rc<Cell<Option<Stale>>>,
    },
    /// The cell is never borrowed twice. It is there for what its content may assume: see `Stream::open`.
    Pool {
        lease: RefCell<Lease<B>>,
        failed: Rc<Cell<bool>>,
        stale: Rc<Cell<Option<Stale>>>,
    },
}

impl<B: Dialect> Hold<'_, B> {
    fn link(&mut self) -> &mut Link<B> {
        match self {
            Self::Slot { state, .. } => state.link(),
            Self::Pool { lease, .. } => lease.get_mut(),
        }
    }
}

impl<B: Dialect> Drop for Hold<'_, B> {
    fn drop(&mut self) {
        match self {
            Self::Slot { state, gate, stale } => {
                gate.close_stream();
                if stale.get().is_some() {
                    state.link().discard_if(stale.get());
                }
            }
            Self::Pool { lease, failed, stale } if failed.get() => {
                // A dead connection must not go back to the pool.
                lease.get_mut().alive();
                lease.get_mut().discard_if(stale.get());
            }
            Self::Pool { .. } => {}
        }
    }
}

/// The target of a cursor's reports, and whether an error will come back on the connection.
struct Reports(Report, Rc<Cell<Option<Stale>>>);

/// Where a cursor reports that the database failed to give a row, without looking into its [`Hold`].
enum Report {
    /// To the transaction, whose level is doomed by it: the one that the query belongs to, whichever reads the row.
    Gate(Arc<Gate>, u32),
    /// To the lease, which asks whether the connection is alive before it is given back.
    Lease(Rc<Cell<bool>>),
}

impl Reports {
    fn failure(&self, error: &diesel::result::Error) {
        let Some(failure) = Failure::of(error) else { return };
        self.1.set(self.1.get().or_else(|| stale(error)));
        match &self.0 {
            Report::Gate(gate, level) => gate.doom(*level, failure),
            Report::Lease(failed) => failed.set(true),
        }
    }
}

/// A streaming cursor. While it or one of its rows lives, other statements of the transaction are refused as busy.
// The fields are dropped in this order: what borrows the connection goes before what keeps it.
#[expect(missing_debug_implementations, reason = "Diesel's cursors have none")]
pub struct Stream<'conn, 'query, B: Dialect, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    cursor: <B::Raw as LoadConnection<M>>::Cursor<'conn, 'query>,
    report: Reports,
    hold: Rc<Hold<'conn, B>>,
}

/// A row of a streaming cursor.
// The fields are dropped in this order, as in `Stream`.
#[expect(missing_debug_implementations, reason = "Diesel's rows have none")]
pub struct StreamRow<'conn, 'query, B: Dialect, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    row: <B::Raw as LoadConnection<M>>::Row<'conn, 'query>,
    _hold: Rc<Hold<'conn, B>>,
}

impl<'conn, 'query, B: Backend, M> Stream<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    /// Runs a query and keeps the connection for its rows.
    pub(super) fn open<T>(conn: &'conn mut Conn<B>, source: T) -> QueryResult<Self>
    where
        T: Query + QueryFragment<B::Native> + QueryId + 'query,
        B::Native: QueryMetadata<T::SqlType>,
    {
        let found = Rc::<Cell<Option<Stale>>>::default();
        let (hold, report) = match &conn.place {
            Place::Scope(slot) => {
                let state = slot.ready()?;
                let gate = Arc::clone(slot.gate());
                gate.open_stream();
                let level = gate.depth();
                (Hold::Slot { state, gate: Arc::clone(&gate), stale: Rc::clone(&found) }, Report::Gate(gate, level))
            }
            Place::Pool(pool, site) => {
                let failed = Rc::new(Cell::new(false));
                let lease = pool.lease_once(*site, conn.instrumentation.as_ref())?;
                let lease = RefCell::new(lease);
                (Hold::Pool { lease, failed: Rc::clone(&failed), stale: Rc::clone(&found) }, Report::Lease(failed))
            }
        };
        let report = Reports(report, found);
        let mut hold = Rc::new(hold);
        let link = Rc::get_mut(&mut hold).expect("nobody else has it yet").link();
        link.admit_query(&source)?;
        let raw: *mut B::Raw = link.raw();
        // SAFETY: `raw` points into the `Link` of `hold`, which stays where it is and is reached by nobody else for as
        // long as the borrow made here lives:
        // - It stays alive and in place. For a slot it lies behind the mutex in the `Arc<Slot>` that `conn` keeps, and
        //   `conn` is borrowed for 'conn; the guard keeps everybody from replacing it. For a pool it lies in a
        //   box that the lease owns, and the lease in the allocation of the `Rc`, which never moves its content.
        // - Everything that borrows it holds a clone of the `Rc`: the cursor here, and each row made from it. Both
        //   declare that clone after the borrowing field, so it is dropped after it. Diesel's cursor and row types give
        //   the borrow to nothing else: what comes out of a row borrows the row.
        // - Nobody reaches it by another way meanwhile: the guard is locked, the lease is ours alone, and after this
        //   line no code looks into `hold` until its last clone is dropped. (Failures go through `report`, which holds
        //   handles of its own.) Cloning and dropping an `Rc` makes a shared reference to all that it holds, which would
        //   end the borrow if the connection lay there bare: a guard leads elsewhere, and a lease lies in a cell.
        //   Forgetting a cursor or row keeps the lock for ever, which is safe.
        #[expect(unsafe_code, reason = "the argument stands above")]
        let raw: &'conn mut B::Raw = unsafe { &mut *raw };
        match raw.load(source) {
            Ok(cursor) => Ok(Self { cursor, report, hold }),
            Err(error) => {
                report.failure(&error);
                Err(error)
            }
        }
    }
}

impl<'conn, 'query, B: Dialect, M> Iterator for Stream<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    type Item = QueryResult<StreamRow<'conn, 'query, B, M>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.cursor.next()? {
            Ok(row) => Some(Ok(StreamRow { row, _hold: Rc::clone(&self.hold) })),
            Err(error) => {
                self.report.failure(&error);
                Some(Err(error))
            }
        }
    }
}

impl<'conn, B: Dialect, M> RowSealed for StreamRow<'conn, '_, B, M> where B::Raw: LoadConnection<M> + 'conn {}

impl<'conn, 'query, B: Dialect, M> Row<'conn, B::Native> for StreamRow<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    type Field<'f>
        = <<B::Raw as LoadConnection<M>>::Row<'conn, 'query> as Row<'conn, B::Native>>::Field<'f>
    where
        'conn: 'f,
        Self: 'f;
    type InnerPartialRow =
        <<B::Raw as LoadConnection<M>>::Row<'conn, 'query> as Row<'conn, B::Native>>::InnerPartialRow;

    fn field_count(&self) -> usize {
        self.row.field_count()
    }

    fn get<'b, I>(&'b self, index: I) -> Option<Self::Field<'b>>
    where
        'conn: 'b,
        Self: RowIndex<I>,
    {
        let index = self.idx(index)?;
        Row::get(&self.row, index)
    }

    fn partial_row(&self, range: std::ops::Range<usize>) -> PartialRow<'_, Self::InnerPartialRow> {
        self.row.partial_row(range)
    }
}

impl<'conn, B: Dialect, M> RowIndex<usize> for StreamRow<'conn, '_, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    fn idx(&self, index: usize) -> Option<usize> {
        self.row.idx(index)
    }
}

impl<'conn, 'name, B: Dialect, M> RowIndex<&'name str> for StreamRow<'conn, '_, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    fn idx(&self, name: &'name str) -> Option<usize> {
        self.row.idx(name)
    }
}

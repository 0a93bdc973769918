//! Rows read one by one from a connection that they borrow: the only file with unsafe code.
//!
//! SQLite's and MySQL's cursors, and PostgreSQL's row-by-row mode, borrow Diesel's connection, which lies behind the
//! slot's lock. So a cursor and each of its rows keep that lock. Copying every row out instead is safe, and costs 1.65
//! times the instructions for one row and 2.43 times for a thousand (see docs/DESIGN.md). So that is done where it must be:
//! see `copies.rs`.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};
use std::vec;

use diesel::connection::LoadConnection;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};

use super::conn::{Conn, Place};
use super::copies::Copies;
use crate::alias::Alias;
use crate::connection::backend::Dialect;
use crate::connection::gate::Gate;
use crate::connection::instrument::{Payload, SharedInstrumentation, failure_of};
use crate::connection::link::Link;
use crate::connection::pool::Lease;
use crate::connection::slot::State;
use crate::connection::stale::{Stale, stale};
use crate::failure::{Failure, FailureClass};
use crate::reported::named;

/// Keeps a connection for as long as a cursor or one of its rows lives.
enum Hold<'conn, B: Dialect> {
    Slot {
        state: MutexGuard<'conn, State<B>>,
        gate: Arc<Gate>,
        /// The level of the query.
        level: u32,
        stale: Rc<Cell<Option<Stale>>>,
    },
    /// The cell is never borrowed twice. It is there for what its content may assume: see `Stream::open`.
    Pool { lease: RefCell<Lease<B>>, failed: Rc<Cell<bool>>, stale: Rc<Cell<Option<Stale>>> },
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
            Self::Slot { state, gate, level, stale } => {
                gate.close_stream();
                // PostgreSQL may have failed at a row that was not asked for.
                if state.link().aborted() {
                    let text = "the database aborted the transaction at a row of a query that was not read to its end";
                    gate.doom(*level, Failure::new(FailureClass::Other, text));
                }
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

/// What a cursor reports, and what it needs for that: it can't look into its [`Hold`].
struct Reports {
    target: Report,
    /// Whether an error will come back on the connection.
    stale: Rc<Cell<Option<Stale>>>,
    database: Alias,
    /// That of the connection.
    instrumentation: Option<SharedInstrumentation>,
}

/// Where a cursor reports that the database failed to give a row, without looking into its [`Hold`].
enum Report {
    /// To the transaction, whose level is doomed by it: the one that the query belongs to, whichever reads the row.
    Gate(Arc<Gate>, u32),
    /// To the lease, which asks whether the connection is alive before it is given back.
    Lease(Rc<Cell<bool>>),
}

impl Reports {
    /// Whether the database has failed.
    fn failure(&self, error: &diesel::result::Error) -> bool {
        let Some(failure) = Failure::of(error) else { return false };
        self.stale.set(self.stale.get().or_else(|| stale(error)));
        match &self.target {
            Report::Gate(gate, level) => gate.doom(*level, failure.on(&self.database)),
            Report::Lease(failed) => failed.set(true),
        }
        true
    }

    /// A panic of the instrumentation, which the caller passes on. A body that catches it can't commit.
    fn panic(&self) -> Option<Payload> {
        let panic = self.instrumentation.as_ref()?.take_panic()?;
        if let Report::Gate(gate, _) = &self.target {
            gate.doom(1, failure_of(&panic).on(&self.database));
        }
        Some(panic)
    }
}

fn pass_on(panic: Option<Payload>) {
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// A cursor. While one that reads from its connection, or one of its rows, lives, other statements of the transaction are
/// refused as busy. What is not proven to be a read has run to its end, and its rows are copies.
#[expect(missing_debug_implementations, reason = "Diesel's cursors have none")]
pub struct Stream<'conn, 'query, B: Copies<M>, M>(Rows<'conn, 'query, B, M>)
where
    B::Raw: LoadConnection<M> + 'conn;

enum Rows<'conn, 'query, B: Copies<M>, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    Live(Live<'conn, 'query, B, M>),
    Copied(vec::IntoIter<B::Copied>),
}

/// A cursor that borrows its connection.
// The fields are dropped in this order: what borrows the connection goes before what keeps it.
struct Live<'conn, 'query, B: Dialect, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    cursor: <B::Raw as LoadConnection<M>>::Cursor<'conn, 'query>,
    /// It has given all its rows, or failed. SQLite would run the statement again.
    ended: bool,
    report: Reports,
    hold: Rc<Hold<'conn, B>>,
}

/// A row of a cursor.
#[expect(missing_debug_implementations, reason = "Diesel's rows have none")]
pub struct StreamRow<'conn, 'query, B: Copies<M>, M>(OneRow<'conn, 'query, B, M>)
where
    B::Raw: LoadConnection<M> + 'conn;

// The fields are dropped in this order, as in `Live`.
enum OneRow<'conn, 'query, B: Copies<M>, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    Live { row: <B::Raw as LoadConnection<M>>::Row<'conn, 'query>, _hold: Rc<Hold<'conn, B>> },
    Copied(B::Copied),
}

impl<'conn, 'query, B: Copies<M>, M> Stream<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    /// Runs a query to its end.
    pub(super) fn copy<T>(conn: &'conn mut Conn<B>, source: T) -> QueryResult<Self>
    where
        T: Query + QueryFragment<B::Native> + QueryId + 'query,
        B::Native: QueryMetadata<T::SqlType>,
    {
        let unproven = conn.is_to_be_noted::<T>();
        let rows = conn.run(|link| {
            if unproven {
                link.note_unproven();
            }
            let question = link.admit_query(&source)?;
            let rows = B::load_all(link.raw(), source).inspect_err(|error| link.forget_failed(error));
            link.answered(question, rows)
        })?;
        Ok(Self(Rows::Copied(rows.into_iter())))
    }

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
                let hold = Hold::Slot { state, gate: Arc::clone(&gate), level, stale: Rc::clone(&found) };
                (hold, Report::Gate(gate, level))
            }
            Place::Pool(pool, site) => {
                let failed = Rc::new(Cell::new(false));
                let lease = pool.lease_once(*site, conn.instrumentation.as_ref())?;
                let lease = RefCell::new(lease);
                (Hold::Pool { lease, failed: Rc::clone(&failed), stale: Rc::clone(&found) }, Report::Lease(failed))
            }
        };
        let database = conn.alias().clone();
        let mut hold = Rc::new(hold);
        let kept = Rc::get_mut(&mut hold).expect("it is not shared yet");
        let instrumentation = kept.link().instrumentation();
        let report = Reports { target: report, stale: found, database, instrumentation };
        if let Hold::Slot { state, .. } = kept {
            state.note_cursor(T::HAS_STATIC_QUERY_ID);
        }
        let link = kept.link();
        link.aim(conn.file());
        let question = link.admit_query(&source)?;
        debug_assert!(question.is_none(), "a proven read is no text");
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
        //   Forgetting a cursor or row keeps the lock, which is safe: the slot itself is dropped only when
        //   'conn is over, with all that borrowed it.
        #[expect(unsafe_code, reason = "the argument stands above")]
        let raw: &'conn mut B::Raw = unsafe { &mut *raw };
        let loaded = raw.load(source);
        pass_on(report.panic());
        match loaded {
            Ok(cursor) => Ok(Self(Rows::Live(Live { cursor, ended: false, report, hold }))),
            Err(error) => {
                if report.failure(&error) {
                    Rc::get_mut(&mut hold).expect("there is no cursor").link().forget_failed(&error);
                }
                Err(named(error, &report.database))
            }
        }
    }
}

impl<'conn, 'query, B: Copies<M>, M> Iterator for Stream<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    type Item = QueryResult<StreamRow<'conn, 'query, B, M>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let live = match &mut self.0 {
            Rows::Live(live) if live.ended => return None,
            Rows::Live(live) => live,
            Rows::Copied(rows) => return rows.next().map(|row| Ok(StreamRow(OneRow::Copied(row)))),
        };
        let error = match live.cursor.next() {
            Some(Ok(row)) => return Some(Ok(StreamRow(OneRow::Live { row, _hold: Rc::clone(&live.hold) }))),
            // The database has no part in it, and the next row may be read.
            Some(Err(error)) if !live.report.failure(&error) => return Some(Err(error)),
            Some(Err(error)) => Some(Err(named(error, &live.report.database))),
            None => None,
        };
        live.ended = true;
        if Rc::strong_count(&live.hold) > 1 {
            // A row may look into what the cursor holds: on MySQL it has its names from there.
            pass_on(live.report.panic());
        } else if let Rows::Live(live) = std::mem::replace(&mut self.0, Rows::Copied(Vec::new().into_iter())) {
            let Live { cursor, report, hold, .. } = live;
            // On SQLite the query has come back only now.
            drop(cursor);
            drop(hold);
            pass_on(report.panic());
        }
        error
    }
}

impl<'conn, B: Copies<M>, M> RowSealed for StreamRow<'conn, '_, B, M> where B::Raw: LoadConnection<M> + 'conn {}

impl<'conn, 'query, B: Copies<M>, M> Row<'conn, B::Native> for StreamRow<'conn, 'query, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    type Field<'f>
        = StreamField<
        <<B::Raw as LoadConnection<M>>::Row<'conn, 'query> as Row<'conn, B::Native>>::Field<'f>,
        <B::Copied as Row<'conn, B::Native>>::Field<'f>,
    >
    where
        'conn: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    #[inline]
    fn field_count(&self) -> usize {
        match &self.0 {
            OneRow::Live { row, .. } => row.field_count(),
            OneRow::Copied(row) => row.field_count(),
        }
    }

    #[inline]
    fn get<'b, I>(&'b self, index: I) -> Option<Self::Field<'b>>
    where
        'conn: 'b,
        Self: RowIndex<I>,
    {
        let index = self.idx(index)?;
        match &self.0 {
            OneRow::Live { row, .. } => Row::get(row, index).map(StreamField::Live),
            OneRow::Copied(row) => Row::get(row, index).map(StreamField::Copied),
        }
    }

    #[inline]
    fn partial_row(&self, range: std::ops::Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl<'conn, B: Copies<M>, M> RowIndex<usize> for StreamRow<'conn, '_, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    #[inline]
    fn idx(&self, index: usize) -> Option<usize> {
        match &self.0 {
            OneRow::Live { row, .. } => row.idx(index),
            OneRow::Copied(row) => row.idx(index),
        }
    }
}

impl<'conn, 'name, B: Copies<M>, M> RowIndex<&'name str> for StreamRow<'conn, '_, B, M>
where
    B::Raw: LoadConnection<M> + 'conn,
{
    #[inline]
    fn idx(&self, name: &'name str) -> Option<usize> {
        match &self.0 {
            OneRow::Live { row, .. } => row.idx(name),
            OneRow::Copied(row) => row.idx(name),
        }
    }
}

/// A field of a row that is copied, or not.
#[expect(missing_debug_implementations, reason = "Diesel's fields have none")]
pub enum StreamField<L, C> {
    /// Of a row that borrows its connection.
    Live(L),
    /// Of a copy.
    Copied(C),
}

impl<'f, N, L, C> Field<'f, N> for StreamField<L, C>
where
    N: diesel::backend::Backend,
    L: Field<'f, N>,
    C: Field<'f, N>,
{
    #[inline]
    fn field_name(&self) -> Option<&str> {
        match self {
            Self::Live(field) => field.field_name(),
            Self::Copied(field) => field.field_name(),
        }
    }

    #[inline]
    fn value(&self) -> Option<N::RawValue<'_>> {
        match self {
            Self::Live(field) => field.value(),
            Self::Copied(field) => field.value(),
        }
    }

    #[inline]
    fn is_null(&self) -> bool {
        match self {
            Self::Live(field) => field.is_null(),
            Self::Copied(field) => field.is_null(),
        }
    }
}

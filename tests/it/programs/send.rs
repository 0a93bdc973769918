//! Statements, in all the ways in which they can be sent.

use std::panic::resume_unwind;

use diesel::backend::Backend;
use diesel::connection::{Connection, DefaultLoadingMode, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::serialize::{Output, ToSql};
use diesel::sql_types::BigInt;
use multidb::{Error, MysqlConn, PgConn, SqliteConn, connection_on};

use super::ground::ALIASES;
use super::program::{Channel, How, Mark, Text};
use super::run::{OnPurpose, Ran, Run, handle};
use crate::fixture;

diesel::table! { bank_marks (id) { id -> BigInt, } }
diesel::table! { ledger_marks (id) { id -> BigInt, } }

diesel::table! { bank_uniques (id) { id -> BigInt, } }
diesel::table! { ledger_uniques (id) { id -> BigInt, } }
diesel::define_sql_function! { fn putting(a: BigInt) -> BigInt; }

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "what counts is that it was there")]
    id: i64,
}

/// A value that can't be bound.
#[derive(Debug, diesel::expression::AsExpression)]
#[diesel(sql_type = BigInt)]
struct Panics;

impl<DB: Backend> ToSql<BigInt, DB> for Panics {
    fn to_sql<'b>(&'b self, _out: &mut Output<'b, '_, DB>) -> diesel::serialize::Result {
        resume_unwind(Box::new(OnPurpose))
    }
}

/// The insert of a row into the table of a site.
macro_rules! insert {
    ($site:expr, $id:expr, $insert:ident => $body:expr) => {
        if $site == 0 {
            let $insert = diesel::insert_into(bank_marks::table).values(bank_marks::id.eq($id));
            $body
        } else {
            let $insert = diesel::insert_into(ledger_marks::table).values(ledger_marks::id.eq($id));
            $body
        }
    };
}

impl Run<'_> {
    pub(super) fn insert(&self, site: usize, how: How) -> Ran {
        let id = self.id();
        self.sent(site, "an insert of Diesel's", true, vec![(id, Mark::Put)], || self.insert_by(site, how, id))
    }

    fn insert_by(&self, site: usize, how: How, id: i64) -> Ran {
        if how == How::Calls {
            handle!(self, site, conn => { diesel::select(putting(id)).get_result::<i64>(conn)?; });
            return Ok(());
        }
        if how == How::Boxed {
            macro_rules! boxed {
                ($uniques:ident) => {
                    handle!(self, site, conn => {
                        $uniques::table.filter($uniques::id.eq(0)).select(putting(id)).into_boxed().load::<i64>(conn)?;
                    })
                };
            }
            if site == 0 {
                boxed!(bank_uniques);
            } else {
                boxed!(ledger_uniques);
            }
            return Ok(());
        }
        if how == How::Returning {
            match self.ground.sites[site].kind {
                fixture::Kind::Postgres => {
                    let conn = &mut connection_on::<PgConn>(ALIASES[site])?;
                    insert!(site, id, insert => insert.get_result::<(i64,)>(conn)?);
                    return Ok(());
                }
                fixture::Kind::Sqlite => {
                    let conn = &mut connection_on::<SqliteConn>(ALIASES[site])?;
                    insert!(site, id, insert => insert.get_result::<(i64,)>(conn)?);
                    return Ok(());
                }
                fixture::Kind::Mysql => {}
            }
        }
        handle!(self, site, conn => insert!(site, id, insert => insert.execute(conn)?));
        Ok(())
    }

    pub(super) fn panic_in_bind(&self, site: usize) -> Ran {
        self.sent(site, "an insert that panics", true, Vec::new(), || {
            handle!(self, site, conn => insert!(site, Panics, insert => insert.execute(conn)?));
            Ok(())
        })
    }

    pub(super) fn send(&self, site: usize, channel: Channel, text: &Text) -> Ran {
        let ids = [self.id(), self.id()];
        let sql = self.ground.sites[site].fill(&text.sql, &ids);
        let marks = ids.into_iter().zip(text.marks.iter().copied()).collect();
        self.sent(site, &sql, text.single, marks, || self.send_by(site, channel, &sql))
    }

    fn send_by(&self, site: usize, channel: Channel, sql: &str) -> Ran {
        let query = || diesel::sql_query(sql);
        match channel {
            Channel::Batch => handle!(self, site, conn => conn.batch_execute(sql)?),
            Channel::Execute => handle!(self, site, conn => { query().execute(conn)?; }),
            Channel::Load => handle!(self, site, conn => { query().load::<Row>(conn)?; }),
            Channel::First => handle!(self, site, conn => { query().get_result::<Row>(conn)?; }),
            Channel::Iterate => handle!(self, site, conn => {
                query().load_iter::<Row, DefaultLoadingMode>(conn)?.next().transpose()?;
            }),
            Channel::Raw | Channel::RawUnwatched | Channel::RawPanic => {
                handle!(self, site, conn => conn.with_raw(|raw| {
                    if channel == Channel::RawUnwatched {
                        raw.set_instrumentation(|_: InstrumentationEvent<'_>| {});
                    }
                    raw.batch_execute(sql)?;
                    if channel == Channel::RawPanic {
                        resume_unwind(Box::new(OnPurpose));
                    }
                    Ok::<_, Error>(())
                })?);
            }
        }
        Ok(())
    }

    /// Runs a body while a cursor has given a row.
    pub(super) fn stream(&self, site: usize, body: impl FnOnce() -> Ran) -> Ran {
        let sql = self.ground.sites[site].fill("SELECT id FROM {t} WHERE id < 0", &[]);
        let query = diesel::sql_query(sql);
        if self.ground.sites[site].kind == fixture::Kind::Postgres {
            let conn = &mut connection_on::<PgConn>(ALIASES[site])?;
            let mut rows = query.load_iter::<Row, diesel::pg::PgRowByRowLoadingMode>(conn)?;
            rows.next().transpose()?;
            return body();
        }
        handle!(self, site, conn => {
            let mut rows = query.load_iter::<Row, DefaultLoadingMode>(conn)?;
            rows.next().transpose()?;
            body()
        })
    }
}

//! The lesser Diesel traits of a handle.

use std::any::Any;

use diesel::connection::{Connection, MultiConnectionHelper};
use diesel::migration::MigrationConnection;
use diesel::query_dsl::UpdateAndFetchResults;
use diesel::r2d2::R2D2Connection;
use diesel::result::QueryResult;
use diesel::sql_types::TypeMetadata;

use super::conn::{Conn, Place};
use crate::connection::backend::Backend;
use crate::connection::gate::Proof;

/// `save_changes`.
impl<B, Changes, Output> UpdateAndFetchResults<Changes, Output> for Conn<B>
where
    B: Backend,
    B::Raw: UpdateAndFetchResults<Changes, Output>,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        self.weigh(|| Proof::Write)?;
        self.send(|raw| raw.update_and_fetch(changeset))
    }
}

/// `diesel_migrations`.
impl<B: Backend> MigrationConnection for Conn<B> {
    fn setup(&mut self) -> QueryResult<usize> {
        self.weigh(|| Proof::None)?;
        match &self.place {
            Place::Scope(slot) if slot.has_files() => self.send(MigrationConnection::setup),
            // What it may create would end a transaction on MySQL and MariaDB.
            _ => self.run(|link| {
                link.guarded("CREATE TABLE IF NOT EXISTS __diesel_schema_migrations", MigrationConnection::setup)
            }),
        }
    }
}

impl<B: Backend> R2D2Connection for Conn<B> {
    fn ping(&mut self) -> QueryResult<()> {
        self.run(|link| link.raw().ping())
    }
}

/// `#[derive(MultiConnection)]`.
impl<B: Backend> MultiConnectionHelper for Conn<B>
where
    B::Raw: MultiConnectionHelper,
{
    fn to_any<'a>(lookup: &mut <<Self as Connection>::Backend as TypeMetadata>::MetadataLookup) -> &mut (dyn Any + 'a) {
        <B::Raw as MultiConnectionHelper>::to_any(lookup)
    }

    fn from_any(lookup: &mut dyn Any) -> Option<&mut <<Self as Connection>::Backend as TypeMetadata>::MetadataLookup> {
        <B::Raw as MultiConnectionHelper>::from_any(lookup)
    }
}

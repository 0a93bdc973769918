//! Migrations, whatever the backend.

use diesel::migration::MigrationSource;
use diesel::result::QueryResult;

/// Migrations that fit every backend that is built in, such as those of `diesel_migrations::embed_migrations!`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of migrations for every backend that is built in",
    note = "give what `diesel_migrations::embed_migrations!(\"..\")` made, or a `FileBasedMigrations`"
)]
pub trait Migrations: OnPostgres + OnMysql + OnSqlite {}

impl<M: OnPostgres + OnMysql + OnSqlite> Migrations for M {}

macro_rules! on {
    ($feature:literal, $trait:ident, $backend:ty) => {
        /// Migrations for a backend, where it is built in.
        #[cfg(feature = $feature)]
        pub trait $trait: MigrationSource<$backend> {}
        #[cfg(feature = $feature)]
        impl<M: MigrationSource<$backend>> $trait for M {}
        /// Migrations for a backend, where it is built in.
        #[cfg(not(feature = $feature))]
        pub trait $trait {}
        #[cfg(not(feature = $feature))]
        impl<M> $trait for M {}
    };
}

on!("postgres", OnPostgres, diesel::pg::Pg);
on!("mysql", OnMysql, diesel::mysql::Mysql);
on!("sqlite", OnSqlite, diesel::sqlite::Sqlite);

/// What a backend does around migrations.
pub trait Around<R>: Sized {
    /// Before anything else, outside of any transaction.
    fn begin(raw: &mut R) -> QueryResult<Self>;

    /// Before each migration that runs.
    fn before(&mut self, _raw: &mut R) -> QueryResult<()> {
        Ok(())
    }

    /// After each migration that ran, in its transaction where it has one.
    fn after(&mut self, _raw: &mut R, _migration: &str) -> diesel::migration::Result<()> {
        Ok(())
    }

    /// Once all have run, or one has failed and may have left its transaction open.
    fn end(self, _raw: &mut R) -> QueryResult<()> {
        Ok(())
    }
}

/// Nothing has to be done.
impl<R> Around<R> for () {
    fn begin(_raw: &mut R) -> QueryResult<Self> {
        Ok(())
    }
}

/// What was run on one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// The versions that were run now.
    pub versions: Vec<String>,
    /// How many were there already.
    pub already: usize,
}

//! What the cases of Django's own tests need: its model, its helpers, and the places in which it runs them.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Atomic, Error, Model, Propagation, atomic, connection, scope};

use super::*;
use crate::fixture::Kind;

diesel::table! {
    reporters (id) { id -> BigInt, first_name -> Text, last_name -> Text, }
}

#[derive(Debug, Queryable, Selectable, Model)]
#[diesel(table_name = reporters)]
#[model(app = "transactions")]
pub(crate) struct Reporter {
    first_name: String,
    last_name: String,
}

/// What a body or a scope returns.
pub(crate) type Ran = Result<(), Mishap>;

/// Where a case runs: outside of any scope, or inside of an open transaction.
pub(crate) struct Newsroom<'a> {
    fixture: &'a Fixture,
    place: &'static str,
}

const ALONE: &str = "outside of any scope";

impl Newsroom<'_> {
    /// Checks which reporters there are. A connection of the test's own is asked; where the case runs inside of an open
    /// transaction, nobody else sees its rows yet, and the transaction is asked.
    pub(crate) fn holds<const N: usize>(&self, names: [&str; N]) {
        let found = if self.place == ALONE {
            names_on(&mut self.fixture.observer("default"))
        } else {
            assert!(!scope::is_doomed(), "{}", self.place);
            names_on(&mut connection::<Reporter, H>().unwrap())
        };
        assert_eq!(found.unwrap(), names, "{}", self.place);
    }
}

/// A fresh database with an empty table of reporters.
pub(crate) fn newsroom() -> Option<Fixture> {
    let fixture = fixture()?;
    let id = match KIND {
        Kind::Sqlite => "INTEGER PRIMARY KEY",
        Kind::Postgres => "BIGSERIAL PRIMARY KEY",
        Kind::Mysql => "BIGINT AUTO_INCREMENT PRIMARY KEY",
    };
    let table = format!(
        "CREATE TABLE reporters (id {id}, first_name VARCHAR(30) NOT NULL, last_name VARCHAR(30) NOT NULL DEFAULT '')"
    );
    fixture.observer("default").batch_execute(&table).unwrap();
    Some(fixture)
}

/// Runs a case outside of any scope, inside of another transaction, and inside of a manual scope, which is what Django
/// calls autocommit turned off: a scope must mean the same in all three.
pub(crate) fn everywhere(case: impl Fn(&Newsroom<'_>)) {
    let Some(fixture) = newsroom() else { return };
    let fixture = &fixture;
    let databases = fixture.databases();
    let _entered = databases.enter();
    let done = |place| {
        assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0), "{place}");
        diesel::delete(reporters::table).execute(&mut fixture.observer("default")).unwrap();
    };
    case(&Newsroom { fixture, place: ALONE });
    done(ALONE);

    let inside = |place| {
        case(&Newsroom { fixture, place });
        assert_eq!(scope::depth(), 1, "{place}");
        assert!(names_on(&mut fixture.observer("default")).unwrap().is_empty(), "{place}: nothing was committed yet");
        names_on(&mut connection::<Reporter, H>()?).map_err(Mishap::from)
    };
    let place = "inside of a transaction";
    let left = atomic::<Reporter>().run(|_: &mut H| inside(place)).unwrap();
    assert_eq!(names_on(&mut fixture.observer("default")).unwrap(), left, "{place}");
    done(place);

    let place = "inside of a manual scope";
    let left = atomic::<Reporter>().manual().run(|_: &mut H| {
        let left = inside(place)?;
        scope::commit()?;
        Ok::<_, Mishap>(left)
    });
    assert_eq!(names_on(&mut fixture.observer("default")).unwrap(), left.unwrap(), "{place}");
    done(place);
}

/// Runs a case outside of any scope.
pub(crate) fn alone(case: impl Fn(&Newsroom<'_>)) {
    let Some(fixture) = newsroom() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    case(&Newsroom { fixture: &fixture, place: ALONE });
    assert_eq!((scope::depth(), in_use(&databases, "default")), (0, 0));
}

/// The reporters in Django's order: by their first and their last name.
fn names_on<C>(conn: &mut C) -> QueryResult<Vec<String>>
where
    C: diesel::connection::LoadConnection<Backend = <Raw as Connection>::Backend>,
{
    let reporters = reporters::table.order((reporters::first_name, reporters::last_name));
    let reporters: Vec<Reporter> = reporters.select(Reporter::as_select()).load(conn)?;
    Ok(reporters.into_iter().map(|one| format!("{} {}", one.first_name, one.last_name).trim().to_owned()).collect())
}

/// `Reporter.objects.create`: one statement, in the open transaction or in autocommit.
pub(crate) fn create(first: &str, last: &str) -> Result<(), Error> {
    let values = (reporters::first_name.eq(first), reporters::last_name.eq(last));
    diesel::insert_into(reporters::table).values(values).execute(&mut connection::<Reporter, H>()?)?;
    Ok(())
}

/// `Reporter.objects.count`.
pub(crate) fn count() -> Result<i64, Error> {
    Ok(reporters::table.count().get_result(&mut connection::<Reporter, H>()?)?)
}

/// Puts a reporter under an `id`: refused where it is taken.
pub(crate) fn create_as(id: i64, first: &str) -> Result<(), Error> {
    let values = (reporters::id.eq(id), reporters::first_name.eq(first), reporters::last_name.eq(""));
    diesel::insert_into(reporters::table).values(values).execute(&mut connection::<Reporter, H>()?)?;
    Ok(())
}

/// Gives the reporter with this `id` another name.
pub(crate) fn rename(id: i64, first: &str) -> Result<(), Error> {
    let rename = diesel::update(reporters::table.find(id)).set(reporters::first_name.eq(first));
    rename.execute(&mut connection::<Reporter, H>()?)?;
    Ok(())
}

/// Django's `atomic`.
pub(crate) fn nested(body: impl FnOnce() -> Ran) -> Ran {
    within(atomic::<Reporter>(), body)
}

/// Django's `atomic(savepoint=False)`.
pub(crate) fn joined(body: impl FnOnce() -> Ran) -> Ran {
    within(atomic::<Reporter>().propagation(Propagation::Join), body)
}

/// Django's `atomic(durable=True)`.
pub(crate) fn durable(body: impl FnOnce() -> Ran) -> Ran {
    within(atomic::<Reporter>().propagation(Propagation::Durable), body)
}

/// Runs a body that takes its connections by itself.
pub(crate) fn within(scope: Atomic, body: impl FnOnce() -> Ran) -> Ran {
    scope.run(|_: &mut H| body())
}

/// The exception that the bodies raise.
pub(crate) fn oops() -> Ran {
    Err(Mishap::OnPurpose)
}

pub(crate) fn is_oops(ran: &Ran) -> bool {
    matches!(ran, Err(Mishap::OnPurpose))
}

pub(crate) fn is_doomed<T>(ran: &Result<T, Mishap>) -> bool {
    matches!(ran, Err(Mishap::Database(Error::Doomed { .. })))
}

//! Django's tests of routers, from `tests/multiple_database/tests.py` and `tests/migrations/test_multidb.py`, where they
//! mean something here. A query of Django's that reads is a `read_only` scope.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use multidb::{
    Access, Alias, DatabaseConfig, Databases, DatabasesBuilder, Error, Model, ModelInfo, Route, RouteRequest, Router,
    atomic, atomic_many, check_relation, connection, connection_on, transactional, with_hint, with_routes,
};

use super::*;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../tests/it/migrations");

#[derive(Model)]
#[diesel(table_name = items)]
#[model(app = "multiple_database")]
struct Book;

#[derive(Model)]
#[diesel(table_name = items)]
#[model(app = "multiple_database")]
struct Pet;

#[derive(Model)]
#[diesel(table_name = items)]
#[model(app = "auth")]
struct User;

/// Reads from `other` and writes to `default`, as if they were a replica and its primary.
struct TestRouter;

impl Router for TestRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(if request.access() == Access::Read { "other" } else { "default" })
    }

    fn allow_relation(&self, _a: &ModelInfo, _b: &ModelInfo) -> Option<bool> {
        Some(true)
    }

    fn allow_migrate(&self, _database: &Alias, _app: &str, _model: Option<&ModelInfo>) -> Option<bool> {
        Some(true)
    }
}

/// Decides for the application `auth` alone. Reads and writes differ, so that it shows which of them was asked for.
struct AuthRouter;

impl Router for AuthRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match (request.app(), request.access()) {
            ("auth", Access::Read) => Route::to("default"),
            ("auth", Access::Write) => Route::to("other"),
            _ => Route::pass(),
        }
    }

    fn allow_relation(&self, a: &ModelInfo, b: &ModelInfo) -> Option<bool> {
        (a.app() == "auth" || b.app() == "auth").then_some(true)
    }

    fn allow_migrate(&self, database: &Alias, app: &str, _model: Option<&ModelInfo>) -> Option<bool> {
        (app == "auth").then(|| database == "other")
    }
}

/// Has an opinion on writes only.
struct WriteRouter;

impl Router for WriteRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if request.access() == Access::Write { Route::to("writer") } else { Route::pass() }
    }
}

/// `default`, `other`, and `writer`, which is `other` by a second name.
fn databases(fixture: &Fixture, routers: impl FnOnce(DatabasesBuilder) -> DatabasesBuilder) -> Databases {
    let [default, other] = &fixture.urls;
    let aliases = [("default", default), ("other", other), ("writer", other)];
    let builder = aliases
        .into_iter()
        .fold(Databases::builder(), |builder, (alias, url)| builder.database(DatabaseConfig::new(alias, url.clone())));
    routers(builder).build().unwrap()
}

fn lives<M: Model>(databases: &Databases, access: Access) -> String {
    databases.explain_route::<M>(access).database().unwrap().to_string()
}

fn read<M: Model>() -> Vec<(i64, i64)> {
    atomic::<M>().read_only().run(|conn: &mut H| items::table.order(items::id).load(conn).map_err(Error::from)).unwrap()
}

#[transactional(Book)]
fn add_book(#[conn] conn: &mut H, id: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
    Ok(())
}

#[transactional(User)]
fn add_user(#[conn] conn: &mut H, id: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
    Ok(())
}

/// `RouterTestCase.test_db_selection` and `test_database_routing`: what is not named is routed, what is named is not.
#[test]
fn reads_and_writes_are_routed_apart_and_a_named_database_is_taken_as_it_is() {
    let Some(fixture) = fixture() else { return };
    let _entered = databases(&fixture, |builder| builder.router(TestRouter)).enter();
    fixture.observer("other").batch_execute("INSERT INTO items VALUES (7, 70)").unwrap();
    add_book(1).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0)], "written to the primary");
    assert_eq!(read::<Book>(), [(7, 70)], "read from the replica, where it has not come");
    let on = |alias: &'static str| connection_on::<H>(alias).unwrap().alias().to_string();
    assert_eq!((on("default"), on("other")), ("default".into(), "other".into()));
    let named = items::table.load::<(i64, i64)>(&mut connection_on::<H>("default").unwrap());
    assert_eq!(named.unwrap(), [(1, 0)]);
    // A handle that may write is one on the primary.
    assert_eq!(connection::<Book, H>().unwrap().alias(), &"default");
}

/// `RouterTestCase.test_migrate_selection`: the order of the routers decides.
#[test]
fn the_first_opinion_on_a_migration_counts() {
    let Some(fixture) = fixture() else { return };
    let (user, book) = (("auth", User::info()), ("multiple_database", Book::info()));
    let universal = databases(&fixture, |builder| builder.router(TestRouter).router(AuthRouter));
    let restricted = databases(&fixture, |builder| builder.router(AuthRouter).router(TestRouter));
    for (alias, (app, model), universally, restrictedly) in [
        ("default", user, true, false),
        ("default", book, true, true),
        ("other", user, true, true),
        ("other", book, true, true),
    ] {
        let allows = |databases: &Databases| databases.allows_migrate(alias, app, Some(model)).unwrap();
        assert_eq!((allows(&universal), allows(&restricted)), (universally, restrictedly), "{model} on {alias}");
        assert_eq!(restricted.allows_migrate(alias, app, None).unwrap(), restrictedly, "{app} on {alias}");
    }
}

/// `RouterTestCase.test_partial_router`: what a router has no opinion on is left to the next one.
#[test]
fn a_router_with_few_opinions_leaves_the_rest_to_the_next() {
    let Some(fixture) = fixture() else { return };
    let databases = databases(&fixture, |builder| builder.router(WriteRouter).router(AuthRouter).router(TestRouter));
    assert_eq!(lives::<User>(&databases, Access::Read), "default");
    assert_eq!(lives::<Book>(&databases, Access::Read), "other");
    assert_eq!(lives::<User>(&databases, Access::Write), "writer");
    assert_eq!(lives::<Book>(&databases, Access::Write), "writer");
    databases.check_relation::<Book, Book>().unwrap();
    databases.check_relation::<Book, User>().unwrap();
    assert!(!databases.allows_migrate("default", "auth", Some(User::info())).unwrap());
    assert!(databases.allows_migrate("default", "multiple_database", Some(Book::info())).unwrap());
}

/// `AuthTestCase.test_auth_manager`: one user by the route, one on the named database, and neither is on the other's.
#[test]
fn an_application_of_its_own_database_can_still_be_written_elsewhere_by_name() {
    let Some(fixture) = fixture() else { return };
    let _entered = databases(&fixture, |builder| builder.router(AuthRouter)).enter();
    add_user(1).unwrap();
    let conn = &mut connection_on::<H>("default").unwrap();
    diesel::insert_into(items::table).values((items::id.eq(2), items::value.eq(0))).execute(conn).unwrap();
    assert_eq!((fixture.rows("other"), fixture.rows("default")), (vec![(1, 0)], vec![(2, 0)]));
}

/// `AntiPetRouter` of `FixtureTestCase`: an opinion on migrations goes by the model too, and says nothing of routes.
#[test]
fn an_opinion_on_the_migrations_of_one_model_is_none_on_routes() {
    struct AntiPet;
    impl Router for AntiPet {
        fn allow_migrate(&self, database: &Alias, _app: &str, model: Option<&ModelInfo>) -> Option<bool> {
            let pet = model.is_some_and(|model| model.name() == "Pet");
            Some((database == "other") == pet)
        }
    }
    let Some(fixture) = fixture() else { return };
    let databases = databases(&fixture, |builder| builder.router(AntiPet));
    let allows = |alias, model| databases.allows_migrate(alias, "multiple_database", Some(model)).unwrap();
    assert_eq!((allows("default", Book::info()), allows("other", Book::info())), (true, false));
    assert_eq!((allows("default", Pet::info()), allows("other", Pet::info())), (false, true));
    assert_eq!(lives::<Pet>(&databases, Access::Write), "default");
}

/// `SignalTests`: a router that is swapped in for a block is gone after it.
#[test]
fn writes_go_elsewhere_for_the_length_of_a_block() {
    struct WriteToOther;
    impl Router for WriteToOther {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            if request.access() == Access::Write { Route::to("other") } else { Route::pass() }
        }
    }
    let Some(fixture) = fixture() else { return };
    let _entered = databases(&fixture, |builder| builder).enter();
    add_book(1).unwrap();
    with_routes(WriteToOther, || {
        add_book(2).unwrap();
        assert_eq!(read::<Book>(), [(1, 0)], "it has no opinion on reads");
    });
    add_book(3).unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 0), (3, 0)], vec![(2, 0)]));
}

/// `RouterAttributeErrorTestCase`: a router's own fault is not taken for "no opinion".
#[test]
fn a_panic_in_a_router_comes_out_and_changes_nothing() {
    struct Faulty;
    impl Router for Faulty {
        fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
            panic!("an attribute error")
        }
    }
    let Some(fixture) = fixture() else { return };
    let databases = databases(&fixture, |builder| builder.router(TestRouter));
    let _entered = databases.enter();
    add_book(1).unwrap();
    let calls: [(&str, &dyn Fn()); 5] = [
        ("read", &|| drop(read::<Book>())),
        ("save", &|| add_book(2).unwrap()),
        ("delete", &|| drop(connection::<Book, H>().map(|mut conn| diesel::delete(items::table).execute(&mut conn)))),
        ("m2m", &|| atomic_many::<(Book, User)>().run(|_| Ok::<_, Error>(())).unwrap()),
        ("nested", &|| atomic::<Book>().run(|_: &mut H| with_routes(Faulty, || add_book(3))).unwrap()),
    ];
    for (call, run) in calls {
        let panicked =
            catch_unwind(AssertUnwindSafe(|| if call == "nested" { run() } else { with_routes(Faulty, run) }));
        let payload = panicked.expect_err(call);
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"an attribute error"), "{call}");
        assert_eq!((multidb::scope::depth(), in_use(&databases, "default")), (0, 0), "{call}");
    }
    add_book(4).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (4, 0)]);
}

/// `RouterModelArgumentTestCase`: what a router gets is the model itself, for each model of a scope.
#[test]
fn a_router_is_given_each_model_of_a_scope_itself() {
    #[derive(Clone, Default)]
    struct Models(Arc<Mutex<Vec<ModelInfo>>>);
    impl Router for Models {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            self.0.lock().unwrap().push(*request.model().expect("a model was asked for"));
            Route::pass()
        }
    }
    let Some(fixture) = fixture() else { return };
    let models = Models::default();
    let _entered = databases(&fixture, |builder| builder.router(models.clone())).enter();
    atomic_many::<(Book, Pet, User)>().run(|scope| scope.conn::<Pet, H>().map(drop)).unwrap();
    let asked: Vec<ModelInfo> = std::mem::take(&mut *models.0.lock().unwrap());
    assert_eq!(asked[..3], [*Book::info(), *Pet::info(), *User::info()]);
}

/// `RouteForWriteTestCase`: whatever writes asks for writing, with the model and the hint of the instance.
#[test]
fn each_write_asks_for_writing_with_its_model_and_its_hint() {
    #[derive(Debug, Clone, PartialEq)]
    struct Instance(i64);
    type Asked = (Access, &'static str, Option<Instance>);
    #[derive(Clone, Default)]
    struct RouterUsed(Arc<Mutex<Vec<Asked>>>);
    impl Router for RouterUsed {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            let name = if request.model() == Some(Pet::info()) { "Pet" } else { "Book" };
            self.0.lock().unwrap().push((request.access(), name, request.hint().cloned()));
            Route::refuse("that is all that it wants to know")
        }
    }
    let Some(fixture) = fixture() else { return };
    let used = RouterUsed::default();
    let _entered = databases(&fixture, |builder| builder.router(used.clone())).enter();
    let asked = |call: &dyn Fn() -> Result<(), Error>| {
        let refused = with_hint(Instance(9), call);
        assert!(matches!(refused, Err(Error::RouteRefused { .. })), "{refused:?}");
        let mut asked = std::mem::take(&mut *used.0.lock().unwrap());
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    };
    let hint = || Some(Instance(9));
    assert_eq!(asked(&|| add_book(1)), (Access::Write, "Book", hint()));
    assert_eq!(asked(&|| atomic::<Pet>().run(|_: &mut H| Ok(()))), (Access::Write, "Pet", hint()));
    assert_eq!(asked(&|| connection::<Pet, H>().map(drop)), (Access::Write, "Pet", hint()));
    assert_eq!(asked(&|| atomic_many::<(Pet, Book)>().run(|_| Ok(()))), (Access::Write, "Pet", hint()));
    assert_eq!(asked(&|| atomic::<Pet>().read_only().run(|_: &mut H| Ok(()))), (Access::Read, "Pet", hint()));
    assert_eq!(fixture.rows("default"), []);
}

/// `RelationAssignmentTests`, and the cross database protection of `QueryTestCase` and `RouterTestCase`.
#[test]
fn a_relation_is_refused_by_a_router_or_where_the_databases_differ() {
    struct NoRelation;
    impl Router for NoRelation {
        fn allow_relation(&self, _a: &ModelInfo, _b: &ModelInfo) -> Option<bool> {
            Some(false)
        }
    }
    struct Apart;
    impl Router for Apart {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            if request.app() == "auth" { Route::to("other") } else { Route::pass() }
        }
    }
    let Some(fixture) = fixture() else { return };
    let both_ways = || [check_relation::<Pet, User>(), check_relation::<User, Pet>()].map(|checked| checked.is_ok());
    let _entered = databases(&fixture, |builder| builder.router(Apart)).enter();
    assert_eq!(both_ways(), [false, false]);
    check_relation::<Pet, Book>().unwrap();
    with_routes(TestRouter, || assert_eq!(both_ways(), [true, true], "they share a source"));
    with_routes(AuthRouter, || assert_eq!(both_ways(), [true, true], "one of them is of the application"));
    with_routes(NoRelation, || {
        let Err(Error::RelationRefused { a, b, router, .. }) = check_relation::<Pet, Book>() else { panic!() };
        assert_eq!((a, b, router), ("Pet", "Book", Some("with_routes")));
        assert_eq!(both_ways(), [false, false]);
        // An opinion of a block counts before those of the registry, and the innermost block before all.
        with_routes(TestRouter, || assert_eq!(both_ways(), [true, true]));
    });
}

/// Says this of every migration.
struct Migrate(Option<bool>);

impl Router for Migrate {
    fn allow_migrate(&self, _database: &Alias, _app: &str, _model: Option<&ModelInfo>) -> Option<bool> {
        self.0
    }
}

fn has_books(fixture: &Fixture, alias: &str) -> bool {
    diesel::sql_query("SELECT * FROM books").execute(&mut fixture.observer(alias)).is_ok()
}

/// `MultiDBOperationTests.test_create_model` to `test_create_model4`, and `test_run_sql`: `AgnosticRouter`,
/// `MigrateNothingRouter` and `MigrateEverythingRouter`, alone and in a chain.
#[test]
fn a_migration_runs_unless_the_first_opinion_is_no() {
    let (agnostic, nothing, everything) = (None, Some(false), Some(true));
    for (first, second, should_run) in [
        (agnostic, agnostic, true),
        (nothing, agnostic, false),
        (everything, agnostic, true),
        (agnostic, nothing, false),
        (nothing, everything, false),
        (everything, nothing, true),
    ] {
        let Some(fixture) = fixture() else { return };
        let [default, _] = &fixture.urls;
        let builder = Databases::builder().database(DatabaseConfig::new("default", default.clone()));
        let databases = builder.router(Migrate(first)).router(Migrate(second)).build().unwrap();
        let report = databases.migrate("library", MIGRATIONS).unwrap();
        let case = format!("{first:?} {second:?}: {report}");
        assert_eq!(
            (report.applied().count(), report.refused().count()),
            (should_run.into(), (!should_run).into()),
            "{case}"
        );
        assert_eq!(has_books(&fixture, "default"), should_run, "{case}");
    }
}

/// `MigrateTestCase.test_migrate_to_other_database` and `test_migrate_to_other_database_with_router`.
#[test]
fn migrations_reach_the_other_database_unless_a_router_keeps_them_on_the_default() {
    struct SyncOnlyDefaultDatabase;
    impl Router for SyncOnlyDefaultDatabase {
        fn allow_migrate(&self, database: &Alias, _app: &str, _model: Option<&ModelInfo>) -> Option<bool> {
            Some(database == &Alias::DEFAULT)
        }
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let report = with_routes(SyncOnlyDefaultDatabase, || databases.migrate("library", MIGRATIONS)).unwrap();
    let refused: Vec<&str> = report.refused().map(|(alias, _)| alias.as_str()).collect();
    assert_eq!(refused, ["other"], "{report}");
    assert_eq!((has_books(&fixture, "default"), has_books(&fixture, "other")), (true, false));
    databases.migrate("library", MIGRATIONS).unwrap();
    assert!(has_books(&fixture, "other"));
}

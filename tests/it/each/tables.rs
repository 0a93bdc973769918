//! Routers that are tables, relations, migrations by alias, and explained routes.

use std::sync::Barrier;

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, FileBasedMigrations, MigrationHarness, embed_migrations};
use multidb::{
    Access, Alias, Error, Model, ModelInfo, Route, RouteRequest, Router, StaticRouter, atomic, check_relation,
    connection, detached, scope, transactional, with_hint, with_routes,
};

use super::*;

diesel::table! { books (id) { id -> BigInt, author_id -> BigInt, } }

/// Belongs to an [`Item`], which lives elsewhere in some tests.
#[derive(Identifiable, Associations, Model)]
#[diesel(table_name = books, belongs_to(Item, foreign_key = author_id))]
#[model(app = "library")]
struct Book {
    id: i64,
    author_id: i64,
}

/// As [`Book`], for a schema whose foreign keys nobody checks.
#[derive(Model)]
#[diesel(table_name = books, belongs_to(Item, foreign_key = author_id))]
#[model(app = "library", no_relations)]
struct Loose;

fn built(fixture: &Fixture, router: impl Router) -> multidb::Databases {
    fixture.builder(2).build().unwrap().with_router(router)
}

#[test]
fn a_table_routes_by_model_before_app_and_leaves_the_rest_to_the_next_router() {
    let Some(fixture) = fixture() else { return };
    let table = StaticRouter::new().app("shop", "other").model::<Record>("default").prefer_app("library", "nowhere");
    let _entered = built(&fixture, table).enter();
    put(1, 10).unwrap();
    put_record(2, 20).unwrap();
    assert_eq!((fixture.rows("other"), fixture.rows("default")), (vec![(1, 10)], vec![(2, 20)]));
    assert_eq!(connection::<Book, H>().unwrap().alias(), &"default", "what is preferred and not there");
    // A later line replaces an earlier one.
    let table = StaticRouter::new().app("shop", "other").app("shop", "default");
    let _entered = built(&fixture, table).enter();
    assert_eq!(connection::<Item, H>().unwrap().alias(), &"default");
}

#[test]
fn a_misspelt_alias_in_a_table_is_found_when_the_registry_is_built() {
    let Some(fixture) = fixture() else { return };
    for table in [StaticRouter::new().app("shop", "othr"), StaticRouter::new().model::<Item>("othr")] {
        let error = fixture.builder(1).router(table.clone()).build().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::UnknownDatabase { alias, .. } if alias == "othr"), "{text}");
        assert!(text.contains("StaticRouter") && text.contains("did you mean `other`"), "{text}");
        fixture.builder(1).router(table).build_lazy().unwrap();
    }
    fixture.builder(1).router(StaticRouter::new().prefer_app("shop", "othr")).build().unwrap();
}

/// Has its opinions on relations and migrations.
struct Opinions {
    relation: Option<bool>,
    migrate: Option<bool>,
}

impl Router for Opinions {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if request.app() == "library" { Route::to("other") } else { Route::pass() }
    }

    fn allow_relation(&self, a: &ModelInfo, b: &ModelInfo) -> Option<bool> {
        assert_eq!((a.name(), b.name()), ("Book", "Item"));
        self.relation
    }

    fn allow_migrate(&self, database: &Alias, app: &str, _model: Option<&ModelInfo>) -> Option<bool> {
        if app == "library" && *database == "other" { Some(true) } else { self.migrate }
    }
}

/// Allows no relation.
struct Never;

impl Router for Never {
    fn allow_relation(&self, _a: &ModelInfo, _b: &ModelInfo) -> Option<bool> {
        Some(false)
    }
}

#[test]
fn a_relation_over_two_databases_is_refused_unless_a_router_allows_it() {
    let Some(fixture) = fixture() else { return };
    for (relation, allowed) in [(None, false), (Some(false), false), (Some(true), true)] {
        let _entered = built(&fixture, Opinions { relation, migrate: None }).enter();
        let checked = check_relation::<Book, Item>();
        assert_eq!(checked.is_ok(), allowed, "{relation:?}: {checked:?}");
        let built = fixture.builder(1).router(Opinions { relation, migrate: None }).models::<(Book, Item)>().build();
        assert_eq!(built.is_ok(), allowed, "{relation:?}: {built:?}");
        let Err(error) = checked else { continue };
        let text = error.to_string();
        assert!(text.contains("`Book`") && text.contains("`default`") && text.contains("allow_relation"), "{text}");
        assert_eq!(text.contains("Opinions"), relation.is_some(), "{text}");
    }
    // On one database nobody need be asked; and an opinion counts there too.
    let _entered = fixture.databases().enter();
    check_relation::<Book, Item>().unwrap();
    assert!(matches!(with_routes(Never, check_relation::<Book, Item>), Err(Error::RelationRefused { .. })));
    let unchecked = fixture.builder(1).router(Never).models::<(Loose, Item)>().build();
    unchecked.unwrap();
}

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../tests/it/migrations");

#[test]
fn migrations_run_where_the_routers_allow_them_and_the_rest_is_reported() {
    let Some(fixture) = fixture() else { return };
    let databases = built(&fixture, Opinions { relation: None, migrate: Some(false) });
    assert!(databases.allows_migrate("other", "library", None).unwrap());
    assert!(!databases.allows_migrate("default", "library", Some(Book::info())).unwrap());
    assert!(databases.allows_migrate("nowhere", "library", None).is_err());
    for run in [1, 0] {
        let report = databases.migrate("library", MIGRATIONS).unwrap();
        let applied: Vec<_> =
            report.applied().map(|(alias, ran)| (alias.as_str(), ran.versions.len(), ran.already)).collect();
        assert_eq!(applied, [("other", run, 1 - run)], "{report}");
        let refused: Vec<_> = report.refused().map(|(alias, _)| alias.as_str()).collect();
        assert_eq!(refused, ["default"], "{report}");
        assert!(report.to_string().contains("`default`: refused by router") && report.to_string().contains("Opinions"));
    }
    assert_eq!(books::table.count().get_result(&mut fixture.observer("other")), Ok(0_i64));
    assert!(books::table.count().get_result::<i64>(&mut fixture.observer("default")).is_err());
    // Nobody has an opinion: everywhere.
    let report = fixture.databases().migrate("library", MIGRATIONS).unwrap();
    assert_eq!(report.applied().count(), 2);
    let pending = fixture.observer("default").has_pending_migration(MIGRATIONS);
    assert!(!pending.unwrap());
}

#[test]
fn two_that_migrate_at_once_do_it_once_and_a_broken_migration_names_its_database() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let barrier = Barrier::new(3);
    let ran: usize = std::thread::scope(|threads| {
        let run = || {
            barrier.wait();
            let report = databases.migrate("library", MIGRATIONS).unwrap();
            report.applied().map(|(_, ran)| ran.versions.len()).sum::<usize>()
        };
        let threads = [threads.spawn(run), threads.spawn(run), threads.spawn(run)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(ran, 2, "once on each database");

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("2026-01-02-000000_broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("up.sql"), "CREATE TABLE;").unwrap();
    std::fs::write(broken.join("down.sql"), "").unwrap();
    let source = FileBasedMigrations::from_path(folder.path()).unwrap();
    let error = databases.migrate("library", source).unwrap_err();
    assert!(matches!(&error, Error::Migration { database, .. } if *database == "default"), "{error}");
    assert!(error.to_string().contains("broken"), "{error}");
}

#[test]
fn a_table_lets_migrations_run_where_its_lines_send_the_application_and_nowhere_else() {
    let Some(fixture) = fixture() else { return };
    let asked = |table: StaticRouter, app: &str, model| {
        let databases = built(&fixture, table);
        ["default", "other"].map(|alias| databases.allows_migrate(alias, app, model).unwrap())
    };
    let table = || StaticRouter::new().app("library", "other");
    assert_eq!(asked(table(), "library", None), [false, true]);
    assert_eq!(asked(table(), "library", Some(Book::info())), [false, true]);
    assert_eq!(asked(table(), "shop", None), [true, true], "no line, no opinion");
    let table = || table().model::<Book>("default");
    assert_eq!(asked(table(), "library", None), [true, true], "for one of its models");
    assert_eq!(asked(table(), "library", Some(Book::info())), [true, false]);
    let preferring = StaticRouter::new().prefer_app("library", "nowhere");
    assert_eq!(asked(preferring, "library", None), [true, true], "one of them stands in");
}

/// Sends a shard to its own database.
struct ByShard;

#[derive(Debug, Clone, Copy)]
struct Shard(bool);

impl Router for ByShard {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.hint() {
            Some(Shard(true)) => Route::to("other"),
            Some(Shard(false)) => Route::prefer("nowhere"),
            None if request.app() == "library" => Route::refuse("the shard is missing"),
            None => Route::pass(),
        }
    }
}

#[test]
fn a_route_is_explained_step_by_step() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).router(ByShard).router(StaticRouter::new()).models::<(Item,)>().build().unwrap();
    let shown = |explained: multidb::RouteExplanation| explained.to_string();
    let plain = shown(databases.explain_route::<Item>(Access::Write));
    for part in [
        "model `Item` of app `shop`, to write:",
        "ByApp: no opinion",
        "ByShard: no opinion (without hint `",
        "tables::Shard`)",
        "StaticRouter: no opinion",
        "no router had an opinion, so database `default`",
    ] {
        assert!(plain.contains(part), "{part} is missing in:\n{plain}");
    }
    let hinted = with_hint(Shard(true), || databases.explain_route::<Item>(Access::Read));
    assert_eq!(hinted.database().unwrap(), &"other");
    assert_eq!(hinted.steps().len(), 2, "the last one was not asked");
    let hinted = shown(hinted);
    assert!(hinted.contains("to read") && hinted.contains("ByShard: `other` (by hint"), "{hinted}");
    let unmet = shown(with_hint(Shard(false), || databases.explain_route::<Item>(Access::Write)));
    assert!(unmet.contains("prefers `nowhere`, which is not configured"), "{unmet}");
    let refused = databases.explain_route::<Book>(Access::Write);
    assert!(matches!(refused.database(), Err(Error::RouteRefused { .. })));
    assert!(shown(refused).contains("refuses: the shard is missing"));
    let swapped =
        with_routes(StaticRouter::new().app("shop", "other"), || databases.explain_route::<Item>(Access::Write));
    assert!(shown(swapped).contains("with_routes: `other`"));
    let table = databases.explain_routes();
    assert_eq!((table.len(), table[0].0.name(), table[0].1.database().unwrap().as_str()), (1, "Item", "default"));
}

#[test]
fn a_hint_of_a_scope_reaches_its_router_and_all_that_it_calls_and_ends_with_it() {
    #[transactional(Item, hint = Shard(id > 10))]
    fn put_sharded(id: i64) -> Result<(), Error> {
        put(id, 0)
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(2).router(ByShard).build().unwrap().enter();
    put_sharded(1).unwrap();
    put_sharded(11).unwrap();
    atomic::<Item>().hint(Shard(true)).run(|_: &mut H| put(12, 0)).unwrap();
    atomic::<Item>().hint(Shard(true)).retry(1).run(|_: &mut H| put(13, 0)).unwrap();
    put(2, 0).unwrap();
    let ids = |alias| fixture.rows(alias).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!((ids("default"), ids("other")), (vec![1, 2], vec![11, 12, 13]));
}

#[test]
fn what_is_detached_sees_no_scope_and_the_scope_goes_on_after_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        detached(|| {
            assert_eq!((scope::depth(), scope::current()), (0, None));
            put_record(2, 20)?;
            let mut conn = connection::<Record, H>()?;
            diesel::insert_into(items::table).values((items::id.eq(3), items::value.eq(30))).execute(&mut conn)?;
            Ok::<_, Error>(())
        })?;
        let panicked = std::panic::catch_unwind(|| detached(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(scope::depth(), 1);
        put(4, 40)?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![(2, 20), (3, 30)]));
    assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0));
}

/// Gives `default` and `other` in turn.
struct Fickle(std::sync::atomic::AtomicU32);

impl Router for Fickle {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if let Some(Shard(other)) = request.hint() {
            return Route::to(if *other { "other" } else { "default" });
        }
        let turn = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Route::to(if turn.is_multiple_of(2) { "default" } else { "other" })
    }
}

#[test]
fn a_route_that_changes_within_a_transaction_is_an_error_unless_its_hints_do() {
    let Some(fixture) = fixture() else { return };
    let databases = built(&fixture, Fickle(std::sync::atomic::AtomicU32::new(0)));
    multidb::schema::install(&databases).unwrap();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        let error = put(1, 10).unwrap_err();
        assert!(
            matches!(&error, Error::RouteChanged { was, now, .. } if *was == "default" && *now == "other"),
            "{error}"
        );
        assert!(error.to_string().contains("model `Item`") && error.is_config(), "{error}");
        // The next answer is the first one again, and nothing was lost.
        put(2, 20)?;
        assert!(matches!(connection::<Item, H>(), Err(Error::RouteChanged { .. })));
        // Other hints are another question; equal ones in another block are too.
        with_hint(Shard(false), || put(3, 30))?;
        let other = with_hint(Shard(true), || put(4, 40));
        let one_file = super::KIND == crate::fixture::Kind::Sqlite;
        assert_eq!(
            matches!(other, Err(Error::NotAtomic { .. })),
            one_file,
            "another shard is another branch: {other:?}"
        );
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20), (3, 30)]);
    assert_eq!(fixture.rows("other").len(), usize::from(super::KIND != crate::fixture::Kind::Sqlite));
}

#[test]
fn an_independent_transaction_in_detached_work_never_waits_for_ever_for_its_own_thread() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    if super::KIND == crate::fixture::Kind::Mysql {
        // It has a limit of its own, of 50 s.
        return;
    }
    let run = atomic::<Item>().run(|conn: &mut H| {
        diesel::update(items::table.find(1)).set(items::value.eq(11)).execute(conn)?;
        let blocked = detached(|| {
            atomic::<Item>().run(|conn: &mut H| {
                diesel::update(items::table.find(1)).set(items::value.eq(12)).execute(conn).map_err(Error::from)
            })
        });
        assert!(blocked.is_err(), "{blocked:?}");
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 11)]);
}

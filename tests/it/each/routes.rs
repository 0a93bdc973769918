//! The route is asked at each call, and its errors name what is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::prelude::*;
use multidb::{
    Access, Databases, Error, Model, Route, RouteRequest, Router, atomic, atomic_app, atomic_on, connection,
    connection_on, transactional, with_hint, with_routes,
};

use super::*;
use crate::fixture::Kind;

#[test]
fn an_unknown_alias_is_an_error_that_names_the_router_and_what_was_meant() {
    struct Typo;
    impl Router for Typo {
        fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
            Route::to("defualt")
        }
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases().with_router(Typo);
    let _entered = databases.enter();
    for error in [put(1, 10).unwrap_err(), connection::<Item, H>().unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, Error::UnknownDatabase { alias, .. } if alias == "defualt"), "{text}");
        for named in ["`Item`", "app `shop`", "Typo", "did you mean `default`"] {
            assert!(text.contains(named), "{named} is missing in: {text}");
        }
    }
    let by_name = connection_on::<H>("nowhere").unwrap_err();
    assert!(matches!(by_name, Error::UnknownDatabase { .. }));
    let by_name = atomic_on("nowhere").run(|_: &mut H| Ok::<_, Error>(())).unwrap_err();
    assert!(by_name.to_string().contains("`nowhere`"), "{by_name}");
    let registered = fixture.builder(1).router(Typo).models::<(Item, Record)>().build().unwrap_err();
    assert!(matches!(registered, Error::UnknownDatabase { .. }), "found at the start: {registered}");
}

#[test]
fn a_refusal_is_an_error_with_the_routers_reason() {
    struct NeedsKey;
    impl Router for NeedsKey {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            match request.hint::<i64>() {
                Some(0) => Route::to("default"),
                Some(_) => Route::to("other"),
                None => Route::refuse("the key of the shard is missing"),
            }
        }
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().with_router(NeedsKey).enter();
    let text = put(1, 10).unwrap_err().to_string();
    for named in ["the key of the shard is missing", "NeedsKey", "`Item`"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
    with_hint(0_i64, || put(1, 10)).unwrap();
    with_hint(0_i64, || with_hint(7_i64, || put(2, 20))).unwrap();
    assert!(put(3, 30).is_err(), "a hint ends with its block");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(2, 20)]));
}

#[test]
fn the_route_is_asked_at_each_call() {
    struct Moving(Arc<AtomicBool>);
    impl Router for Moving {
        fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
            Route::to(if self.0.load(Ordering::Relaxed) { "other" } else { "default" })
        }
    }
    let Some(fixture) = fixture() else { return };
    let moved = Arc::new(AtomicBool::new(false));
    let _entered = fixture.databases().with_router(Moving(Arc::clone(&moved))).enter();
    put(1, 10).unwrap();
    moved.store(true, Ordering::Relaxed);
    put(2, 20).unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(2, 20)]));
}

#[test]
fn the_first_opinion_of_the_chain_decides_and_a_preference_needs_its_database() {
    struct Prefer(&'static str);
    impl Router for Prefer {
        fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
            Route::prefer(self.0)
        }
    }
    let Some(fixture) = fixture() else { return };
    let build = |first, second| {
        let builder = Databases::builder().router(Prefer(first)).router(Prefer(second));
        let configs = ["default", "other"].iter().zip(&fixture.urls);
        configs.fold(builder, |builder, (alias, url)| builder.database(multidb::DatabaseConfig::new(*alias, url)))
    };
    let lives_on = |databases: &Databases| {
        let _entered = databases.enter();
        connection::<Item, H>().unwrap().alias().to_string()
    };
    assert_eq!(lives_on(&build("other", "default").build().unwrap()), "other");
    assert_eq!(lives_on(&build("absent", "other").build().unwrap()), "other");
    assert_eq!(lives_on(&build("absent", "absent too").build().unwrap()), "default");
}

#[test]
fn without_an_opinion_and_without_default_the_error_lists_the_routers() {
    let Some(fixture) = fixture() else { return };
    let only = Databases::builder().database(multidb::DatabaseConfig::new("orders", fixture.urls[0].clone()));
    let _entered = only.router(ByApp).build().unwrap().enter();
    let text = put(1, 10).unwrap_err().to_string();
    for named in ["`default`", "ByApp", "`Item`", "`orders`"] {
        assert!(text.contains(named), "{named} is missing in: {text}");
    }
}

#[test]
fn a_block_with_its_own_routes_is_asked_first_and_seen_by_its_thread_alone() {
    struct To(&'static str);
    impl Router for To {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            if request.app() == "shop" { Route::to(self.0) } else { Route::pass() }
        }
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    with_routes(To("other"), || {
        put(1, 10).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let _entered = databases.enter();
                put(2, 20).unwrap();
            });
        });
        with_routes(To("default"), || put(3, 30)).unwrap();
    });
    put(4, 40).unwrap();
    assert_eq!(fixture.rows("other"), [(1, 10)]);
    assert_eq!(fixture.rows("default"), [(2, 20), (3, 30), (4, 40)]);
}

#[test]
fn routers_are_told_what_is_asked() {
    struct Expect;
    impl Router for Expect {
        fn select_db(&self, request: &RouteRequest<'_>) -> Route {
            assert_eq!(request.access(), Access::Write);
            match request.model() {
                Some(model) => {
                    assert_eq!((model.name(), model.app(), model.table()), ("Item", "shop", "items"));
                    assert_eq!(request.app(), "shop");
                    assert!(request.module().unwrap().ends_with("::database"));
                    Route::to(if request.in_scope() { "default" } else { "other" })
                }
                None => match (request.app(), request.module()) {
                    ("billing", None) | ("stock", Some(_)) => Route::to("default"),
                    // The first module below the crate.
                    (app, Some(module)) => {
                        assert!(module.starts_with(&format!("it::{app}")), "{app} {module}");
                        Route::to("other")
                    }
                    (app, None) => panic!("asked for {app}"),
                },
            }
        }
    }
    #[transactional]
    fn bare(#[conn] conn: &mut H) -> Result<String, Error> {
        Ok(conn.alias().to_string())
    }
    #[transactional(app = "stock")]
    fn of_an_app(#[conn] conn: &mut H) -> Result<String, Error> {
        Ok(conn.alias().to_string())
    }
    #[transactional(using = "other")]
    fn by_name(#[conn] conn: &mut H) -> Result<String, Error> {
        Ok(conn.alias().to_string())
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().with_router(Expect).enter();
    assert_eq!(connection::<Item, H>().unwrap().alias(), &"other");
    assert_eq!(bare().unwrap(), "other");
    assert_eq!(of_an_app().unwrap(), "default");
    assert_eq!(by_name().unwrap(), "other");
    assert_eq!(atomic_app("billing").run(|conn: &mut H| Ok::<_, Error>(conn.alias().to_string())).unwrap(), "default");
    let inside = atomic_on("default").run(|_: &mut H| Ok::<_, Error>(connection::<Item, H>()?.alias().to_string()));
    assert_eq!(inside.unwrap(), "default");
    assert_eq!(<Item as Model>::TABLE, "items");
}

#[test]
fn without_installed_databases_a_call_says_what_to_write() {
    let text = put(1, 10).unwrap_err().to_string();
    assert!(text.contains("install()") && text.contains("enter()"), "{text}");
}

#[test]
fn nested_scopes_use_the_registry_of_the_open_transaction() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let elsewhere = fixture.databases().with_router(ToOther);
    let _entered = databases.enter();
    atomic::<Item>()
        .run(|_: &mut H| {
            let _entered = elsewhere.enter();
            put(1, 10)
        })
        .unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![]));
}

struct ToOther;

impl Router for ToOther {
    fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
        Route::to("other")
    }
}

#[test]
fn guards_of_entered_registries_may_end_in_any_order() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let entered = databases.enter();
    let inner = fixture.databases().with_router(ToOther).enter();
    drop(entered);
    put(1, 10).unwrap();
    drop(inner);
    assert!(put(2, 20).is_err());
    let held: i64 = items::table.count().get_result(&mut fixture.observer("other")).unwrap();
    assert_eq!(held, 1);
}

#[test]
fn a_scope_can_name_its_registry() {
    #[transactional(Item, databases = databases)]
    fn put_in(databases: &Databases, #[conn] conn: &mut H, id: i64) -> Result<(), Error> {
        diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
        Ok(())
    }
    let Some(fixture) = fixture() else { return };
    let (databases, elsewhere) = (fixture.databases(), fixture.databases().with_router(ToOther));
    put_in(&databases, 1).unwrap();
    put_in(&elsewhere, 2).unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 0)], vec![(2, 0)]));
    let nested = atomic::<Item>().databases(&databases).run(|_: &mut H| {
        put(3, 0)?;
        put_in(&databases, 4)?;
        let text = put_in(&elsewhere, 5).unwrap_err().to_string();
        assert!(text.contains("put_in") && text.contains("atomic") && text.contains("requires_new"), "{text}");
        Ok::<_, Error>(())
    });
    nested.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 0), (3, 0), (4, 0)]);
}

/// The key of a tenant decides; each has a database of its own.
struct ByTenant;

impl Router for ByTenant {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(if request.hint::<i64>() == Some(&7) { "other" } else { "default" })
    }
}

#[test]
fn another_tenants_hint_inside_a_scope_joins_or_is_refused_for_its_true_reason() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases().with_router(ByTenant);
    if KIND != Kind::Sqlite {
        multidb::schema::install(&databases).unwrap();
    }
    let _entered = databases.enter();
    let ways: [fn() -> Result<(), Error>; 3] = [
        || put(2, 20),
        || connection::<Item, H>().map(drop),
        || atomic::<Item>().propagation(multidb::Propagation::Join).run(|_: &mut H| Ok(())),
    ];
    for way in ways {
        let run = with_hint(5_i64, || {
            atomic::<Item>().run(|_: &mut H| {
                put(1, 10)?;
                let error = with_hint(7_i64, way).err();
                assert_eq!(error.is_some(), KIND == Kind::Sqlite, "{error:?}");
                if let Some(error) = error {
                    let text = error.to_string();
                    assert!(matches!(error, Error::NotAtomic { .. }) && !text.contains("list model"), "{text}");
                    let parts = ["hint", "model `Item`", "`default`", "`other`", "SQLite", "requires_new", "one hint"];
                    for part in parts {
                        assert!(text.contains(part), "{part} is missing in: {text}");
                    }
                }
                Err::<(), _>(Mishap::OnPurpose)
            })
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    }
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    // What the error recommends.
    let run = with_hint(5_i64, || {
        atomic::<Item>().run(|_: &mut H| {
            with_hint(7_i64, || {
                let apart = atomic::<Item>().propagation(multidb::Propagation::RequiresNew);
                apart.run(|_: &mut H| put(2, 20))
            })?;
            put(1, 10)
        })
    });
    run.unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 10)], vec![(2, 20)]));
}

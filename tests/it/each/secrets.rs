//! Nothing that a program prints or logs holds the password of a URL.
//!
//! The claims run in a process of their own: they need an environment with URLs in it, and a subscriber that also hears
//! the threads of the pools.

use std::fmt::{Debug, Display};
use std::process::Command;
use std::sync::{Arc, Mutex};

use diesel::connection::{Connection, Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, FileBasedMigrations, embed_migrations};
use multidb::{
    Access, AnyConn, DatabaseConfig, Databases, DatabasesBuilder, Error, Propagation, atomic, atomic_many, connection,
    connection_on,
};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::fixture::Kind;
use crate::journal::Journal;

/// Set in the process of its own: the URL that works.
const GOOD_URL: &str = "MULTIDB_TEST_SECRETS_URL";
/// What none of the texts may hold. The last is the password of the private servers and of the working URL.
const SECRETS: [&str; 5] = ["hunter", "h\u{e4}sch", "h%C3%A4sch", "zebra", "secret"];
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../tests/it/migrations");

#[test]
fn no_password_is_in_anything_that_is_shown_or_logged() {
    if let Ok(good) = std::env::var(GOOD_URL) {
        return tell_all(&good);
    }
    let Some(fixture) = fixture() else { return };
    let good = match KIND {
        Kind::Sqlite => format!("file:{}?password=secret", fixture.urls[0]),
        Kind::Postgres | Kind::Mysql => fixture.urls[0].clone(),
    };
    assert!(good.contains("secret"), "the test is for nothing");
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--nocapture", "--test-threads=1"]);
    child.arg(format!("{module}::no_password_is_in_anything_that_is_shown_or_logged"));
    child.env(GOOD_URL, &good).env("DATABASE_URL", &good);
    for (name, url) in bad_urls(&good) {
        child.env(format!("DATABASE_URL_{}", name.to_uppercase()), url);
    }
    let output = child.output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    assert!(told.contains("texts were looked at"), "{told}");
    look_through("what the process printed", &told);
}

/// URLs that lead nowhere, each with a password.
fn bad_urls(good: &str) -> Vec<(&'static str, String)> {
    if KIND == Kind::Sqlite {
        return vec![
            ("no_folder", "file:/nowhere/x.db?password=hunter".to_owned()),
            ("parameter", "/nowhere/x.db?mode=rw&KEY=hunter".to_owned()),
            ("like_a_server", "me:hunter@/nowhere/x.db".to_owned()),
            ("other_scheme", "sqlite:///nowhere/x.db?passphrase=h%C3%A4sch".to_owned()),
        ];
    }
    let (address, rest) = good.split_once('@').unwrap();
    let (scheme, _) = address.split_once("://").unwrap();
    let (host, _) = rest.split_once('/').unwrap();
    vec![
        ("wrong_password", format!("{scheme}://tester:hunter@{rest}")),
        ("encoded", format!("{scheme}://tester:h%C3%A4sch@{rest}")),
        ("badly_encoded", format!("{scheme}://tester:hunter%zz@{rest}")),
        ("wrong_user", format!("{scheme}://nobody:hunter@{rest}")),
        ("no_database", format!("{scheme}://tester:secret@{host}/nowhere")),
        ("wrong_port", format!("{scheme}://tester:hunter@127.0.0.1:1/test")),
        ("no_port", format!("{scheme}://tester:hunter@127.0.0.1:port/test")),
        ("no_host", format!("{scheme}://tester:hunter@nowhere.invalid/test")),
        ("parameter", format!("{scheme}://tester@127.0.0.1:1/test?password=hunter")),
        ("with_at", format!("{scheme}://tester:zebra@hunter@127.0.0.1/test")),
        ("with_slash", format!("{scheme}://tester:zebra/hunter@127.0.0.1/test")),
        ("with_question", format!("{scheme}://tester:zebra?hunter@127.0.0.1/test")),
        ("with_colon", format!("{scheme}://tester:zebra:hunter@127.0.0.1:1/test")),
    ]
}

#[track_caller]
fn look_through(what: &str, text: &str) {
    // The name of this file, which errors name.
    let text = text.replace("secrets", "..");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is shown by {what}: {text}");
    }
}

/// What was looked at.
#[derive(Default)]
struct Told(usize);

impl Told {
    #[track_caller]
    fn debug(&mut self, what: &str, told: &impl Debug) {
        look_through(what, &format!("{told:?} {told:#?}"));
        self.0 += 1;
    }

    #[track_caller]
    fn both(&mut self, what: &str, told: &(impl Debug + Display)) {
        self.debug(what, told);
        look_through(what, &told.to_string());
    }

    /// An error with all its causes.
    #[track_caller]
    fn error<T>(&mut self, what: &str, result: Result<T, Error>) -> Error {
        let Err(error) = result else { panic!("{what} is no error") };
        self.both(what, &error);
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = cause {
            self.both(what, &error);
            cause = error.source();
        }
        error
    }
}

fn tell_all(good: &str) {
    let journal = Journal::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(journal.clone())).unwrap();
    let mut told = Told::default();
    what_works(good, &mut told);
    what_is_out_of_reach(good, &mut told);
    what_is_misconfigured(good, &mut told);
    let (spans, events) = (journal.spans(), journal.events());
    assert!(spans.len() > 5, "{spans:?}");
    let unopened = events.iter().filter(|(text, _)| text == "a connection could not be opened");
    assert!(unopened.count() >= bad_urls(good).len(), "{events:?}");
    for span in &spans {
        told.debug("a span", span);
    }
    for event in &events {
        told.debug("an event", event);
    }
    println!("{} texts were looked at", told.0);
}

/// Writes down every event of a connection.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<Vec<String>>>);

impl Instrumentation for Everything {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

fn what_works(good: &str, told: &mut Told) {
    let mut config = DatabaseConfig::new("default", good);
    config.pool.max_size = Some(1);
    config.pool.connection_timeout = Some("2s".into());
    told.debug("the configuration", &config);
    let builder = Databases::builder().database(config).router(ByApp).models::<(Item,)>();
    told.debug("the builder", &builder);
    let databases = builder.build().unwrap();
    told.debug("the registry", &databases);
    told.debug("the database", databases.database("default").unwrap());
    told.debug("the pool", &databases.database("default").unwrap().pool_state());
    told.debug("the guard", &databases.enter());
    #[cfg(feature = "testing")]
    told.debug("a test's databases", &multidb::testing::rolled_back(&databases).unwrap());
    let _entered = databases.enter();
    told.both("the explanation", &databases.explain_route::<Item>(Access::Write));
    told.debug("the routes", &databases.explain_routes());
    told.both("the tables", &multidb::schema::install(&databases).unwrap());
    told.both("the migrations", &databases.migrate("library", MIGRATIONS).unwrap());
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("2026-01-02-000000_broken")).unwrap();
    std::fs::write(folder.path().join("2026-01-02-000000_broken/up.sql"), "CREATE TABLE;").unwrap();
    let broken = FileBasedMigrations::from_path(folder.path()).unwrap();
    told.error("a broken migration", databases.migrate("library", broken));

    let everything = Everything::default();
    let mut conn = connection::<Item, H>().unwrap();
    conn.set_instrumentation(everything.clone());
    told.debug("a handle", &conn);
    told.debug("any handle", &connection::<Item, AnyConn>().unwrap());
    conn.transaction(|conn| {
        diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(10))).execute(conn)
    })
    .unwrap();
    conn.with_raw(|raw| raw.batch_execute("SELECT 1").map_err(Error::from)).unwrap();
    told.error("a statement", conn.batch_execute("SELECT * FROM nowhere").map_err(Error::from));
    told.error("a constraint", put(1, 10));
    let events = std::mem::take(&mut *everything.0.lock().unwrap());
    assert!(!events.is_empty());
    told.debug("the connection's events", &events);

    let doomed = atomic::<Item>().label("nightly").run(|conn: &mut H| {
        told.debug("a handle of a scope", conn);
        items::table.count().get_result::<i64>(conn)?;
        told.error("no second connection", connection_apart());
        conn.batch_execute("SELECT * FROM nowhere").unwrap_err();
        Ok::<_, Error>(())
    });
    told.error("a doomed scope", doomed);
    let many = atomic_many::<(Item,)>().run(|scope| {
        told.debug("a scope of several models", scope);
        Ok::<_, Error>(())
    });
    many.unwrap();
    told.error("an unknown alias", connection_on::<H>("nowhere"));
}

/// Fails: the pool has one connection, and the scope around has it.
fn connection_apart() -> Result<(), Error> {
    let scope = atomic::<Item>().propagation(Propagation::RequiresNew);
    scope.run(|conn: &mut H| Ok(items::table.count().get_result::<i64>(conn).map(drop)?))
}

fn what_is_out_of_reach(good: &str, told: &mut Told) {
    let urls = bad_urls(good);
    // The environment has the same URLs.
    let environment = Databases::from_env().unwrap();
    told.debug("the builder of the environment", &environment);
    let lazy = environment.build_lazy().unwrap();
    told.debug("the registry of the environment", &lazy);
    assert_eq!(lazy.iter().count(), urls.len() + 1);

    let folder = tempfile::tempdir().unwrap();
    for (name, url) in &urls {
        let name = *name;
        told.error(name, Databases::builder().database(DatabaseConfig::new(name, url.clone())).build());
        told.error(name, of_kind(name, url).build());
        let text = format!("[default]\nurl = '{url}'\npool.connection_timeout = '300ms'\npool.max_size = 1\n");
        let builder = Databases::from_toml(&text).unwrap();
        told.debug(name, &builder);
        told.error(name, builder.build());
        let file = folder.path().join("databases.toml");
        std::fs::write(&file, text.replace("default", name)).unwrap();
        told.error(name, Databases::from_config(&file).unwrap().build());

        let databases = Databases::from_toml(&text).unwrap().build_lazy().unwrap();
        let _entered = databases.enter();
        told.debug(name, &databases);
        told.error(name, multidb::schema::install(&databases));
        told.error(name, databases.migrate("library", MIGRATIONS));
        told.error(name, put(1, 10));
        let mut conn = connection::<Item, H>().unwrap();
        told.debug(name, &conn);
        told.error(name, items::table.count().get_result::<i64>(&mut conn).map_err(Error::from));
        told.error(name, conn.with_raw(|_| Ok::<_, Error>(())));
    }
}

fn of_kind(alias: &'static str, url: &str) -> DatabasesBuilder {
    match KIND {
        Kind::Sqlite => Databases::builder().sqlite(alias, url),
        Kind::Postgres => Databases::builder().postgres(alias, url),
        Kind::Mysql => Databases::builder().mysql(alias, url),
    }
}

fn what_is_misconfigured(good: &str, told: &mut Told) {
    let (_, url) = bad_urls(good).remove(0);
    for text in [
        format!("[a]\nurl = {url}\n"),
        format!("[a]\nurl = '{url}\n"),
        format!("[a]\nurl = '{url}' oops\n"),
        format!("[a]\nurl = '{url}'\nurl = '{url}'\n"),
        format!("[a]\nurl = ['{url}']\n"),
        format!("[a]\nurll = '{url}'\n"),
        format!("[a]\n'{url}' = 1\n"),
        format!("[a]\npool = '{url}'\n"),
        format!("[a]\npool.max_size = '{url}'\n"),
        format!("[a]\nprepare_repeated = '{url}'\n"),
        format!("[a]\nurl = 'a.db'\npool.idle_timeout = '{url}'\n"),
        format!("[a]\nurl = 'a.db'\nsqlite.journal_mode = '{url}'\n"),
        "[a]\nurl = 'mysql:me:hunter@h/d'\n".to_owned(),
        "[a]\nurl = 'postgres:/me:hunter@h/d'\n".to_owned(),
        "[a]\nurl = 'oracle://me:hunter@h/d'\n".to_owned(),
        format!("['{url}']\nurl = 'a.db'\n"),
        format!("['{url}']\nurll = 'a.db'\n"),
        format!("['{url}']\n"),
        format!("a = '{url}'\n"),
        format!("'{url}' = 'a'\n"),
        "[a]\nurl = 'host=127.0.0.1 password=hunter'\nsqlite.busy_timeout = '?'\n".to_owned(),
    ] {
        let built = Databases::from_toml(&text).and_then(|builder| {
            told.debug("a builder", &builder);
            builder.build()
        });
        told.error("a wrong file", built);
    }
    told.error("a URL in place of a path", Databases::from_config(&url));
    let swapped = of_kind("a", "b").database(DatabaseConfig::new(url.clone(), "a.db"));
    told.debug("swapped arguments", &swapped);
    told.error("swapped arguments", swapped.build());
    let wrong = match KIND {
        Kind::Sqlite => Databases::builder().postgres("a", &url),
        Kind::Postgres | Kind::Mysql => Databases::builder().sqlite("a", &url),
    };
    told.debug("another backend", &wrong);
    told.error("another backend", wrong.build());
}

#[test]
fn postgres_words_in_place_of_a_url_show_no_password_either() {
    if KIND != Kind::Postgres {
        return;
    }
    let mut told = Told::default();
    for words in [
        "host=127.0.0.1 port=1 user=me password=hunter",
        "host=127.0.0.1 port=1 password='hunter zebra'",
        "host=127.0.0.1 password=hunter zebra",
        "host=127.0.0.1 port=1 password=hunter nonsense=1",
    ] {
        let builder = Databases::builder().postgres("default", words);
        told.debug("the builder", &builder);
        let error = told.error(words, builder.build());
        assert!(matches!(error, Error::Pool { .. }), "{error}");
    }
}

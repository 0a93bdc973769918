//! A variable that nothing else knows becomes neither a database nor a file. Each claim runs in a process of its own, which
//! has the variables.

use std::path::Path;
use std::process::Command;

use diesel::prelude::*;
use multidb::prelude::*;
use multidb::{Error, Route, RouteRequest, Router};

/// Set in the process of its own.
const CHILD: &str = "MULTIDB_TEST_VARIABLES_CHILD";

#[derive(multidb::Model)]
#[model(app = "orders", table = "orders")]
struct Order;

/// Each application has its own database, where one is configured.
struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::prefer(request.app().to_owned())
    }
}

/// Runs `claim` with these variables in a process of its own, in an empty folder.
fn with_variables(test: &str, variables: &[(&str, &str)], claim: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|child| *child == *test) {
        return claim();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("databases.toml"), "[default]\nurl = 'default.db'\n[books]\nurl = 'books.db'\n")
        .unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("variables::{test}")]).current_dir(folder.path());
    let output = child.env_remove("DATABASE_URL").env(CHILD, test).envs(variables.iter().copied()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[track_caller]
fn refused(built: Result<Databases, Error>, parts: &[&str]) {
    let error = built.unwrap_err();
    for part in parts {
        assert!(error.is_config() && error.to_string().contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn a_misspelt_variable_beside_a_file_is_an_error_that_says_what_was_meant() {
    let test = "a_misspelt_variable_beside_a_file_is_an_error_that_says_what_was_meant";
    with_variables(test, &[("DATABASE_URL_BOKS", "new.db")], || {
        let built = Databases::from_config("databases.toml").unwrap().router(ByApp).models::<(Order,)>().build();
        refused(built, &["`boks`", "`DATABASE_URL_BOKS`", "did you mean `DATABASE_URL_BOOKS`", "`[boks]`"]);
        assert!(!Path::new("new.db").exists() && !Path::new("default.db").exists());
    });
}

#[test]
fn a_stray_variable_beside_a_file_is_an_error_until_the_file_declares_it() {
    let test = "a_stray_variable_beside_a_file_is_an_error_until_the_file_declares_it";
    with_variables(test, &[("MULTIDB_DATABASES__AUDIT__URL", "new.db")], || {
        let built = Databases::from_config("databases.toml").unwrap().build();
        refused(built, &["`audit`", "`MULTIDB_DATABASES__AUDIT__URL`", "unset the variable"]);
        assert!(!Path::new("new.db").exists());
        let file = std::fs::read_to_string("databases.toml").unwrap();
        std::fs::write("databases.toml", file + "[audit]\n").unwrap();
        Databases::from_config("databases.toml").unwrap().build().unwrap();
        assert!(Path::new("new.db").exists());
    });
}

#[test]
fn a_variable_gives_an_application_a_database_of_its_own() {
    let test = "a_variable_gives_an_application_a_database_of_its_own";
    with_variables(test, &[("DATABASE_URL_ORDERS", "new.db")], || {
        let builder = Databases::from_config("databases.toml").unwrap();
        builder.router(ByApp).models::<(Order,)>().build().unwrap();
        assert!(Path::new("new.db").exists());
    });
}

#[test]
fn a_file_that_a_variable_alone_names_must_be_there_or_be_asked_for() {
    let test = "a_file_that_a_variable_alone_names_must_be_there_or_be_asked_for";
    let variables = [
        ("DATABASE_URL", "there.db"),
        ("DATABASE_URL_ORDERS", "orders.db"),
        ("DATABASE_URL_ORDRS", "new.db"),
        ("DATABASE_URL_ASKED", "sqlite:asked.db?mode=rwc"),
    ];
    with_variables(test, &variables, || {
        std::fs::write("there.db", "").unwrap();
        let build = || Databases::from_env().unwrap().router(ByApp).models::<(Order,)>();
        refused(build().build(), &["`ordrs`", "`DATABASE_URL_ORDRS`", "mode=rwc"]);
        assert!(!Path::new("new.db").exists());
        let lazy = build().build_lazy().unwrap();
        let _entered = lazy.enter();
        let mut conn = multidb::connection_on::<SqliteConn>("asked").unwrap();
        conn.batch_execute("CREATE TABLE t (id INTEGER)").unwrap();
        assert!(Path::new("asked.db").exists());
        std::fs::write("new.db", "").unwrap();
        build().build().unwrap();
        assert!(Path::new("orders.db").exists(), "a model is routed there");
        std::fs::remove_file("new.db").unwrap();
        let error = diesel::sql_query("SELECT 1").execute(&mut multidb::connection_on::<SqliteConn>("ordrs").unwrap());
        let error = Error::from(error.unwrap_err()).to_string();
        assert!(error.contains("`DATABASE_URL_ORDRS`") && !Path::new("new.db").exists(), "{error}");
    });
}

#[test]
fn a_line_break_at_the_end_of_a_variable_is_no_part_of_the_file_name() {
    let test = "a_line_break_at_the_end_of_a_variable_is_no_part_of_the_file_name";
    with_variables(test, &[("DATABASE_URL", "there.db\n"), ("DATABASE_URL_ORDERS", " orders.db\r\n")], || {
        std::fs::write("there.db", "").unwrap();
        Databases::from_env().unwrap().router(ByApp).models::<(Order,)>().build().unwrap();
        assert!(Path::new("orders.db").exists());
    });
}

#[test]
fn a_variable_of_blanks_alone_is_refused_as_empty() {
    let test = "a_variable_of_blanks_alone_is_refused_as_empty";
    with_variables(test, &[("DATABASE_URL", " \n")], || {
        refused(
            Databases::from_env().and_then(multidb::DatabasesBuilder::build),
            &["`default`", "key `url`", "is empty"],
        );
    });
}

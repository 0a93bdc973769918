//! What `check` finds before the start, and how it is mended.

use multidb::{DatabaseConfig, Databases, schema};

use super::{change, run, says};
use crate::child::transfer;
use crate::matrix::check;
use crate::places::{Kind, Places, builder_of};

use Kind::{MariaDb, Postgres};

/// What the check says of one database.
fn finding(config: DatabaseConfig) -> String {
    let databases = Databases::builder().database(config).build().unwrap();
    databases.check().to_string()
}

#[test]
fn what_the_check_finds_stands_in_the_runbook_and_is_mended_as_it_says() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    assert!(places.databases().check().is_ok(), "{}", places.databases().check());
    let mut config = DatabaseConfig::new("orders", places.urls[0].clone());
    config.pool.max_size = Some(1_000);
    says(&finding(config), "`max_prepared_transactions`");

    let role = format!("poor_{}", places.meta(0, "database_id").to_lowercase());
    places.execute(0, &format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"));
    let (_, place) = places.urls[0].split_once('@').unwrap();
    let poor = DatabaseConfig::new("orders", format!("postgres://{role}:x@{place}"));
    let found = finding(poor.clone());
    assert!(found.contains("`multidb_decision` is not granted"), "{found}");
    run(&places, 0, "check-grants", &[("role", &role)]);
    run(&places, 0, "check-language", &[("role", &role)]);
    assert_eq!(finding(poor), "all databases are set up for transactions over several");
    places.execute(0, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));

    places.execute(1, "CREATE TABLE loose (id INT) ENGINE = MyISAM");
    let found = places.databases().check().to_string();
    assert!(found.contains("`table loose` is in the engine MyISAM"), "{found}");
    change(&places, 1, "check-engine", &[("table", "loose")]);
    assert!(places.databases().check().is_ok());
}

#[test]
fn a_table_that_is_missing_is_found_before_the_start_and_made_as_the_runbook_says() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    let databases = places.databases();
    let _entered = databases.enter();
    for (at, table) in [(0, "multidb_decision"), (1, "multidb_receipt")] {
        places.execute(at, &format!("DROP TABLE {table}"));
        let missing = "is missing, and should be made by `multidb::schema::install(&databases)`";
        says(&databases.check(), missing);
        // Its migration has run once, and Diesel runs none twice.
        says(&schema::install(&databases).unwrap(), "up to date");
        assert!(databases.check().to_string().contains(&format!("`{table}` {missing}")));
        run(&places, at, "tables-again", &[("table", table)]);
        schema::install(&databases).unwrap();
        assert!(databases.check().is_ok(), "{}", databases.check());
    }
    places.execute(1, "DELETE FROM multidb_meta");
    says(&databases.check(), "`multidb_meta` is without its row");
    schema::install(&databases).unwrap();
    assert!(databases.check().is_ok(), "{}", databases.check());
    transfer(1, 1, 1, None).unwrap();
    assert_eq!(check(&places, "all is there"), [1]);
}

#[test]
fn a_user_of_mariadb_that_may_not_read_the_tables_is_told_the_servers_words_and_granted_it() {
    let Some(places) = Places::new(&[Postgres, MariaDb]) else { return };
    let user = format!("poor_{}", places.meta(1, "database_id").to_lowercase());
    let (_, place) = places.urls[1].split_once('@').unwrap();
    let database = place.split_once('/').unwrap().1;
    places.execute(1, &format!("CREATE USER {user} IDENTIFIED BY 'x'; GRANT CREATE VIEW ON {database}.* TO {user}"));
    let poor = format!("mysql://{user}:x@{place}");
    let databases = builder_of([(0, &*places.urls[0]), (1, &*poor)].into_iter()).build().unwrap();
    says(&databases.check(), "is refused (");
    run(&places, 1, "check-grants-mariadb", &[("database", database), ("user", &user)]);
    assert!(databases.check().is_ok(), "{}", databases.check());
    drop(databases);
    places.execute(1, &format!("DROP USER {user}"));
}

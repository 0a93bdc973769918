//! What `check` finds before the start, and how it is mended.

use multidb::{DatabaseConfig, Databases};

use super::{change, run, says};
use crate::places::{Kind, Places};

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

//! What names a server reaches that server, and never becomes a file.

use multidb::Databases;
#[cfg(feature = "postgres")]
use multidb::{DatabaseConfig, Error};

#[cfg(feature = "postgres")]
use diesel::connection::SimpleConnection as _;

#[cfg(feature = "postgres")]
use crate::postgres::{fixture, in_use, put};

/// The words of libpq for a URL of the tests, with this schema.
#[cfg(feature = "postgres")]
fn words(url: &str) -> String {
    let (address, _) = url.split_once('?').unwrap();
    let (user, place) = address.split_once("://").unwrap().1.split_once('@').unwrap();
    let ((user, password), (host, database)) = (user.split_once(':').unwrap(), place.split_once('/').unwrap());
    let (host, port) = host.split_once(':').unwrap();
    let schema = url.split_once("application_name=").unwrap().1;
    format!(
        "host = {host} port={port} user={user} password='{password}' dbname={database} options='-c search_path={schema}' \
         application_name={schema}"
    )
}

#[cfg(feature = "postgres")]
#[test]
fn the_words_of_libpq_lead_to_a_postgresql() {
    let Some(fixture) = fixture() else { return };
    let words = words(&fixture.urls[0]);
    let turned = words.split(' ').rev().filter(|word| word.starts_with("user") || word.starts_with("port"));
    let turned = format!("{} {words}", turned.collect::<Vec<_>>().join(" "));
    let toml = format!("[default]\nurl = \"\"\"{words}\n\"\"\"\n[other]\nurl = \"{turned}\"\n");
    let databases = Databases::from_toml(&toml).unwrap().build().unwrap();
    assert_eq!(databases.database("default").unwrap().backend(), "PostgreSQL");
    assert!(!format!("{databases:?}").contains("secret"));
    let _entered = databases.enter();
    let run = multidb::atomic_on("other").run(|_: &mut multidb::PgConn| {
        put(1, 10)?;
        // Both are one database, so that both scopes have one connection.
        assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 1));
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    let wrong = words.replace("secret", "hunter2");
    let error = Databases::builder().database(DatabaseConfig::new("default", wrong)).build().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[cfg(feature = "postgres")]
#[test]
fn a_question_mark_in_a_password_reaches_postgresql() {
    let Some(fixture) = fixture() else { return };
    let role = crate::fixture::fresh_name();
    let sql = format!("CREATE ROLE {role} LOGIN PASSWORD 'a?b'");
    fixture.observer("default").batch_execute(&sql).unwrap();
    let url = fixture.urls[0].replace("tester:secret@", &format!("{role}:a?b@"));
    let built = Databases::builder().postgres("default", url).build();
    fixture.observer("default").batch_execute(&format!("DROP ROLE {role}")).unwrap();
    built.unwrap();
}

#[test]
fn what_is_meant_for_a_server_makes_no_file() {
    for url in [
        "jdbc:postgresql://h/d?user=me&password=hunter2",
        "\"postgres://me:hunter2@h/d\"",
        "postgresql+psycopg2://me:hunter2@h/d",
        "Server=h;User=me;Password=hunter2",
        "usr=me password=hunter2 host=h",
        "me:hunter2@h/d",
    ] {
        let toml = format!("[default]\nurl = '{url}'\n");
        let error = Databases::from_toml(&toml).unwrap().build().expect_err(url);
        assert!(error.is_config() && !format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        assert!(!std::path::Path::new(url).exists(), "{url}");
    }
}

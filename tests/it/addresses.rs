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

#[test]
fn a_url_in_the_form_of_another_library_is_refused_with_its_key_and_what_to_write() {
    for (url, known, write) in [
        ("jdbc:postgresql://db/bank", "`jdbc:`", "`postgres://user:password@host/database`"),
        ("jdbc:mysql://db/bank", "`jdbc:`", "`mysql://user:password@host/database`"),
        ("jdbc:sqlite:/tmp/bank.db", "`jdbc:`", "`sqlite:path` or the path alone"),
        ("r2dbc:mariadb://db/bank", "`r2dbc:`", "`mysql://user:password@host/database`"),
        ("postgresql+psycopg2://db/bank", "`postgresql+psycopg2:`", "`postgres://user:password@host/database`"),
        ("mysql+pymysql://db/bank", "`mysql+pymysql:`", "`mysql://user:password@host/database`"),
        ("mysql2://db/bank", "`mysql2:`", "`mysql://user:password@host/database`"),
        ("pgsql:host=db;dbname=bank", "`pgsql:`", "`postgres://user:password@host/database`"),
        ("postgis://db/bank", "`postgis:`", "`postgres://user:password@host/database`"),
        ("sqlite+aiosqlite:///bank.db", "`sqlite+aiosqlite:`", "`sqlite:path` or the path alone"),
        ("sqlite3:bank.db", "`sqlite3:`", "`sqlite:path` or the path alone"),
        ("sqlserver://db/bank", "`sqlserver:`", "PostgreSQL, MySQL, MariaDB and SQLite"),
        ("oracle://db/bank", "`oracle:`", "PostgreSQL, MySQL, MariaDB and SQLite"),
    ] {
        let toml = Databases::from_toml(&format!("[default]\nurl = '{url}'\n")).unwrap().build_lazy().expect_err(url);
        let called = Databases::builder().postgres("default", url).build_lazy().expect_err(url);
        for error in [toml, called] {
            let text = error.to_string();
            for part in ["database `default`", "key `url`", known, write] {
                assert!(error.is_config() && text.contains(part), "{part} is missing for {url}: {text}");
            }
        }
    }
}

#[test]
fn a_url_of_blanks_alone_is_empty_and_no_database_in_memory() {
    for url in ["", " ", "\n", " \t\r\n"] {
        let toml = format!("[default]\nurl = \"\"\"{url}\"\"\"\n");
        // TOML takes a line break right behind the quotes away.
        let errors = [
            Databases::from_toml(&toml).unwrap().build_lazy().expect_err(url),
            Databases::builder().sqlite("default", url).build_lazy().expect_err(url),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("key `url`") && text.contains("is empty"), "{text}");
        }
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn blanks_around_a_path_are_no_part_of_the_file_name() {
    let folder = tempfile::tempdir().unwrap();
    for (url, name) in [("a.db\n", "a.db"), (" b.db\r\n", "b.db"), ("sqlite:c.db ", "c.db")] {
        let (scheme, path) = url.trim_start().split_once(':').unwrap_or(("", url.trim_start()));
        let colon = if scheme.is_empty() { "" } else { ":" };
        let url = format!(" {scheme}{colon}{}/{path}", folder.path().display());
        Databases::builder().sqlite("default", url).build().unwrap();
        let found: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(found.iter().any(|file| file == name), "{found:?}");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn blanks_around_the_url_of_a_server_are_no_part_of_its_database_name() {
    let Some(fixture) = fixture() else { return };
    // Without parameters, so that the line break would stand in the name of the database.
    let bare = fixture.urls[0].split_once('?').unwrap().0;
    for url in [format!("{bare}\n"), format!("\t {bare} \r\n")] {
        Databases::builder().postgres("default", &url).build().unwrap();
        let toml = format!("[default]\nurl = \"\"\"\n{url}\"\"\"\n");
        Databases::from_toml(&toml).unwrap().build().unwrap();
    }
}

//! Database URLs: which backend they name, and how they are printed.

use super::database::Kind;

/// The backend that a URL or a path names. A text without a scheme is the path of a SQLite file.
pub(crate) fn kind_of(url: &str) -> Result<Kind, String> {
    let Some((scheme, _)) = url.split_once(':') else {
        return Ok(Kind::Sqlite);
    };
    match scheme {
        "postgres" | "postgresql" => Ok(Kind::Postgres),
        "mysql" | "mariadb" => Ok(Kind::Mysql),
        "sqlite" | "file" | "" => Ok(Kind::Sqlite),
        scheme if scheme.len() > 1 && url[scheme.len()..].starts_with("://") => Err(scheme.to_owned()),
        _ => Ok(Kind::Sqlite),
    }
}

/// The URL in the form that Diesel's driver takes.
pub(crate) fn for_driver(kind: Kind, url: &str) -> String {
    match kind {
        Kind::Sqlite => url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url).to_owned(),
        Kind::Mysql => match url.strip_prefix("mariadb://") {
            Some(rest) => format!("mysql://{rest}"),
            None => url.to_owned(),
        },
        Kind::Postgres => url.to_owned(),
    }
}

/// Whether every connection to it would see a database of its own.
pub(crate) fn is_private_memory(kind: Kind, url: &str) -> bool {
    kind == Kind::Sqlite
        && (url.is_empty() || url == ":memory:" || (url.contains(":memory:") && !url.contains("cache=shared")))
}

/// The URL with its password masked.
pub(crate) fn mask(url: &str) -> String {
    let mut masked = url.to_owned();
    for secret in secrets(url) {
        masked = masked.replace(secret, "***");
    }
    masked
}

/// A text that may quote the URL or its password, with both masked.
pub(crate) fn mask_in(text: &str, url: &str) -> String {
    let mut masked = text.replace(url, &mask(url));
    for secret in secrets(url) {
        masked = masked.replace(secret, "***");
    }
    masked
}

/// The passwords in a URL: the one before the `@`, and those among the parameters.
fn secrets(url: &str) -> impl Iterator<Item = &str> {
    // Up to the last `@`, in case a password holds a `/` that nobody has escaped.
    let address = url.split_once("://").map_or("", |(_, rest)| rest);
    let address = address.split_once('?').map_or(address, |(address, _)| address);
    let before_host = address.rsplit_once('@').map_or("", |(user, _)| user);
    let password = before_host.split_once(':').map(|(_, password)| password);
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let named = parameters.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name.contains("password") || name.contains("passphrase")).then_some(value)
    });
    password.into_iter().chain(named).filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_a_url_carries_them() {
        assert_eq!(mask("postgres://me:s3cret@host/db"), "postgres://me:***@host/db");
        assert_eq!(mask("postgres://host/db?user=me&password=s3cret"), "postgres://host/db?user=me&password=***");
        assert_eq!(mask("postgres://me@host/db"), "postgres://me@host/db");
        assert_eq!(mask("bank.db"), "bank.db");
        assert_eq!(mask("mysql://me:p:w/d@host/db"), "mysql://me:***@host/db");
        assert_eq!(mask_in("no: mysql://me:pw9@h/d; pw9", "mysql://me:pw9@h/d"), "no: mysql://me:***@h/d; ***");
    }

    #[test]
    fn a_backend_is_known_by_the_scheme_and_a_bare_path_is_sqlite() {
        assert_eq!(kind_of("postgresql://h/d"), Ok(Kind::Postgres));
        assert_eq!(kind_of("mariadb://h/d"), Ok(Kind::Mysql));
        for sqlite in ["bank.db", ":memory:", "file:x?mode=ro", "sqlite:///tmp/x.db", "C:\\data\\x.db", "a:b"] {
            assert_eq!(kind_of(sqlite), Ok(Kind::Sqlite), "{sqlite}");
        }
        assert_eq!(kind_of("oracle://h/d"), Err("oracle".to_owned()));
    }

    #[test]
    fn sqlite_urls_become_paths() {
        assert_eq!(for_driver(Kind::Sqlite, "sqlite:///tmp/x.db"), "/tmp/x.db");
        assert_eq!(for_driver(Kind::Sqlite, "sqlite://x.db"), "x.db");
        assert_eq!(for_driver(Kind::Sqlite, "sqlite::memory:"), ":memory:");
        assert_eq!(for_driver(Kind::Mysql, "mariadb://h/d"), "mysql://h/d");
    }
}

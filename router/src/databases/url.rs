//! Database URLs: which backend they name, and how they are printed.

use std::ops::Range;

use super::conninfo;
use super::database::Kind;

/// The backend that a URL or a path names, or what is wrong with it. A text without a scheme is the path of a SQLite file,
/// unless it is one of PostgreSQL's lists of words. What is meant for a server must not become a file with a password in its
/// name.
pub(crate) fn kind_of(url: &str) -> Result<Kind, String> {
    let url = url.trim();
    if conninfo::is_conninfo(url) {
        return Ok(Kind::Postgres);
    }
    if let Some((scheme, rest)) = scheme(url) {
        let kind = match &*scheme {
            "postgres" | "postgresql" => Kind::Postgres,
            "mysql" | "mariadb" => Kind::Mysql,
            "sqlite" | "file" => return Ok(Kind::Sqlite),
            // Windows.
            drive if drive.len() == 1 => return Ok(Kind::Sqlite),
            "jdbc" | "r2dbc" => {
                return Err(format!("`{scheme}:` is Java's, and user and password stand elsewhere there"));
            }
            other if known_as(other).is_some() => return Err(format!("`{other}:` is a scheme of other libraries")),
            other if rest.contains("://") || rest.starts_with("//") => {
                return Err(format!("`{other}:` is no scheme that is known"));
            }
            _ => return path(url),
        };
        // MySQL's driver finds no host in it, and connects to the server of this machine.
        let server = rest.starts_with("//");
        return if server { Ok(kind) } else { Err(format!("`{scheme}:` is not followed by `//`")) };
    }
    if url.contains("://") {
        return Err("what stands before its `://` is no scheme".into());
    }
    path(url)
}

/// Schemes under which other libraries know a database, and its kind.
const ELSEWHERE: &[(&str, Kind)] = &[
    ("pg", Kind::Postgres),
    ("pgsql", Kind::Postgres),
    ("psql", Kind::Postgres),
    ("postgis", Kind::Postgres),
    ("mysql2", Kind::Mysql),
    ("mysqli", Kind::Mysql),
    ("mysqlx", Kind::Mysql),
    ("sqlite3", Kind::Sqlite),
    ("libsql", Kind::Sqlite),
];

/// The database that is meant by a scheme of other libraries, the driver's name behind a `+` included.
fn known_as(scheme: &str) -> Option<Kind> {
    let (base, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
    let own = match base {
        "postgres" | "postgresql" => Some(Kind::Postgres),
        "mysql" | "mariadb" => Some(Kind::Mysql),
        "sqlite" => Some(Kind::Sqlite),
        _ => None,
    };
    let elsewhere = ELSEWHERE.iter().find(|(known, _)| *known == base).map(|(_, kind)| *kind);
    elsewhere.or_else(|| own.filter(|_| !driver.is_empty()))
}

/// What to write in place of a URL that [`kind_of`] refuses.
pub(crate) fn instead_of(url: &str) -> String {
    let named = |url: &str| {
        let (scheme, _) = scheme(url)?;
        known_as(&scheme).or_else(|| kind_of(&format!("{scheme}://")).ok())
    };
    let url = url.trim();
    let meant = match scheme(url) {
        Some((java, rest)) if java == "jdbc" || java == "r2dbc" => named(rest),
        _ => named(url),
    };
    let written = match meant {
        Some(Kind::Postgres) => "write `postgres://user:password@host/database`",
        Some(Kind::Mysql) => "write `mysql://user:password@host/database`",
        Some(Kind::Sqlite) => "write `sqlite:path` or the path alone",
        None => {
            "write `postgres://user:password@host/database`, `mysql://..` or the path of a SQLite file; PostgreSQL, MySQL, \
             MariaDB and SQLite are known"
        }
    };
    written.to_owned()
}

/// The scheme in lower case, and what follows its colon.
fn scheme(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// SQLite, unless the path holds a password.
fn path(path: &str) -> Result<Kind, String> {
    let (before, _) = path.split_once('?').unwrap_or((path, ""));
    let mut words = before.split([';', '&', ' ', '\t', '\n']).filter_map(|word| word.split_once('='));
    if words.any(|(name, _)| is_secret(name.trim())) {
        return Err("it has a password in it, and is neither a URL nor one of libpq's lists of words".into());
    }
    let words = conninfo::words(before).unwrap_or_default();
    if words.len() > 1
        && let Some(unknown) = words.iter().find(|word| !conninfo::is_keyword(&before[word.name.clone()]))
        && words.iter().any(|word| conninfo::is_keyword(&before[word.name.clone()]))
    {
        return Err(format!(
            "it is one of libpq's lists of words, and `{}` is none of them",
            &before[unknown.name.clone()]
        ));
    }
    if let Some((user, host)) = before.rsplit_once('@')
        && !host.is_empty()
        && !host.starts_with(['/', '\\'])
        && user.split_once(':').is_some_and(|(name, password)| name.len() > 1 && !password.starts_with(['/', '\\']))
    {
        return Err("it has a user, a password and a host in it, but no scheme".into());
    }
    Ok(Kind::Sqlite)
}

/// The URL in the form that Diesel's driver takes.
pub(crate) fn for_driver(kind: Kind, url: &str) -> String {
    // From a file or a variable with a line break at its end.
    let url = url.trim();
    let Some((scheme, rest)) = scheme(url).filter(|_| !conninfo::is_conninfo(url)) else { return url.to_owned() };
    match (kind, &*scheme) {
        (Kind::Sqlite, "sqlite") => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            // In a path a question mark is a letter, and SQLite reads parameters in its own form of a URL alone.
            if path.contains('?') { format!("file:{path}") } else { path.to_owned() }
        }
        (Kind::Mysql, "mysql" | "mariadb") => format!("mysql:{rest}"),
        (Kind::Sqlite, "file") | (Kind::Postgres, "postgres" | "postgresql") => format!("{scheme}:{rest}"),
        _ => url.to_owned(),
    }
}

/// Whether every connection to it would see a database of its own.
pub(crate) fn is_private_memory(kind: Kind, url: &str) -> bool {
    kind == Kind::Sqlite
        && (url.is_empty() || url == ":memory:" || (url.contains(":memory:") && !url.contains("cache=shared")))
}

/// The URL with its password masked. Rather too much is masked than too little.
pub(crate) fn mask(url: &str) -> String {
    let Some(secrets) = secrets(url) else {
        return MASK.to_owned();
    };
    let mut masked = String::with_capacity(url.len());
    let mut shown = 0;
    for secret in secrets {
        // One may lie within another.
        if secret.start >= shown {
            masked.push_str(&url[shown..secret.start]);
            masked.push_str(MASK);
        }
        shown = shown.max(secret.end);
    }
    masked + &url[shown..]
}

/// A text that may quote the URL or its password, with both masked.
pub(crate) fn mask_in(text: &str, url: &str) -> String {
    let Some(secrets) = secrets(url) else {
        return UNREADABLE.to_owned();
    };
    let mut masked = text.replace(url, &mask(url));
    for secret in secrets {
        let secret = &url[secret];
        // A driver takes such a password apart, and quotes a part of it as the host, say.
        if secret.contains(['@', '/', '?', '#', '[', ']', ' ']) {
            return UNREADABLE.to_owned();
        }
        for form in [secret.to_owned(), percent_decoded(secret), secret.replace('\\', "")] {
            if !form.is_empty() {
                masked = masked.replace(&form, MASK);
            }
        }
    }
    masked
}

const MASK: &str = "***";
const UNREADABLE: &str = "the driver's answer is not shown, since the password in the URL holds a character that must be \
                          percent-encoded, such as `@` as `%40`";

/// Where the passwords are in a URL: the one before the `@`, and those among the parameters. `None` where that can't be
/// told.
fn secrets(url: &str) -> Option<Vec<Range<usize>>> {
    let mut secrets = words(url)?;
    let begin = match url.find("://") {
        Some(at) => at + 3,
        None => ["postgres:", "postgresql:", "mysql:", "mariadb:"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .map_or(0, |rest| url.len() - rest.len()),
    };
    // Up to the last `@`, in case a password holds an `@`, a `/` or a `?` that nobody has escaped.
    if let Some(end) = url.rfind('@')
        && let Some(colon) = url.get(begin..end).and_then(|user| user.find(':'))
    {
        secrets.push(begin + colon + 1..end);
    }
    let mut at = url.find('?').map_or(url.len(), |at| at + 1);
    for pair in url[at..].split(['&', ';']) {
        if let Some((name, value)) = pair.split_once('=')
            && is_secret(name)
        {
            let begin = at + name.len() + 1;
            secrets.push(begin..begin + value.len());
        }
        at += pair.len() + 1;
    }
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| secret.start);
    Some(secrets)
}

/// The passwords in the words that PostgreSQL takes in place of a URL. `None` if they have another form, so
/// that the end of a password is not known.
fn words(text: &str) -> Option<Vec<Range<usize>>> {
    if text.find('=').is_none_or(|equals| text[..equals].contains([':', '?', '/'])) {
        return Some(Vec::new());
    }
    let words = conninfo::words(text)?.into_iter();
    Some(words.filter(|word| is_secret(&text[word.name.clone()])).map(|word| word.value).collect())
}

/// Whether the value of this parameter must not be shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "key" || ["pass", "pwd", "secret", "token", "scram_"].iter().any(|part| name.contains(part))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => (bytes.push(byte), rest = &rest[3..]).1,
            None => (bytes.push(*first), rest = tail).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_a_url_carries_them() {
        assert_eq!(mask("postgres://me:s3cret@host/db"), "postgres://me:***@host/db");
        assert_eq!(mask("postgres://host/db?user=me&password=s3cret"), "postgres://host/db?user=me&password=***");
        assert_eq!(
            mask("postgres://h/db?sslPassword=a;x=1&TOKEN=b&c"),
            "postgres://h/db?sslPassword=***;x=1&TOKEN=***&c"
        );
        assert_eq!(mask("postgres://postgres:postgres@h/postgres"), "postgres://postgres:***@h/postgres");
        assert_eq!(mask("postgres://me@host/db"), "postgres://me@host/db");
        assert_eq!(mask("bank.db"), "bank.db");
        assert_eq!(mask("mysql://me:p:w/d@host/db"), "mysql://me:***@host/db");
        assert_eq!(mask_in("no: mysql://me:pw9@h/d; pw9", "mysql://me:pw9@h/d"), "no: mysql://me:***@h/d; ***");
    }

    #[test]
    fn a_url_that_nobody_can_read_shows_no_password_either() {
        assert_eq!(mask("postgres://me:p@s?w/d#@host/db"), "postgres://me:***@host/db");
        assert_eq!(mask("postgres:me:s3cret@host/db"), "postgres:me:***@host/db");
        assert_eq!(mask("postgres:/me:s3cret@host/db"), "postgres:/me:***@host/db");
        assert_eq!(mask("me:s3cret@host/db"), "me:***@host/db");
        for url in ["postgres://me:s3@cret@host/db", "postgres://me:s3/cret@host/db", "host=h password=s3 cret"] {
            let told = mask_in("no host s3, no host cret", url);
            assert!(!told.contains("s3") && !told.contains("cret") && told.contains("percent-encoded"), "{told}");
        }
        assert_eq!(mask_in("no `p@ss` or `p%40ss`", "mysql://me:p%40ss@h/d"), "no `***` or `***`");
        assert_eq!(percent_decoded("a%zz%4"), "a%zz%4");
    }

    #[test]
    fn postgres_words_in_place_of_a_url_are_masked_too() {
        assert_eq!(mask("host=h password=s3cret user=me"), "host=h password=*** user=me");
        assert_eq!(mask("password = 's 3\\'cret' host=h"), "password = '***' host=h");
        assert_eq!(mask("host=h sslpassword=a\\ b"), "host=h sslpassword=***");
        assert_eq!(mask("host=h password=s3 cret user=me"), "***");
        assert_eq!(mask("host=h password='s3cret"), "***");
        assert_eq!(mask("user=me password=a=b@c:d"), "user=me password=***");
        assert_eq!(mask_in("no s'3", "host=h password=s\\'3"), "no ***");
    }

    #[test]
    fn a_backend_is_known_by_the_scheme_and_a_bare_path_is_sqlite() {
        assert_eq!(kind_of("postgresql://h/d"), Ok(Kind::Postgres));
        assert_eq!(kind_of("mariadb://h/d"), Ok(Kind::Mysql));
        for sqlite in ["bank.db", ":memory:", "file:x?mode=ro", "sqlite:///tmp/x.db", "C:\\data\\x.db", "a:b"] {
            assert_eq!(kind_of(sqlite), Ok(Kind::Sqlite), "{sqlite}");
        }
        for bad in ["oracle://h/d", "mysql:me:pw@h/d", "postgres:/h/d", "jdbc:postgresql://h/d?password=pw"] {
            let problem = kind_of(bad).expect_err(bad);
            assert!(problem.contains(bad.split_once(':').expect("a scheme").0) && !problem.contains("pw"), "{problem}");
        }
        assert_eq!(kind_of("POSTGRES://h/d\n"), Ok(Kind::Postgres));
        assert_eq!(kind_of("MySQL://h/d"), Ok(Kind::Mysql));
        assert_eq!(kind_of("host=db password=a://b"), Ok(Kind::Postgres));
    }

    #[test]
    fn what_holds_a_password_is_no_path() {
        for bad in [
            "\"postgres://me:pw@h/d\"",
            "DATABASE_URL=postgres://me:pw@h/d",
            "postgresql+psycopg2://me:pw@h/d",
            "me:pw@h/d",
            "Server=h;Uid=me;Pwd=pw",
            "usr=me password=pw",
            "usr=me host=h dbname=d",
            "//me:pw@h/d",
        ] {
            let problem = kind_of(bad).expect_err(bad);
            assert!(!problem.contains("pw"), "{problem}");
        }
        for path in ["a=b.db", "a@b.db", "C:\\me@b\\x.db", "tenant=5/x.db", "backup:2026-01-01.db", "c:/a@b.db"] {
            assert_eq!(kind_of(path), Ok(Kind::Sqlite), "{path}");
        }
    }

    #[test]
    fn sqlite_urls_become_paths() {
        assert_eq!(for_driver(Kind::Sqlite, "sqlite:///tmp/x.db"), "/tmp/x.db");
        assert_eq!(for_driver(Kind::Sqlite, "sqlite://x.db"), "x.db");
        assert_eq!(for_driver(Kind::Sqlite, "sqlite::memory:"), ":memory:");
        assert_eq!(for_driver(Kind::Sqlite, "sqlite://x.db?mode=ro"), "file:x.db?mode=ro");
        assert_eq!(for_driver(Kind::Sqlite, "SQLITE:x.db\n"), "x.db");
        assert_eq!(for_driver(Kind::Sqlite, "FILE:x.db"), "file:x.db");
        assert_eq!(for_driver(Kind::Mysql, "mariadb://h/d"), "mysql://h/d");
        assert_eq!(for_driver(Kind::Mysql, "MySQL://h/d\n"), "mysql://h/d");
        assert_eq!(for_driver(Kind::Postgres, "Postgres://h/d "), "postgres://h/d");
        assert_eq!(for_driver(Kind::Postgres, " host=h password=a:b"), "host=h password=a:b");
    }
}

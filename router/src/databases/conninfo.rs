//! The words `name = value` that PostgreSQL's libpq takes in place of a URL.

use std::ops::Range;

/// The names that libpq knows, up to PostgreSQL 18.
const KEYWORDS: &[&str] = &[
    "application_name",
    "authtype",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "tty",
    "user",
];

/// One of the words, by its places in the text. Those of a value are without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// The words of a text; `None` if it has another form.
pub(crate) fn words(text: &str) -> Option<Vec<Word>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let skip = |at: usize| at + (text[at..].len() - text[at..].trim_start().len());
    loop {
        at = skip(at);
        if at == text.len() {
            return Some(found);
        }
        let equals = at + text[at..].find('=')?;
        let name = text[at..equals].trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let begin = skip(equals + 1);
        let quoted = text[begin..].starts_with('\'');
        let begin = begin + usize::from(quoted);
        let mut escaped = false;
        let end = text[begin..].find(|c: char| {
            let ends = !escaped && if quoted { c == '\'' } else { c.is_whitespace() };
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = match end {
            Some(end) => begin + end,
            None if quoted => return None,
            None => text.len(),
        };
        found.push(Word { name: at..at + name.len(), value: begin..end });
        at = end + usize::from(quoted);
    }
}

/// Whether libpq knows the name. It takes lower case alone; the rest is an error of its own.
pub(crate) fn is_keyword(name: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name))
}

/// Whether a text is meant for libpq: its first word is one of libpq's keywords.
pub(crate) fn is_conninfo(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| is_keyword(name.trim()))
}

/// The words in an order of their own, as libpq understands them, so that two texts can be compared.
pub(crate) fn sorted(text: &str) -> Option<Vec<(String, String)>> {
    let mut sorted: Vec<(String, String)> = Vec::new();
    for Word { name, value } in words(text)? {
        let (name, value) = (text[name].to_owned(), unescaped(&text[value]));
        // The last one counts.
        sorted.retain(|(known, _)| *known != name);
        sorted.push((name, value));
    }
    sorted.sort();
    Some(sorted)
}

fn unescaped(value: &str) -> String {
    let (mut plain, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_libpq_reads_them() {
        let text = " host = db password='a b\\'c' options=\\-c\\ x user= 'me'";
        let sorted = sorted(text).expect("words");
        let expected = [("host", "db"), ("options", "-c x"), ("password", "a b'c"), ("user", "me")];
        assert!(sorted.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{sorted:?}");
        assert_eq!(super::sorted("host=a host=b"), super::sorted("host=b"));
        for none in ["host=db password=a b", "password='a", "=b", "host"] {
            assert_eq!(words(none), None, "{none}");
        }
    }

    #[test]
    fn a_path_with_an_equals_sign_is_no_conninfo() {
        for words in ["host=db", "dbname = bank", " user=me", "password='", "HOST=db"] {
            assert!(is_conninfo(words), "{words}");
        }
        for path in ["a=b.db", "/srv/host=db", "./host=db", "bank.db", "my host=db", "tenant=5/bank.db"] {
            assert!(!is_conninfo(path), "{path}");
        }
    }
}

//! Finds statements that would begin or end a transaction behind the scope's back.
//!
//! No database tells Diesel of a raw COMMIT, and a raw BEGIN goes back to the pool open. So texts that reach the
//! handle as text are looked at before they are sent. The scanner knows strings, quoted names and comments, and each
//! database's own forms of them; it knows no grammar.

/// Whose texts these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Comments nest, `$tag$ .. $tag$` is a string, and `E'..'` has backslashes.
    Postgres,
    /// Strings have backslashes, `# ..` is a comment, and `/*! .. */` is none.
    Mysql,
    /// None of these.
    Sqlite,
}

/// What a text would do to the transaction around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It begins a transaction and ends it again: fit for autocommit alone. The first words of the first such statement.
    Balanced(String),
    /// It leaves a transaction open, or ends one that it has not begun. The first words of the statement.
    Unbalanced(String),
    /// It talks COPY with the client, which only Diesel's own COPY can answer.
    Copy,
}

/// What `sql` would do to the transaction around it, if anything.
pub fn effect(sql: &str, syntax: Syntax) -> Option<Effect> {
    let mut found: Option<String> = None;
    let (mut open, mut unbalanced) = (false, false);
    for words in (Scanner { rest: sql, syntax }) {
        match control(&words) {
            None => {}
            Some(Control::Copy) => return Some(Effect::Copy),
            Some(control) => {
                unbalanced |= match control {
                    Control::Begin => std::mem::replace(&mut open, true),
                    Control::End => !std::mem::replace(&mut open, false),
                    Control::Inside => !open,
                    Control::Session | Control::Copy => true,
                };
                found.get_or_insert_with(|| words.join(" "));
            }
        }
    }
    let first = found?;
    Some(if unbalanced || open { Effect::Unbalanced(first) } else { Effect::Balanced(first) })
}

/// Whether `sql` begins or ends a transaction. What stays inside an open one, savepoints, passes.
pub fn crosses_boundary(sql: &str, syntax: Syntax) -> bool {
    let mut controls = Scanner { rest: sql, syntax }.filter_map(|words| control(&words));
    controls.any(|control| matches!(control, Control::Begin | Control::End | Control::Session))
}

/// Whether `sql` takes from the session what is remembered of it: its prepared statements, or its database.
pub fn changes_session(sql: &str, syntax: Syntax) -> bool {
    let mut statements = Scanner { rest: sql, syntax };
    statements.any(|words| matches!(words.first().map_or("", String::as_str), "DEALLOCATE" | "DISCARD" | "USE"))
}

/// Whether `sql` calls a procedure, which on MySQL and MariaDB may begin a transaction and leave it open.
pub fn calls_procedure(sql: &str, syntax: Syntax) -> bool {
    let mut statements = Scanner { rest: sql, syntax };
    syntax == Syntax::Mysql && statements.any(|words| words.first().is_some_and(|word| word == "CALL"))
}

/// The first words of statements that MySQL and MariaDB commit before, or that may do anything.
const COMMIT_BY_THEMSELVES: [&str; 22] = [
    "ALTER",
    "ANALYZE",
    "CACHE",
    "CALL",
    "CHANGE",
    "CHECK",
    "CREATE",
    "DROP",
    "EXECUTE",
    "FLUSH",
    "GRANT",
    "INSTALL",
    "LOAD",
    "LOCK",
    "OPTIMIZE",
    "RENAME",
    "REPAIR",
    "RESET",
    "REVOKE",
    "TRUNCATE",
    "UNINSTALL",
    "UNLOCK",
];

/// Whether a statement of `sql` may commit by itself, as DDL does on MySQL and MariaDB.
pub fn commits_by_itself(sql: &str, syntax: Syntax) -> bool {
    let commits = |words: Vec<String>| {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        COMMIT_BY_THEMSELVES.contains(&word(0)) && word(1) != "TEMPORARY"
    };
    syntax == Syntax::Mysql && (Scanner { rest: sql, syntax }).any(commits)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Begin,
    End,
    /// Savepoints.
    Inside,
    /// What outlives the text: `SET autocommit`, XA, PREPARE TRANSACTION.
    Session,
    Copy,
}

/// How a statement controls the transaction, by its words.
fn control(words: &[String]) -> Option<Control> {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match (word(0), word(1)) {
        // BEGIN NOT ATOMIC is MariaDB's compound statement.
        ("BEGIN", "NOT") => None,
        ("BEGIN", _) | ("START", "TRANSACTION") => Some(Control::Begin),
        ("ROLLBACK", "TO") | ("SAVEPOINT" | "RELEASE", _) => Some(Control::Inside),
        ("ROLLBACK", _) if words.iter().any(|word| word == "TO") => Some(Control::Inside),
        ("COMMIT" | "ROLLBACK", "PREPARED") | ("PREPARE", "TRANSACTION") | ("XA", _) => Some(Control::Session),
        ("COMMIT" | "ROLLBACK" | "END" | "ABORT", _) => Some(Control::End),
        // Also as SESSION, @@session and after other variables. A completion type makes COMMIT begin anew.
        ("SET", _) if words.iter().any(|word| word == "AUTOCOMMIT" || word == "COMPLETION_TYPE") => {
            Some(Control::Session)
        }
        // MariaDB: SET STATEMENT .. FOR COMMIT.
        ("SET", "STATEMENT")
            if words.iter().any(|word| matches!(word.as_str(), "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "XA")) =>
        {
            Some(Control::Session)
        }
        ("COPY", _) if words.iter().any(|word| word == "STDIN" || word == "STDOUT") => Some(Control::Copy),
        _ => None,
    }
}

/// The most words of one statement that are looked at.
const WORDS_LIMIT: usize = 64;

/// Gives the words of each statement, in upper case; strings, quoted names and comments are passed over.
struct Scanner<'a> {
    rest: &'a str,
    syntax: Syntax,
}

impl Iterator for Scanner<'_> {
    type Item = Vec<String>;

    fn next(&mut self) -> Option<Vec<String>> {
        let mut words: Vec<String> = Vec::new();
        // CREATE TRIGGER .. BEGIN ..; ..; END: the semicolons inside end no statement.
        let mut body = 0_u32;
        loop {
            self.skip_blank();
            let Some(first) = self.rest.chars().next() else {
                return (!words.is_empty()).then_some(words);
            };
            match first {
                ';' => {
                    self.rest = &self.rest[1..];
                    if body == 0 && !words.is_empty() {
                        return Some(words);
                    }
                }
                '\'' | '"' => self.skip_string(first, self.syntax == Syntax::Mysql),
                '`' => self.skip_string(first, false),
                '$' if self.syntax == Syntax::Postgres => self.skip_dollar_quote(),
                letter if letter.is_alphabetic() || letter == '_' => {
                    let word = self.word();
                    if self.syntax == Syntax::Postgres && word == "E" && self.rest.starts_with('\'') {
                        self.skip_string('\'', true);
                    }
                    match word.as_str() {
                        "BEGIN" | "CASE" if !words.is_empty() => body += 1,
                        "END" if body > 0 && !self.closes_a_loop() => body -= 1,
                        _ => {}
                    }
                    if words.len() < WORDS_LIMIT {
                        words.push(word);
                    }
                }
                other => self.rest = &self.rest[other.len_utf8()..],
            }
        }
    }
}

impl<'a> Scanner<'a> {
    /// Takes a word. Digits and dollars belong to it, but for its first letter.
    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_uppercase()
    }

    /// Passes over white space, byte order marks and comments.
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            if self.at_line_comment() {
                self.rest = self.rest.split_once('\n').map_or("", |(_, after)| after);
            } else if let Some(inside) = self.in_run_comment() {
                self.rest = inside;
            } else if self.rest.starts_with("/*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    fn at_line_comment(&self) -> bool {
        match self.rest.strip_prefix("--") {
            // On MySQL `5--1` is a difference.
            Some(after) => self.syntax != Syntax::Mysql || !after.starts_with(|c: char| c.is_ascii_graphic()),
            None => self.syntax == Syntax::Mysql && self.rest.starts_with('#'),
        }
    }

    /// What follows the opening or the end of a comment that MySQL and MariaDB run: `/*!50000 .. */`, `/*M! .. */`.
    fn in_run_comment(&self) -> Option<&'a str> {
        if self.syntax != Syntax::Mysql {
            return None;
        }
        let opened = ["/*!", "/*M!"].iter().find_map(|open| self.rest.strip_prefix(open));
        opened.map(|inside| inside.trim_start_matches(|c: char| c.is_ascii_digit())).or(self.rest.strip_prefix("*/"))
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_u32;
        loop {
            if self.rest.starts_with("/*") && (depth == 0 || self.syntax == Syntax::Postgres) {
                depth += 1;
                self.rest = &self.rest[2..];
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.rest = &self.rest[2..];
                if depth == 0 {
                    return;
                }
            } else {
                let mut chars = self.rest.chars();
                if chars.next().is_none() {
                    return;
                }
                self.rest = chars.as_str();
            }
        }
    }

    fn skip_string(&mut self, quote: char, backslashes: bool) {
        let mut chars = self.rest.chars();
        chars.next();
        while let Some(next) = chars.next() {
            if next == quote {
                break;
            }
            if next == '\\' && backslashes {
                chars.next();
            }
        }
        self.rest = chars.as_str();
    }

    /// Passes over `$tag$ .. $tag$`, or over the dollar where it begins none.
    fn skip_dollar_quote(&mut self) {
        let after = &self.rest[1..];
        let tag_end = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
        let is_tag = after[tag_end..].starts_with('$') && !after.starts_with(|c: char| c.is_ascii_digit());
        if !is_tag {
            self.rest = after;
            return;
        }
        let (tag, text) = self.rest.split_at(tag_end + 2);
        self.rest = text.split_once(tag).map_or("", |(_, after)| after);
    }

    /// Whether what follows an END says that it ends no block: MySQL's `END IF` and the like.
    fn closes_a_loop(&self) -> bool {
        let ahead = Scanner { rest: self.rest, syntax: self.syntax };
        let mut ahead = ahead;
        ahead.skip_blank();
        matches!(ahead.word().as_str(), "IF" | "LOOP" | "WHILE" | "REPEAT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Syntax; 3] = [Syntax::Postgres, Syntax::Mysql, Syntax::Sqlite];

    fn is_unbalanced(sql: &str, syntax: Syntax) -> bool {
        matches!(effect(sql, syntax), Some(Effect::Unbalanced(_)))
    }

    #[test]
    fn a_ddl_commits_by_itself_on_mysql_unless_it_is_temporary() {
        for sql in ["CREATE TABLE a (b INT)", "/* */ truncate a", "SELECT 1; drop table a", "CALL p()"] {
            assert!(commits_by_itself(sql, Syntax::Mysql), "{sql}");
            assert!(!commits_by_itself(sql, Syntax::Postgres), "{sql}");
        }
        for sql in ["CREATE TEMPORARY TABLE a (b INT)", "SELECT 'DROP'", "UPDATE a SET b = 1"] {
            assert!(!commits_by_itself(sql, Syntax::Mysql), "{sql}");
        }
    }

    #[test]
    fn control_statements_are_found_wherever_they_stand() {
        for sql in [
            "COMMIT",
            "  begin immediate",
            "-- note\ncommit",
            "/* note */ ROLLBACK TO x",
            "INSERT INTO t VALUES ('a;b'); COMMIT",
            "start transaction",
            "SET autocommit = 0",
            "SET SESSION autocommit = 0",
            "SELECT 1; XA START 'x'",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END; COMMIT",
            "\u{feff}COMMIT",
            "COMMIT; BEGIN",
            "BEGIN; BEGIN; COMMIT",
            "SAVEPOINT a",
        ] {
            for syntax in ALL {
                assert!(is_unbalanced(sql, syntax), "{sql} {syntax:?}");
            }
        }
    }

    #[test]
    fn each_databases_own_strings_and_comments_hide_nothing() {
        assert!(is_unbalanced("SELECT $$a$$; END", Syntax::Postgres));
        assert!(is_unbalanced("/* /* */ */ COMMIT", Syntax::Postgres));
        assert!(is_unbalanced("SELECT 1 AS a$b$; COMMIT; --$b$", Syntax::Postgres));
        assert!(is_unbalanced("SELECT '\\'; COMMIT; --'", Syntax::Postgres));
        assert!(is_unbalanced("SELECT E'\\''; COMMIT", Syntax::Postgres));
        assert!(is_unbalanced("SELECT $1$; COMMIT", Syntax::Postgres));
        assert!(is_unbalanced("SELECT '\\''; COMMIT", Syntax::Mysql));
        assert!(is_unbalanced("# note\nCOMMIT", Syntax::Mysql));
        assert!(is_unbalanced("/*! COMMIT */", Syntax::Mysql));
        assert!(is_unbalanced("/*!50000 COMMIT */", Syntax::Mysql));
        assert!(is_unbalanced("/* /* */ COMMIT", Syntax::Mysql));
        assert!(is_unbalanced("/* /* */ COMMIT", Syntax::Sqlite));
        assert!(is_unbalanced("SELECT '\\'; COMMIT; --'", Syntax::Sqlite));
    }

    #[test]
    fn other_statements_pass() {
        for sql in [
            "",
            ";",
            "SELECT 'x; COMMIT'",
            "SELECT 'it''s; COMMIT'",
            "INSERT INTO t VALUES ('COMMIT')",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM u; END",
            "CREATE PROCEDURE p() BEGIN IF a THEN SET b = 1; END IF; CASE a WHEN 1 THEN SET b = 1; END CASE; END",
            "SELECT \"begin; commit\" FROM t",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "PREPARE x AS SELECT 1",
            "-- COMMIT",
            "SELECT 1 -- ; COMMIT",
            "COPY t TO '/tmp/x'",
        ] {
            for syntax in ALL {
                assert_eq!(effect(sql, syntax), None, "{sql} {syntax:?}");
            }
        }
        for sql in [
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN PERFORM 1; COMMIT; END $$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; END $body$ LANGUAGE plpgsql",
            "DELETE FROM t WHERE a = $1",
            "SELECT E'\\'; COMMIT; --'",
        ] {
            assert_eq!(effect(sql, Syntax::Postgres), None, "{sql}");
        }
        assert_eq!(effect("SELECT '\\'; COMMIT; --'", Syntax::Mysql), None);
    }

    #[test]
    fn a_text_that_ends_what_it_began_is_balanced() {
        for sql in [
            "CREATE TABLE t (id INT); BEGIN; DROP TABLE t; COMMIT;",
            "BEGIN; SAVEPOINT a; ROLLBACK TO a; RELEASE a; ROLLBACK",
        ] {
            for syntax in ALL {
                assert!(matches!(effect(sql, syntax), Some(Effect::Balanced(_))), "{sql}");
            }
        }
    }

    #[test]
    fn a_copy_with_the_client_is_found() {
        assert_eq!(effect("COPY t FROM STDIN", Syntax::Postgres), Some(Effect::Copy));
        assert_eq!(effect("copy (SELECT 1) to stdout with csv", Syntax::Postgres), Some(Effect::Copy));
    }
}

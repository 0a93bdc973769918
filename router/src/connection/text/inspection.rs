//! From the words of a text to what it may do.

use super::lexer::{Lexer, Syntax, Token};

/// What a text may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked by itself")]
pub struct Inspection {
    /// To the transaction around it.
    pub effect: Effect,
    /// Whether it may begin or end a transaction, rather than set savepoints alone.
    pub crosses: bool,
    /// To its session, beyond its transaction.
    pub session: SessionEffect,
    /// It only changes rows and tables, as far as it can be read.
    pub is_tame: bool,
    /// It may lift the read-only mode of the transaction around it.
    pub may_allow_writes: bool,
    /// It may have several results, of which Diesel reads the first.
    pub may_fail_late: bool,
    /// It has more than one statement.
    pub has_several: bool,
    /// It may take from the session what is remembered of it: its prepared statements, or its database.
    pub forgets_statements: bool,
}

/// What a text does to the transaction around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It neither begins nor ends a transaction: that is proven.
    None,
    /// It may do either. The server knows.
    Unknown,
    /// It begins a transaction and ends it again: fit for autocommit alone. The first words of the first such statement.
    Balanced(String),
    /// It leaves a transaction open, or ends one that it has not begun. The first words of the statement.
    Unbalanced(String),
    /// It talks COPY with the client, which only Diesel's own COPY can answer.
    Copy,
}

/// What a text does to its session: settings, locks, temporary objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionEffect {
    /// Nothing.
    #[default]
    None,
    /// Nothing that a look at the session's settings doesn't find.
    Settings,
    /// Anything.
    Unknown,
}

/// What `sql` may do.
pub fn inspect(sql: &str, syntax: Syntax) -> Inspection {
    let Reading { mut effect, mut crosses, mut is_tame, has_several } = read(sql, syntax, syntax == Syntax::Mysql);
    if syntax != Syntax::Sqlite && sql.contains('\\') {
        // A setting of the session decides what the backslash means.
        let other = read(sql, syntax, syntax != Syntax::Mysql);
        effect = effect.or(other.effect);
        (crosses, is_tame) = (crosses | other.crosses, is_tame & other.is_tame);
    }
    if syntax == Syntax::Mysql && (sql.contains("/*!") || sql.contains("/*M!")) {
        // The server's version decides what is run.
        effect = if effect == Effect::None { Effect::Unknown } else { effect };
        (crosses, is_tame) = (true, false);
    }
    let session = match syntax {
        Syntax::Sqlite => changes_sqlite_session(sql),
        Syntax::Mysql if is_tame && !["@", "get_lock", "temporary"].iter().any(|word| holds(sql, word)) => {
            SessionEffect::Settings
        }
        Syntax::Mysql | Syntax::Postgres => SessionEffect::Unknown,
    };
    let may_allow_writes = match syntax {
        // The mode can't be lifted any more once a query has run.
        Syntax::Postgres => !(effect == Effect::None && is_query(sql)),
        Syntax::Sqlite => holds(sql, "query_only") && holds_pragma(sql),
        Syntax::Mysql => false,
    };
    let runs_others = ["call", "execute", "begin"].iter().any(|word| holds(sql, word));
    let may_fail_late = syntax == Syntax::Mysql && effect == Effect::Unknown && runs_others;
    let forgets_statements = match syntax {
        Syntax::Postgres => holds(sql, "deallocate") || holds(sql, "discard"),
        Syntax::Mysql => holds(sql, "use "),
        Syntax::Sqlite => false,
    };
    Inspection { effect, crosses, session, is_tame, may_allow_writes, may_fail_late, has_several, forgets_statements }
}

/// Nothing but these statements reaches beyond the database, and no function does: what doesn't hold their words anywhere
/// is proven.
fn changes_sqlite_session(sql: &str) -> SessionEffect {
    let changes = holds_pragma(sql) || ["attach", "detach", "temp"].iter().any(|word| holds(sql, word));
    if changes { SessionEffect::Unknown } else { SessionEffect::None }
}

/// Whether `word`, in lower case, stands anywhere in `sql`, be it in quotes or within another word.
fn holds(sql: &str, word: &str) -> bool {
    sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether the word PRAGMA stands anywhere in `sql`. A function such as `pragma_table_info` only reads.
fn holds_pragma(sql: &str) -> bool {
    const PRAGMA: &str = "pragma";
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let words = sql.as_bytes().windows(PRAGMA.len()).enumerate();
    let mut found = words.filter(|(_, part)| part.eq_ignore_ascii_case(PRAGMA.as_bytes()));
    found.any(|(at, _)| !is_part(sql.as_bytes().get(at + PRAGMA.len())))
}

/// Whether `sql` plainly begins with a query.
fn is_query(sql: &str) -> bool {
    let letters = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"].iter().any(|word| letters.eq_ignore_ascii_case(word))
}

impl Effect {
    /// What is certain under both readings of a text.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            // The question whether it was one would end a COPY silently.
            (Self::Copy, _) | (_, Self::Copy) => Self::Copy,
            (one, other) if one == other => one,
            _ => Self::Unknown,
        }
    }
}

/// A statement, by its words.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of its own")]
struct Statement<'a> {
    /// Its first words.
    first: [&'a str; FIRST_WORDS],
    words: usize,
    /// Something other than a word or `(` came before its first word.
    odd: bool,
    copies_with_client: bool,
    /// The word before: `AND NO CHAIN` and `NO RELEASE` are what happens anyway.
    last: &'a str,
    /// COMMIT or ROLLBACK that begins the next transaction, or ends the session.
    chains: bool,
    to: bool,
    /// SET of what decides how transactions begin and end.
    modes: bool,
    /// SET STATEMENT .. FOR a control statement.
    controls: bool,
    /// It has a body of statements: `BEGIN ATOMIC` of a function.
    atomic: bool,
    /// It may make a routine, whose body has statements.
    routine: bool,
}

/// How many words of a statement are kept, for its kind and for the error that names it.
const FIRST_WORDS: usize = 4;

impl<'a> Statement<'a> {
    fn add(&mut self, token: Token<'a>) {
        let Token::Word(word) = token else {
            self.odd |= self.words == 0;
            return;
        };
        if let Some(place) = self.first.get_mut(self.words) {
            *place = word;
        }
        self.words += 1;
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        self.copies_with_client |= is("STDIN") || is("STDOUT");
        self.to |= is("TO");
        self.chains |= (is("CHAIN") || is("RELEASE")) && !self.last.eq_ignore_ascii_case("NO");
        self.modes |= is("AUTOCOMMIT") || is("COMPLETION_TYPE");
        self.controls |= ["BEGIN", "START", "COMMIT", "ROLLBACK", "XA"].iter().any(|word| is(word));
        self.atomic |= is("ATOMIC");
        self.routine |= ["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"].iter().any(|word| is(word));
        self.last = word;
    }

    fn is_empty(&self) -> bool {
        self.words == 0 && !self.odd
    }

    fn is(&self, at: usize, keyword: &str) -> bool {
        self.first.get(at).is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }

    fn begins_with(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(0, keyword))
    }

    /// Its first words, for an error.
    fn text(&self) -> String {
        let words: Vec<_> = self.first[..self.words.min(FIRST_WORDS)].iter().map(|word| word.to_uppercase()).collect();
        words.join(" ")
    }
}

/// What one statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    None,
    Unknown,
    /// It changes tables, on MySQL and MariaDB, and has an unknown effect.
    Ddl,
    /// What follows may be a part of it, whatever it looks like.
    Compound,
    Begin,
    End,
    /// Savepoints.
    Inside,
    /// What outlives the text: `SET autocommit`, XA, PREPARE TRANSACTION, COMMIT AND CHAIN.
    Session,
    Copy,
}

/// The statements of MySQL and MariaDB that can't end a transaction. A stored function that tries to is refused by the
/// server.
const PLAIN_ON_MYSQL: [&str; 13] = [
    "SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC",
    "EXPLAIN", "SIGNAL",
];

/// Those that change tables: they end the transaction, and leave the session as it is.
const DDL_ON_MYSQL: [&str; 5] = ["ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE"];

/// Further statements of MySQL and MariaDB that hold no others. What begins otherwise may be a compound statement.
const SIMPLE_ON_MYSQL: [&str; 23] = [
    "ANALYZE",
    "CACHE",
    "CALL",
    "CHANGE",
    "CHECK",
    "DEALLOCATE",
    "DO",
    "EXECUTE",
    "FLUSH",
    "GRANT",
    "HANDLER",
    "INSTALL",
    "LOAD",
    "LOCK",
    "OPTIMIZE",
    "PREPARE",
    "REPAIR",
    "RESET",
    "REVOKE",
    "SET",
    "UNINSTALL",
    "UNLOCK",
    "USE",
];

fn control(statement: &Statement<'_>, syntax: Syntax) -> Control {
    let is = |at, keyword| statement.is(at, keyword);
    let mysql = syntax == Syntax::Mysql;
    if statement.odd {
        // Not the beginning of any statement that is known.
        return Control::Compound;
    }
    if mysql && is(0, "BEGIN") && is(1, "NOT") {
        return Control::Compound;
    }
    if is(0, "BEGIN") || is(0, "START") && is(1, "TRANSACTION") {
        return Control::Begin;
    }
    let ends = statement.begins_with(&["COMMIT", "ROLLBACK", "END", "ABORT"]);
    if ends && statement.to || statement.begins_with(&["SAVEPOINT", "RELEASE"]) {
        return Control::Inside;
    }
    let prepares = statement.begins_with(&["COMMIT", "ROLLBACK"]) && is(1, "PREPARED");
    if prepares || is(0, "PREPARE") && is(1, "TRANSACTION") || mysql && is(0, "XA") || ends && statement.chains {
        return Control::Session;
    }
    if ends {
        return Control::End;
    }
    match syntax {
        Syntax::Postgres if is(0, "COPY") && statement.copies_with_client => Control::Copy,
        // It takes the limits of the scope away.
        Syntax::Postgres if is(0, "RESET") && is(1, "ALL") => Control::Inside,
        // Also as SESSION, @@session and after other variables.
        _ if is(0, "SET") && (statement.modes || is(1, "STATEMENT") && statement.controls) => Control::Session,
        Syntax::Postgres | Syntax::Sqlite => Control::None,
        Syntax::Mysql if statement.begins_with(&PLAIN_ON_MYSQL) => Control::None,
        Syntax::Mysql if statement.begins_with(&DDL_ON_MYSQL) && !statement.routine => Control::Ddl,
        Syntax::Mysql if statement.begins_with(&SIMPLE_ON_MYSQL) => Control::Unknown,
        Syntax::Mysql => Control::Compound,
    }
}

/// Whether the statement has statements in it: those of a trigger, or of a function in the standard's form.
fn has_body(statement: &Statement<'_>, syntax: Syntax) -> bool {
    match syntax {
        Syntax::Sqlite => statement.is(0, "CREATE") && (1..3).any(|at| statement.is(at, "TRIGGER")),
        Syntax::Postgres => statement.is(0, "CREATE") && statement.atomic,
        Syntax::Mysql => false,
    }
}

/// What the statements of a text do together.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is found by itself")]
struct Summary {
    /// The first statement that certainly controls the transaction.
    found: Option<String>,
    open: bool,
    unbalanced: bool,
    unknown: bool,
    /// A compound statement has begun, and how far it reaches is the server's to know.
    compound: bool,
    copies: bool,
    /// It does more than to change rows and tables.
    wild: bool,
    /// It does more than to set savepoints, or may.
    crosses: bool,
    /// How many there are. Those within another one don't count.
    statements: usize,
    /// Within a statement that has statements in it.
    in_body: bool,
}

impl Summary {
    fn add(&mut self, statement: &Statement<'_>, syntax: Syntax) {
        if statement.is_empty() {
            return;
        }
        let control = control(statement, syntax);
        if self.in_body {
            self.in_body = !statement.is(0, "END");
            let unknown = self.in_body && control != Control::None;
            (self.unknown, self.crosses) = (self.unknown | unknown, self.crosses | unknown);
            return;
        }
        self.in_body = has_body(statement, syntax);
        self.statements += 1;
        self.wild |= !matches!(control, Control::None | Control::Ddl);
        self.crosses |= !matches!(control, Control::None | Control::Inside | Control::Copy);
        match control {
            Control::None => return,
            Control::Unknown | Control::Ddl => self.unknown = true,
            Control::Compound => self.compound = true,
            Control::Copy => self.copies = true,
            _ if self.compound => {}
            Control::Begin => self.unbalanced |= std::mem::replace(&mut self.open, true),
            Control::End => self.unbalanced |= !std::mem::replace(&mut self.open, false),
            Control::Inside => self.unbalanced |= !self.open,
            Control::Session => self.unbalanced = true,
        }
        if !self.compound && !matches!(control, Control::Unknown | Control::Ddl | Control::Copy) {
            self.found.get_or_insert_with(|| statement.text());
        }
    }

    fn effect(self) -> Effect {
        match self.found {
            _ if self.copies => Effect::Copy,
            Some(first) if self.unbalanced || self.open && !self.compound => Effect::Unbalanced(first),
            Some(_) if self.compound => Effect::Unknown,
            Some(first) => Effect::Balanced(first),
            None if self.unknown || self.compound => Effect::Unknown,
            None => Effect::None,
        }
    }
}

/// What a text does under one reading of its strings.
struct Reading {
    effect: Effect,
    crosses: bool,
    is_tame: bool,
    has_several: bool,
}

fn read(sql: &str, syntax: Syntax, backslashes: bool) -> Reading {
    let (mut summary, mut statement) = (Summary::default(), Statement::default());
    for token in Lexer::new(sql, syntax, backslashes) {
        match token {
            Token::Semicolon => summary.add(&std::mem::take(&mut statement), syntax),
            // A query may stand in parentheses.
            Token::Parenthesis if statement.is_empty() => {}
            token => statement.add(token),
        }
    }
    summary.add(&statement, syntax);
    let (crosses, is_tame, has_several) = (summary.crosses, !summary.wild, summary.statements > 1);
    Reading { effect: summary.effect(), crosses, is_tame, has_several }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Syntax; 3] = [Syntax::Postgres, Syntax::Mysql, Syntax::Sqlite];

    fn effect(sql: &str, syntax: Syntax) -> Effect {
        inspect(sql, syntax).effect
    }

    fn is_unbalanced(sql: &str, syntax: Syntax) -> bool {
        matches!(effect(sql, syntax), Effect::Unbalanced(_))
    }

    #[test]
    fn control_statements_are_found_anywhere_in_a_text() {
        for sql in [
            "COMMIT",
            "  begin immediate",
            "-- note\ncommit",
            "/* note */ ROLLBACK TO x",
            "INSERT INTO t VALUES ('a;b'); COMMIT",
            "start transaction",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END; COMMIT",
            "\u{feff}COMMIT",
            "COMMIT; BEGIN",
            "BEGIN; BEGIN; COMMIT",
            "SAVEPOINT a",
            "BEGIN; SELECT 1; COMMIT AND CHAIN",
            "BEGIN; ROLLBACK AND CHAIN; COMMIT",
            "INSERT INTO events (id, begin, \"end\") VALUES (1, 2, 3); COMMIT; BEGIN",
            "SELECT 1 AS begin; COMMIT",
        ] {
            for syntax in ALL {
                assert!(is_unbalanced(sql, syntax), "{sql} {syntax:?}");
            }
        }
        for sql in [
            "SET autocommit = 0",
            "SET SESSION autocommit = 0",
            "SET @a = 1, @@session.autocommit = 0",
            "SET completion_type = 1",
            "SELECT 1; XA START 'x'",
            "SET STATEMENT max_statement_time = 1 FOR COMMIT",
            "CALL p(); COMMIT",
            "BEGIN; COMMIT RELEASE",
        ] {
            assert!(is_unbalanced(sql, Syntax::Mysql), "{sql}");
        }
        assert!(is_unbalanced("RESET ALL", Syntax::Postgres));
        let long = format!("INSERT INTO t VALUES ({}); COMMIT", "1, ".repeat(10_000));
        assert!(is_unbalanced(&long, Syntax::Sqlite));
    }

    #[test]
    fn each_databases_own_strings_and_comments_hide_nothing() {
        for (sql, syntax) in [
            ("SELECT $$a$$; END", Syntax::Postgres),
            ("/* /* */ */ COMMIT", Syntax::Postgres),
            ("SELECT 1 AS a$b$; COMMIT; --$b$", Syntax::Postgres),
            ("SELECT E'\\''; COMMIT", Syntax::Postgres),
            ("SELECT $1$; COMMIT", Syntax::Postgres),
            ("SELECT E'a'\n'\\''; COMMIT", Syntax::Postgres),
            ("# note\nCOMMIT", Syntax::Mysql),
            ("/*! COMMIT */", Syntax::Mysql),
            ("/*!50000 COMMIT */", Syntax::Mysql),
            ("/* /* */ COMMIT", Syntax::Mysql),
            ("/* /* */ COMMIT", Syntax::Sqlite),
            ("SELECT '\\'; COMMIT; --'", Syntax::Sqlite),
            ("SELECT [it's]; COMMIT; --'", Syntax::Sqlite),
        ] {
            assert!(is_unbalanced(sql, syntax), "{sql} {syntax:?}");
        }
    }

    #[test]
    fn what_a_setting_of_the_session_decides_is_unknown() {
        for (sql, syntax) in [
            ("SELECT '\\'; COMMIT; --'", Syntax::Postgres),
            ("SELECT '\\'; COMMIT; --'", Syntax::Mysql),
            ("SELECT '\\''; COMMIT", Syntax::Mysql),
            ("/*!99999 SELECT 1 */", Syntax::Mysql),
        ] {
            assert_eq!(effect(sql, syntax), Effect::Unknown, "{sql} {syntax:?}");
        }
    }

    #[test]
    fn other_statements_are_proven_harmless() {
        for sql in [
            "",
            ";",
            "SELECT 'x; COMMIT'",
            "SELECT 'it''s; COMMIT'",
            "INSERT INTO t VALUES ('COMMIT')",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END",
            "(SELECT 1) UNION (SELECT 2)",
            "SELECT \"begin; commit\" FROM t",
            "INSERT INTO events (begin, end) VALUES (1, 2)",
            "-- COMMIT",
            "SELECT 1 -- ; COMMIT",
        ] {
            for syntax in ALL {
                assert_eq!(effect(sql, syntax), Effect::None, "{sql} {syntax:?}");
            }
        }
        for sql in [
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN PERFORM 1; COMMIT; END $$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; END $body$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
            "DELETE FROM t WHERE a = $1",
            "SELECT E'\\'; COMMIT; --'",
            "SELECT 'a\\b'",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "PREPARE x AS SELECT 1",
            "COPY t TO '/tmp/x'",
        ] {
            assert_eq!(effect(sql, Syntax::Postgres), Effect::None, "{sql}");
        }
        for sql in [
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM u; END",
            "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN 2 END; END; SELECT 1",
            "CREATE TABLE [x; COMMIT] (a)",
            "CREATE TABLE `x; COMMIT` (a)",
        ] {
            assert_eq!(effect(sql, Syntax::Sqlite), Effect::None, "{sql}");
        }
    }

    #[test]
    fn what_may_hold_statements_or_run_a_text_is_unknown_on_mysql() {
        for sql in [
            "CREATE PROCEDURE p() BEGIN IF a THEN SET b = 1; END IF; COMMIT; END",
            "BEGIN NOT ATOMIC INSERT INTO t VALUES (1); COMMIT; END",
            "IF 1 THEN COMMIT; END IF",
            "FOR i IN 1..2 DO COMMIT; END FOR",
            "again: LOOP COMMIT; LEAVE again; END LOOP",
            "EXECUTE IMMEDIATE 'COMMIT'",
            "PREPARE s FROM 'COMMIT'; EXECUTE s",
            "CALL p()",
            "CREATE TABLE a (b INT)",
            "/* */ truncate a",
            "SELECT 1; drop table a",
            "SET `autocommit` = 0",
            "SET STATEMENT max_statement_time = 10 FOR CREATE TABLE a (b INT)",
            "LOCK TABLES a WRITE",
        ] {
            assert_eq!(effect(sql, Syntax::Mysql), Effect::Unknown, "{sql}");
        }
        // A variable of the user's.
        assert_eq!(effect("SET @autocommit = 0", Syntax::Mysql), Effect::Unknown);
    }

    #[test]
    fn a_text_that_ends_what_it_began_is_balanced() {
        for sql in [
            "CREATE TABLE t (id INT); BEGIN; DROP TABLE t; COMMIT;",
            "BEGIN; SAVEPOINT a; ROLLBACK TO a; RELEASE a; ROLLBACK",
            "BEGIN; INSERT INTO events (begin) VALUES (1); COMMIT AND NO CHAIN",
        ] {
            for syntax in ALL {
                assert!(matches!(effect(sql, syntax), Effect::Balanced(_)), "{sql} {syntax:?}");
            }
        }
    }

    #[test]
    fn a_copy_with_the_client_is_found_however_long_it_is() {
        let columns: Vec<String> = (0..70).map(|n| format!("c{n}")).collect();
        for sql in [
            "COPY t FROM STDIN",
            "copy (SELECT 1) to stdout with csv",
            "SELECT 1; COPY t FROM STDIN",
            "SELECT '\\'; COPY t FROM STDIN; --'",
            &format!("COPY wide ({}) FROM STDIN", columns.join(", ")),
        ] {
            assert_eq!(effect(sql, Syntax::Postgres), Effect::Copy, "{sql}");
        }
        for sql in ["COPY t FROM '/tmp/stdin'", "COPY t FROM PROGRAM 'cat' -- STDIN", "SELECT stdin FROM copy"] {
            assert_eq!(effect(sql, Syntax::Postgres), Effect::None, "{sql}");
        }
    }

    #[test]
    fn several_statements_are_told_from_one() {
        for (sql, several) in [
            ("SELECT 1", false),
            ("SELECT 1; ", false),
            ("SELECT ';'; -- note", false),
            ("CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM u; END;", false),
            ("SELECT 1; SELECT 2", true),
            ("INSERT INTO t VALUES (1);;INSERT INTO t VALUES (2)", true),
        ] {
            assert_eq!(inspect(sql, Syntax::Sqlite).has_several, several, "{sql}");
        }
    }

    #[test]
    fn what_can_not_change_a_session_is_proven() {
        let session = |sql, syntax| inspect(sql, syntax).session;
        assert_eq!(session("INSERT INTO t VALUES (1); UPDATE t SET a = 2", Syntax::Sqlite), SessionEffect::None);
        assert_eq!(session("PRAGMA foreign_keys = 0", Syntax::Sqlite), SessionEffect::Unknown);
        assert_eq!(session("EXPLAIN pragma/**/query_only = 0", Syntax::Sqlite), SessionEffect::Unknown);
        assert_eq!(session("SELECT * FROM pragma_table_info('t')", Syntax::Sqlite), SessionEffect::None);
        assert_eq!(session("CREATE TEMPORARY TABLE a (b)", Syntax::Sqlite), SessionEffect::Unknown);
        assert_eq!(session("INSERT INTO t VALUES (1)", Syntax::Mysql), SessionEffect::Settings);
        for sql in [
            "SELECT @a := 1",
            "SELECT GET_LOCK('a', 1)",
            "SET time_zone = '+01:00'",
            "CREATE TEMPORARY TABLE a (b INT)",
        ] {
            assert_eq!(session(sql, Syntax::Mysql), SessionEffect::Unknown, "{sql}");
        }
    }
}

//! Splits a raw text into statements and words, by the lexical rules of each database. It knows no grammar.

/// Whose texts these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Comments nest, `$tag$ .. $tag$` is a string, and `E'..'` has backslashes.
    Postgres,
    /// Strings have backslashes, `# ..` is a comment, and `/*! .. */` is none.
    Mysql,
    /// `[..]` is a name.
    Sqlite,
}

/// A part of a text. Comments and white space are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or a name without quotes.
    Word(&'a str),
    /// A semicolon outside of all quotes.
    Semicolon,
    /// `(`.
    Parenthesis,
    /// Anything else: a string, a quoted name, a user variable, a number, or one character.
    Other,
}

/// Gives the tokens of a text.
pub struct Lexer<'a> {
    rest: &'a str,
    syntax: Syntax,
    /// Whether a backslash in a plain string hides the quote after it: a setting of the session on servers.
    backslashes: bool,
}

impl<'a> Lexer<'a> {
    /// Reads `sql`. `backslashes` counts on servers alone.
    pub fn new(sql: &'a str, syntax: Syntax, backslashes: bool) -> Self {
        Self { rest: sql, syntax, backslashes }
    }

    fn word(&mut self) -> &'a str {
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$') || !letter.is_ascii();
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Passes over white space, byte order marks and comments.
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(is_blank);
            if self.is_at_line_comment() {
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

    fn is_at_line_comment(&self) -> bool {
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

    /// Passes over what stands between two quotes. A doubled quote ends one string and begins the next, which comes to the
    /// same.
    fn skip_quoted(&mut self, end: char, backslashes: bool) {
        let mut chars = self.rest.chars();
        chars.next();
        loop {
            match chars.next() {
                None => break,
                Some(next) if next == end => break,
                Some('\\') if backslashes => drop(chars.next()),
                Some(_) => {}
            }
        }
        self.rest = chars.as_str();
    }

    /// Passes over `E'..'`, which goes on after a line break, with its backslashes: `E'..' \n '..'`.
    fn skip_escape_string(&mut self) {
        self.skip_quoted('\'', true);
        while let Some(continued) = self.continued_string() {
            self.rest = continued;
            self.skip_quoted('\'', true);
        }
    }

    /// Where the string that has just ended goes on: with a doubled quote, or with a quote on another line.
    fn continued_string(&self) -> Option<&'a str> {
        let (mut ahead, mut breaks) = (self.rest, false);
        loop {
            let next = ahead.trim_start_matches(is_blank);
            breaks |= ahead[..ahead.len() - next.len()].contains(['\n', '\r']);
            match next.strip_prefix("--") {
                Some(comment) => ahead = comment.find('\n').map_or("", |end| &comment[end..]),
                None => return (next.starts_with('\'') && (breaks || next.len() == self.rest.len())).then_some(next),
            }
        }
    }

    /// Passes over `$tag$ .. $tag$`, or over the dollar where it begins none.
    fn skip_dollar_quote(&mut self) {
        let after = &self.rest[1..];
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || !c.is_ascii();
        let tag_end = after.find(|c| !is_part(c)).unwrap_or(after.len());
        let is_tag = after[tag_end..].starts_with('$') && !after.starts_with(|c: char| c.is_ascii_digit());
        if !is_tag {
            self.rest = after;
            return;
        }
        let (tag, text) = self.rest.split_at(tag_end + 2);
        self.rest = text.split_once(tag).map_or("", |(_, after)| after);
    }

    /// Passes over `@name`, which on MySQL and MariaDB is a variable of the user's. `@@name` is one of the server's.
    fn skip_at(&mut self) {
        self.rest = &self.rest[1..];
        match self.rest.strip_prefix('@') {
            Some(system) => self.rest = system,
            None => {
                self.word();
            }
        }
    }
}

/// White space as the databases know it, which is ASCII alone, and the byte order mark.
fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{feff}')
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        let (postgres, mysql, sqlite) =
            (self.syntax == Syntax::Postgres, self.syntax == Syntax::Mysql, self.syntax == Syntax::Sqlite);
        match first {
            ';' | '(' => {
                self.rest = &self.rest[1..];
                return Some(if first == ';' { Token::Semicolon } else { Token::Parenthesis });
            }
            '\'' => self.skip_quoted('\'', self.backslashes && !sqlite),
            '"' => self.skip_quoted('"', self.backslashes && mysql),
            '`' if !postgres => self.skip_quoted('`', false),
            '[' if sqlite => self.skip_quoted(']', false),
            '$' if postgres => self.skip_dollar_quote(),
            '@' if mysql => self.skip_at(),
            letter if letter.is_alphabetic() || letter == '_' || !letter.is_ascii() => {
                let word = self.word();
                if postgres && word.eq_ignore_ascii_case("e") && self.rest.starts_with('\'') {
                    self.skip_escape_string();
                    return Some(Token::Other);
                }
                return Some(Token::Word(word));
            }
            other => self.rest = &self.rest[other.len_utf8()..],
        }
        Some(Token::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str, syntax: Syntax, backslashes: bool) -> Vec<&str> {
        let tokens = Lexer::new(sql, syntax, backslashes);
        let texts = tokens.filter_map(|token| match token {
            Token::Word(word) => Some(word),
            Token::Semicolon => Some(";"),
            Token::Parenthesis | Token::Other => None,
        });
        texts.collect()
    }

    #[test]
    fn each_databases_own_strings_names_and_comments_are_passed_over() {
        for (sql, syntax, expected) in [
            ("a 'b;c' \"d;e\" f", Syntax::Postgres, vec!["a", "f"]),
            ("a $$b;c$$ $x$d;$$;e$x$ f", Syntax::Postgres, vec!["a", "f"]),
            ("a$b$ c", Syntax::Postgres, vec!["a$b$", "c"]),
            ("$1$; a", Syntax::Postgres, vec![";", "a"]),
            ("a /* b /* c */ d */ e -- f\n g", Syntax::Postgres, vec!["a", "e", "g"]),
            ("E'a\\'; b' c", Syntax::Postgres, vec!["c"]),
            ("E'a'\n  '\\'; b' c", Syntax::Postgres, vec!["c"]),
            ("E'a' -- x\n  '\\'; b' c", Syntax::Postgres, vec!["c"]),
            ("E'a''\\'; b' c", Syntax::Postgres, vec!["c"]),
            ("E'a' '\\'; b' c", Syntax::Postgres, vec![";", "b"]),
            ("'a\\'; b --'", Syntax::Postgres, vec![";", "b"]),
            ("a[b] c", Syntax::Postgres, vec!["a", "b", "c"]),
            ("a [b; c] `d; e` f", Syntax::Sqlite, vec!["a", "f"]),
            ("a [it's] b", Syntax::Sqlite, vec!["a", "b"]),
            ("a /* /* */ b", Syntax::Sqlite, vec!["a", "b"]),
            ("'\\'; a", Syntax::Sqlite, vec![";", "a"]),
            ("a `b;c` # d\n e --f\n g", Syntax::Mysql, vec!["a", "e", "f", "g"]),
            ("/*!50000 a */ /*M! b */ c", Syntax::Mysql, vec!["a", "b", "c"]),
            ("@a @@b", Syntax::Mysql, vec!["b"]),
        ] {
            assert_eq!(words(sql, syntax, false), expected, "{sql} {syntax:?}");
        }
        assert_eq!(words("'a\\'; b' c", Syntax::Mysql, true), ["c"]);
        assert_eq!(words("'a\\'; b --'", Syntax::Mysql, false), [";", "b"]);
        assert_eq!(words("'a\\'; b' c", Syntax::Postgres, true), ["c"]);
    }
}

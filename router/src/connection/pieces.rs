//! The statements of a text of SQLite's.

/// Gives a text piece by piece, each up to a semicolon that ends a statement or stands inside a trigger. SQLite has four kinds
/// of quotes, in which the quote itself is doubled or can't be, and two kinds of comments, which don't nest.
pub struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    /// The pieces of `sql`.
    pub fn of(sql: &'a str) -> Self {
        Self { rest: sql }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(end_of_piece(self.rest));
        self.rest = rest;
        Some(piece)
    }
}

/// Where the first semicolon is that is not quoted, and no comment.
fn end_of_piece(sql: &str) -> usize {
    let mut at = 0;
    while let Some(first) = sql.as_bytes().get(at) {
        let rest = &sql[at..];
        at += match first {
            b';' => return at + 1,
            // A doubled quote ends one string and begins another.
            b'\'' | b'"' | b'`' => after(rest, 1, char::from(*first).encode_utf8(&mut [0; 4])),
            b'[' => after(rest, 1, "]"),
            b'-' if rest.starts_with("--") => after(rest, 2, "\n"),
            b'/' if rest.starts_with("/*") => after(rest, 2, "*/"),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    at
}

/// The length up to the end of `end`, which is looked for from `from` on; without it, all that is there.
fn after(text: &str, from: usize, end: &str) -> usize {
    text[from..].find(end).map_or(text.len(), |found| from + found + end.len())
}

/// Whether a piece has a statement, or a part of one.
pub fn is_blank(mut piece: &str) -> bool {
    loop {
        piece = piece.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}', ';', '\u{feff}']);
        let length = match piece {
            comment if comment.starts_with("--") => after(comment, 2, "\n"),
            comment if comment.starts_with("/*") => after(comment, 2, "*/"),
            _ => return piece.is_empty(),
        };
        piece = &piece[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_its_semicolons_alone() {
        for (sql, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a;", &["a;"]),
            ("a; b", &["a;", " b"]),
            ("'a;''b;' ;c", &["'a;''b;' ;", "c"]),
            ("\"a;\" `b;` [c;'] ; d", &["\"a;\" `b;` [c;'] ;", " d"]),
            ("-- a; b\nc; d", &["-- a; b\nc;", " d"]),
            ("/* a; -- */ b; 'c", &["/* a; -- */ b;", " 'c"]),
            ("a - b / c; é;", &["a - b / c;", " é;"]),
            ("/* a; b", &["/* a; b"]),
        ] {
            assert_eq!(Pieces::of(sql).collect::<Vec<_>>(), expected, "{sql}");
        }
    }

    #[test]
    fn a_piece_without_a_statement_is_blank() {
        for blank in ["", " ; ", "-- a", "-- a\n /* b */;", "/* a"] {
            assert!(is_blank(blank), "{blank}");
        }
        for full in ["a", "-- a\nb", "/* */ a", "'"] {
            assert!(!is_blank(full), "{full}");
        }
    }
}

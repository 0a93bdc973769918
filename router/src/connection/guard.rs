//! Finds statements that would begin or end a transaction behind the scope's back.
//!
//! No database tells Diesel of a raw COMMIT, and a raw BEGIN goes back to the pool open. So texts that reach the
//! handle as text are looked at before they are sent.

/// The first words of the statement in `sql` that begins, ends, nests or prepares a transaction, if one does.
pub fn transaction_control(sql: &str) -> Option<String> {
    statements(sql).find_map(|words| is_control(&words).then(|| words.join(" ")))
}

/// Whether the first words of a statement control the transaction.
fn is_control(words: &[String]) -> bool {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        // BEGIN NOT ATOMIC is MariaDB's compound statement.
        "BEGIN" => word(1) != "NOT",
        "COMMIT" | "ROLLBACK" | "END" | "ABORT" | "SAVEPOINT" | "RELEASE" | "XA" => true,
        "START" | "PREPARE" => word(1) == "TRANSACTION",
        "SET" => word(1) == "AUTOCOMMIT",
        _ => false,
    }
}

/// The first two words of each statement, in upper case.
fn statements(sql: &str) -> impl Iterator<Item = Vec<String>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = skip_blank(rest);
            if rest.is_empty() {
                return None;
            }
            if let Some(after) = rest.strip_prefix(';') {
                rest = after;
                continue;
            }
            let mut words = Vec::with_capacity(2);
            let mut at = rest;
            while words.len() < 2 {
                at = skip_blank(at);
                let length = at.bytes().take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'_').count();
                if length == 0 {
                    break;
                }
                words.push(at[..length].to_ascii_uppercase());
                at = &at[length..];
            }
            rest = after_statement(rest);
            return Some(words);
        }
    })
}

/// Skips white space and comments.
fn skip_blank(mut sql: &str) -> &str {
    loop {
        let trimmed = sql.trim_start();
        let after = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            return trimmed;
        };
        sql = after;
    }
}

/// What follows the statement's semicolon. Quoted text, dollar quotes and compound bodies are passed over.
fn after_statement(sql: &str) -> &str {
    let mut rest = sql;
    let mut body = 0_u32;
    loop {
        rest = skip_blank(rest);
        let Some(first) = rest.chars().next() else {
            return "";
        };
        match first {
            ';' if body == 0 => return &rest[1..],
            '\'' | '"' | '`' => rest = rest[1..].split_once(first).map_or("", |(_, after)| after),
            '$' => rest = after_dollar_quote(rest),
            letter if letter.is_ascii_alphabetic() || letter == '_' => {
                let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                // CREATE TRIGGER .. BEGIN ..; ..; END: the semicolons inside end no statement.
                match &rest[..length].to_ascii_uppercase()[..] {
                    "BEGIN" | "CASE" if !std::ptr::eq(rest, sql) => body += 1,
                    "END" if !closes_a_loop(&rest[length..]) => body = body.saturating_sub(1),
                    _ => {}
                }
                rest = &rest[length..];
            }
            other => rest = &rest[other.len_utf8()..],
        }
    }
}

/// Whether what follows an END says that it ends no block: MySQL's `END IF` and the like.
fn closes_a_loop(after: &str) -> bool {
    let word = skip_blank(after);
    ["IF", "LOOP", "WHILE", "REPEAT"].iter().any(|end| {
        word.get(..end.len()).is_some_and(|start| start.eq_ignore_ascii_case(end))
            && !word[end.len()..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
    })
}

/// What follows PostgreSQL's `$tag$ .. $tag$`, or the dollar itself where there is none.
fn after_dollar_quote(sql: &str) -> &str {
    let Some(end) = sql[1..].find('$') else {
        return &sql[1..];
    };
    let tag = &sql[..end + 2];
    if !tag[1..tag.len() - 1].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return &sql[1..];
    }
    sql[tag.len()..].split_once(tag).map_or("", |(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::transaction_control;

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
            "CREATE TABLE t (id INT); BEGIN; DROP TABLE t; COMMIT;",
            "SELECT 1; XA START 'x'",
            "PREPARE TRANSACTION 'x'",
            "SELECT $$a$$; END",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END; COMMIT",
        ] {
            assert!(transaction_control(sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn other_statements_pass() {
        for sql in [
            "",
            ";",
            "SELECT 'x; COMMIT'",
            "INSERT INTO t VALUES ('COMMIT')",
            "UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = 1; DELETE FROM u; END",
            "CREATE PROCEDURE p() BEGIN IF a THEN SET b = 1; END IF; CASE a WHEN 1 THEN SET b = 1; END CASE; END",
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN PERFORM 1; COMMIT; END $$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; END $body$ LANGUAGE plpgsql",
            "SELECT \"begin; commit\" FROM t",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "PREPARE x AS SELECT 1",
            "-- COMMIT",
            "SELECT 1 -- ; COMMIT",
            "DELETE FROM t WHERE a = $1",
        ] {
            assert_eq!(transaction_control(sql), None, "{sql}");
        }
    }
}

//! Keys that contradict each other, each pair refused with one sentence at the key that is in vain.

use syn::{Error, Ident, Result};

use crate::args::Args;
use crate::words::{FLAGS, quoted};

pub(crate) fn refuse(args: &Args) -> Result<()> {
    commits_in_parts(args)?;
    without_a_transaction(args)?;
    together(args)?;
    best_effort(args)?;
    deferrable(args)
}

fn commits_in_parts(args: &Args) -> Result<()> {
    let whole = ["retry", "once"].into_iter().find_map(|key| args.key(key));
    let Some(key) = whole.filter(|_| args.manual) else { return Ok(()) };
    let problem = "is for a function that commits as a whole, and a manual one commits in parts: \
                   leave it out, or move each part into a function of its own";
    Err(refusal(key, problem))
}

/// What only a transaction can have, on a scope that has none, or none of its own.
fn without_a_transaction(args: &Args) -> Result<()> {
    let Some(propagation) = &args.propagation else { return Ok(()) };
    let (word, joins) = match propagation.to_string().as_str() {
        "Mandatory" => ("mandatory", true),
        "Supports" => ("supports", true),
        "Never" => ("never", false),
        "NotSupported" => ("not_supported", false),
        _ => return Ok(()),
    };
    if let Some(key) = args.key("retry") {
        let problem = format!(
            "runs a transaction again, and `propagation = {word}` never opens one: \
             leave it out, or put it on the function that opens the transaction"
        );
        return Err(refusal(key, &problem));
    }
    let needs = ["once", "isolation", "timeout", "commit", "acknowledge"]
        .into_iter()
        .chain(FLAGS)
        .find_map(|key| args.key(key));
    let Some(key) = needs.filter(|_| !joins) else { return Ok(()) };
    let problem = format!("needs a transaction, and with `propagation = {word}` there is none: leave one of them out");
    Err(refusal(key, &problem))
}

fn together(args: &Args) -> Result<()> {
    for (key, other, problem) in [
        ("once", "read_only", "writes its key, which `read_only` refuses: leave one of them out"),
        ("verify_commit", "read_only", "has nothing to verify where `read_only` writes nothing: leave it out"),
        ("commit", "read_only", "has nothing to commit where `read_only` writes nothing: leave it out"),
        ("acknowledge", "read_only", "has nothing to decide where `read_only` writes nothing: leave it out"),
        ("immediate", "exclusive", "is a part of `exclusive`: leave it out"),
    ] {
        if let (Some(key), Some(_)) = (args.key(key), args.key(other)) {
            return Err(refusal(key, problem));
        }
    }
    Ok(())
}

/// What is promised of the work as a whole, of which `best_effort` may leave a part behind.
fn best_effort(args: &Args) -> Result<()> {
    if args.commit.as_ref().is_none_or(|mode| mode != "BestEffort") {
        return Ok(());
    }
    if let Some(key) = args.key("acknowledge").filter(|_| args.acknowledge.as_ref().is_some_and(|at| at == "Decided")) {
        let problem =
            "is about the one decision for all databases, and `commit = best_effort` makes none: leave one of them out";
        return Err(refusal(key, problem));
    }
    for (key, problem) in [
        ("once", "stores a result for the whole work, and `commit = best_effort` may commit a part of it"),
        ("verify_commit", "proves one commit, and `commit = best_effort` makes one for each database"),
    ] {
        if let Some(key) = args.key(key) {
            return Err(refusal(key, &format!("{problem}: leave one of them out")));
        }
    }
    Ok(())
}

fn deferrable(args: &Args) -> Result<()> {
    let Some(key) = args.key("deferrable") else { return Ok(()) };
    let serializable = args.isolation.as_ref().is_some_and(|level| level == "Serializable");
    let missing = [("read_only", args.key("read_only").is_some()), ("isolation = serializable", serializable)];
    let missing = missing.into_iter().filter(|(_, there)| !there).map(|(key, _)| key);
    let missing = quoted(missing).replace(", ", " and ");
    if missing.is_empty() {
        return Ok(());
    }
    Err(refusal(key, &format!("is ignored by PostgreSQL without {missing}: write that too, or leave it out")))
}

fn refusal(key: &Ident, problem: &str) -> Error {
    Error::new(key.span(), format!("`{key}` {problem}"))
}

#[cfg(test)]
mod tests {
    use crate::args::{Args, Mode};

    fn refusal(mode: Mode, text: &str) -> Option<String> {
        let args = Args::parse(mode, text.parse().expect("the test's tokens"));
        args.err().map(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        refusal(Mode::Auto, text).unwrap_or_else(|| panic!("`{text}` is accepted"))
    }

    #[test]
    fn a_manual_scope_is_neither_run_again_nor_once() {
        for text in ["retry = 3", "once = id"] {
            let manual = refusal(Mode::Manual, text).expect("refused");
            assert!(manual.contains("a manual one commits in parts"), "{manual}");
            assert_eq!(refused(&format!("{text}, mode = manual")), manual);
            assert_eq!(refused(&format!("mode = manual, {text}")), manual);
        }
        assert_eq!(refusal(Mode::Manual, "isolation = serializable, timeout = \"5s\""), None);
    }

    #[test]
    fn only_a_scope_that_opens_its_transaction_can_run_it_again() {
        for word in ["mandatory", "supports", "never", "not_supported"] {
            let text = refused(&format!("retry = 3, propagation = {word}"));
            assert!(text.contains(&format!("`propagation = {word}` never opens one")), "{text}");
        }
        for word in ["nested", "join", "durable", "requires_new"] {
            assert_eq!(refusal(Mode::Auto, &format!("retry = 3, propagation = {word}")), None);
        }
    }

    #[test]
    fn a_scope_without_a_transaction_has_nothing_that_is_enforced() {
        let enforced = [
            "once = id",
            "isolation = serializable",
            "timeout = \"5s\"",
            "read_only",
            "deferrable",
            "immediate",
            "exclusive",
            "verify_commit",
            "commit = best_effort",
            "acknowledge = decided",
        ];
        for key in enforced {
            for word in ["never", "not_supported"] {
                let text = refused(&format!("{key}, propagation = {word}"));
                assert!(text.ends_with(&format!("with `propagation = {word}` there is none: leave one of them out")));
            }
        }
        for word in ["never", "not_supported"] {
            assert_eq!(refusal(Mode::Auto, &format!("label = \"a\", propagation = {word}")), None);
        }
        assert_eq!(refusal(Mode::Auto, "read_only, propagation = mandatory"), None);
    }

    #[test]
    fn what_is_in_vain_is_refused() {
        assert!(refused("once = id, read_only").starts_with("`once` writes its key"));
        assert!(refused("read_only, verify_commit").starts_with("`verify_commit` has nothing to verify"));
        assert_eq!(refused("exclusive, immediate"), "`immediate` is a part of `exclusive`: leave it out");
    }

    #[test]
    fn best_effort_is_neither_once_nor_verified() {
        for key in ["once = id", "verify_commit"] {
            let text = refused(&format!("Account, Entry, {key}, commit = best_effort"));
            assert!(text.contains("`commit = best_effort`") && text.ends_with(": leave one of them out"), "{text}");
            assert_eq!(refusal(Mode::Auto, &format!("{key}, commit = atomic")), None);
        }
        assert!(refused("commit = best_effort, read_only").starts_with("`commit` has nothing to commit"));
        for fine in ["retry = 3", "timeout = \"5s\"", "propagation = requires_new", "propagation = mandatory"] {
            assert_eq!(refusal(Mode::Auto, &format!("Account, commit = best_effort, {fine}")), None, "{fine}");
        }
        assert_eq!(refusal(Mode::Manual, "Account, Entry, commit = best_effort"), None);
    }

    #[test]
    fn deferrable_says_what_it_needs() {
        let without = |missing: &str| {
            format!("`deferrable` is ignored by PostgreSQL without {missing}: write that too, or leave it out")
        };
        assert_eq!(refused("deferrable"), without("`read_only` and `isolation = serializable`"));
        assert_eq!(refused("deferrable, isolation = serializable"), without("`read_only`"));
        assert_eq!(refused("deferrable, read_only"), without("`isolation = serializable`"));
        assert_eq!(
            refused("read_only, isolation = repeatable_read, deferrable"),
            without("`isolation = serializable`")
        );
        assert_eq!(refusal(Mode::Auto, "deferrable, read_only, isolation = serializable"), None);
    }
}

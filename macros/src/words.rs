//! The words that the contract knows, and what is said of the others.

use syn::{Error, Ident, Result};

/// The keys.
pub(crate) const KEYS: &[&str] = &[
    "app",
    "using",
    "propagation",
    "mode",
    "databases",
    "hook_errors",
    "hint",
    "isolation",
    "read_only",
    "deferrable",
    "immediate",
    "exclusive",
    "timeout",
    "retry",
    "once",
    "label",
    "verify_commit",
    "commit",
    "acknowledge",
];

/// The keys without a value, each with a method of its name.
pub(crate) const FLAGS: [&str; 5] = ["read_only", "deferrable", "immediate", "exclusive", "verify_commit"];

/// What other libraries call a key, where its letters don't lead there.
const SYNONYMS: &[(&str, &str)] = &[
    ("retries", "retry"),
    ("attempts", "retry"),
    ("isolation_level", "isolation"),
    ("idempotency_key", "once"),
    ("key", "once"),
    ("name", "label"),
    ("ack", "acknowledge"),
    ("database", "using"),
    ("db", "using"),
];

/// The values of `isolation`.
pub(crate) const ISOLATIONS: &[&str] = &["read_committed", "repeatable_read", "serializable", "read_uncommitted"];

/// The values of `propagation`.
pub(crate) const PROPAGATIONS: &[&str] =
    &["nested", "requires_new", "join", "durable", "mandatory", "supports", "never", "not_supported"];

/// The values of `mode`.
pub(crate) const MODES: &[&str] = &["auto", "manual"];

/// The values of `commit`.
pub(crate) const COMMITS: &[&str] = &["atomic", "best_effort"];

/// The values of `acknowledge`.
pub(crate) const ACKNOWLEDGES: &[&str] = &["applied", "decided"];

/// The values of `hook_errors`.
pub(crate) const HOOK_ERRORS: &[&str] = &["reported", "returned"];

/// Refuses a word that is not in the table.
pub(crate) fn known(word: &Ident, table: &[&'static str], what: &str, also: &str) -> Result<()> {
    let written = word.to_string();
    if table.contains(&&*written) {
        return Ok(());
    }
    // A value in the place of its key.
    let values = [
        ("propagation", PROPAGATIONS),
        ("isolation", ISOLATIONS),
        ("commit", COMMITS),
        ("acknowledge", ACKNOWLEDGES),
        ("hook_errors", HOOK_ERRORS),
    ];
    let value = values.iter().find(|(_, values)| values.contains(&&*written));
    let meant = match value {
        Some((key, _)) if what == "key" => Some(format!("{key} = {written}")),
        _ => closest(&written, table).map(str::to_owned),
    };
    let hint = meant.map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
    let accepted = quoted(table.iter().copied());
    Err(Error::new(word.span(), format!("unknown {what} `{written}`{hint} (accepted: {accepted}{also})")))
}

/// `` `a`, `b` `` of names.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known word that a mistyped one most likely means.
fn closest(written: &str, table: &[&'static str]) -> Option<&'static str> {
    let synonym = SYNONYMS.iter().find(|(synonym, _)| *synonym == written).map(|(_, name)| *name);
    if let Some(known) = table.iter().find(|known| synonym == Some(**known)) {
        return Some(known);
    }
    let distances = table.iter().map(|known| (strsim::levenshtein(written, known), *known));
    distances.filter(|&(far, name)| far <= 1 + name.len() / 5).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn refusal(word: &str, table: &[&'static str]) -> Option<String> {
        let word = Ident::new(word, Span::call_site());
        known(&word, table, "key", "").err().map(|error| error.to_string())
    }

    #[test]
    fn every_word_of_the_contract_passes() {
        for table in [KEYS, PROPAGATIONS, ISOLATIONS, MODES, COMMITS, ACKNOWLEDGES, HOOK_ERRORS] {
            for word in table {
                assert_eq!(refusal(word, table), None);
            }
        }
        assert!(FLAGS.iter().all(|flag| refusal(flag, KEYS).is_none()));
    }

    #[test]
    fn a_value_in_the_place_of_a_key_gets_its_key() {
        let refused = refusal("requires_new", KEYS).expect("refused");
        assert!(refused.contains("did you mean `propagation = requires_new`?"), "{refused}");
        let refused = refusal("serializable", KEYS).expect("refused");
        assert!(refused.contains("did you mean `isolation = serializable`?"), "{refused}");
        let refused = refusal("best_effort", KEYS).expect("refused");
        assert!(refused.contains("did you mean `commit = best_effort`?"), "{refused}");
        let refused = refusal("decided", KEYS).expect("refused");
        assert!(refused.contains("did you mean `acknowledge = decided`?"), "{refused}");
    }

    #[test]
    fn a_mistyped_word_gets_a_suggestion_and_a_foreign_one_the_list() {
        let refused = |word| refusal(word, KEYS).expect("refused");
        let list = "(accepted: `app`, `using`, `propagation`, `mode`, `databases`, `hook_errors`, `hint`, `isolation`, \
                    `read_only`, `deferrable`, `immediate`, `exclusive`, `timeout`, `retry`, `once`, `label`, \
                    `verify_commit`, `commit`, `acknowledge`)";
        assert_eq!(refused("usin"), format!("unknown key `usin`, did you mean `using`? {list}"));
        assert!(refused("readonly").contains("did you mean `read_only`?"));
        assert!(refused("timout").contains("did you mean `timeout`?"));
        assert!(refused("retries").contains("did you mean `retry`?"));
        assert!(refused("idempotency_key").contains("did you mean `once`?"));
        let value = refusal("serialisable", ISOLATIONS).expect("refused");
        assert!(value.contains("did you mean `serializable`?"), "{value}");
        assert_eq!(refused("colour"), format!("unknown key `colour` {list}"));
    }
}

//! The words that the contract knows, and what is said of the others.

use syn::{Error, Ident, Result};

/// A word that the contract knows. What is not supported is refused by its name, and not as unknown.
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) supported: bool,
}

/// The keys. One that becomes supported changes its line here and is read in `args`.
pub(crate) const KEYS: &[Word] = &[
    yes("app"),
    yes("using"),
    yes("propagation"),
    yes("mode"),
    yes("databases"),
    yes("hook_errors"),
    yes("hint"),
    yes("isolation"),
    yes("read_only"),
    yes("deferrable"),
    yes("immediate"),
    yes("exclusive"),
    yes("timeout"),
    yes("retry"),
    yes("once"),
    yes("label"),
    yes("verify_commit"),
    yes("commit"),
    no("acknowledge"),
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
    ("database", "using"),
    ("db", "using"),
];

/// The values of `isolation`.
pub(crate) const ISOLATIONS: &[Word] =
    &[yes("read_committed"), yes("repeatable_read"), yes("serializable"), yes("read_uncommitted")];

/// The values of `propagation`.
pub(crate) const PROPAGATIONS: &[Word] = &[
    yes("nested"),
    yes("requires_new"),
    yes("join"),
    yes("durable"),
    yes("mandatory"),
    yes("supports"),
    yes("never"),
    yes("not_supported"),
];

/// The values of `mode`.
pub(crate) const MODES: &[Word] = &[yes("auto"), yes("manual")];

/// The values of `commit`.
pub(crate) const COMMITS: &[Word] = &[yes("atomic"), yes("best_effort")];

/// The values of `hook_errors`.
pub(crate) const HOOK_ERRORS: &[Word] = &[yes("reported"), yes("returned")];

/// Refuses a word that is not in the table, or not supported.
pub(crate) fn known(word: &Ident, table: &[Word], what: &str, also: &str) -> Result<()> {
    let written = word.to_string();
    match table.iter().find(|known| known.name == written) {
        Some(known) if known.supported => Ok(()),
        Some(_) => Err(Error::new(word.span(), unsupported(&written))),
        None => {
            // A value in the place of its key.
            let values = [("propagation", PROPAGATIONS), ("isolation", ISOLATIONS), ("commit", COMMITS)];
            let value = values.iter().find(|(_, values)| values.iter().any(|value| value.name == written));
            let meant = match value {
                Some((key, _)) if what == "key" => Some(format!("{key} = {written}")),
                _ => closest(&written, table).map(str::to_owned),
            };
            let hint = meant.map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
            let accepted = quoted(table.iter().filter(|known| known.supported).map(|known| known.name));
            let message = format!("unknown {what} `{written}`{hint} (accepted: {accepted}{also})");
            Err(Error::new(word.span(), message))
        }
    }
}

pub(crate) fn unsupported(name: &str) -> String {
    format!("`{name}` is not supported yet by this version of multidb")
}

/// `` `a`, `b` `` of names.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

const fn yes(name: &'static str) -> Word {
    Word { name, supported: true }
}

const fn no(name: &'static str) -> Word {
    Word { name, supported: false }
}

/// The known word that a mistyped one most likely means.
fn closest(written: &str, table: &[Word]) -> Option<&'static str> {
    let synonym = SYNONYMS.iter().find(|(synonym, _)| *synonym == written).map(|(_, name)| *name);
    if let Some(known) = table.iter().find(|known| synonym == Some(known.name)) {
        return Some(known.name);
    }
    let distances = table.iter().map(|known| (strsim::levenshtein(written, known.name), known.name));
    distances.filter(|&(far, name)| far <= 1 + name.len() / 5).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn refusal(word: &str, table: &[Word]) -> Option<String> {
        let word = Ident::new(word, Span::call_site());
        known(&word, table, "key", "").err().map(|error| error.to_string())
    }

    #[test]
    fn every_word_of_the_contract_passes_or_says_that_it_is_not_supported() {
        for table in [KEYS, PROPAGATIONS, ISOLATIONS, COMMITS] {
            for word in table {
                let expected = (!word.supported).then(|| unsupported(word.name));
                assert_eq!(refusal(word.name, table), expected);
            }
        }
        let acknowledge = "`acknowledge` is not supported yet by this version of multidb";
        assert_eq!(refusal("acknowledge", KEYS).as_deref(), Some(acknowledge));
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
    }

    #[test]
    fn a_mistyped_word_gets_a_suggestion_and_a_foreign_one_the_list() {
        let refused = |word| refusal(word, KEYS).expect("refused");
        let list = "(accepted: `app`, `using`, `propagation`, `mode`, `databases`, `hook_errors`, `hint`, `isolation`, \
                    `read_only`, `deferrable`, `immediate`, `exclusive`, `timeout`, `retry`, `once`, `label`, \
                    `verify_commit`, `commit`)";
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

//! A hash of a function's text that stays the same when the function moves, or is laid out otherwise.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// FNV-1a. It is for texts of one program, and defends against nothing.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of tokens: what stands between them doesn't count, so that no formatter changes it.
pub(crate) fn text_hash(tokens: impl IntoIterator<Item = TokenStream>) -> u64 {
    tokens.into_iter().fold(OFFSET, hash)
}

fn hash(before: u64, tokens: TokenStream) -> u64 {
    tokens.into_iter().fold(before, |hash_so_far, token| match token {
        TokenTree::Group(group) => {
            let (open, close) = match group.delimiter() {
                Delimiter::Parenthesis => ("(", ")"),
                Delimiter::Brace => ("{", "}"),
                Delimiter::Bracket => ("[", "]"),
                Delimiter::None => ("", ""),
            };
            word(hash(word(hash_so_far, open), group.stream()), close)
        }
        other => word(hash_so_far, &other.to_string()),
    })
}

fn word(before: u64, word: &str) -> u64 {
    if word.is_empty() {
        return before;
    }
    // A byte that no text has, so that `a b` is not `ab`.
    word.bytes().chain([0xff]).fold(before, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u64 {
        text_hash([text.parse().expect("tokens")])
    }

    #[test]
    fn only_the_tokens_count() {
        assert_eq!(of("fn f ( ) { a . b ( 1 ) }"), of("fn f() {\n    // why\n    a.b(1)\n}"));
        assert_ne!(of("fn f() { a(1) }"), of("fn f() { a(2) }"));
        assert_ne!(of("a b"), of("ab"));
        assert_ne!(of("(a) b"), of("(a b)"));
        // What is stored today must be found by later versions.
        assert_eq!(of("fn f() { a(1) }"), 17_563_426_900_550_650_891);
    }
}

//! What stands behind a key.

use std::time::Duration;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitInt, LitStr, Result, Token};

use crate::words::known;

/// The longest `timeout`: a little less than PostgreSQL's limit of milliseconds.
const TIMEOUT_LIMIT: Duration = Duration::from_hours(24 * 24);
/// The most times that a function may be run again: the library's own limit.
const RETRIES_LIMIT: u32 = 1_000;

/// The variant that the word after `key =` names.
pub(crate) fn choice(key: &Ident, among: &[&'static str], input: ParseStream<'_>) -> Result<Ident> {
    let example = among[0];
    equals(key, example, input)?;
    let start = input.span();
    // A known word in quotes is what was meant.
    let quoted = input.fork().parse::<LitStr>().map(|text| text.value()).unwrap_or_default();
    let meant = among.iter().copied().find(|name| *name == quoted).unwrap_or(example);
    let bare = format!("write `{key} = {meant}`, a bare word");
    let word = input.call(Ident::parse_any).map_err(|_| Error::new(start, bare))?;
    known(&word, among, "value", "")?;
    Ok(Ident::new(&variant(&word.to_string()), Span::call_site()))
}

/// `RequiresNew` of `requires_new`.
fn variant(word: &str) -> String {
    let mut start = true;
    let letters = word.chars().filter_map(|letter| {
        let first = std::mem::replace(&mut start, letter == '_');
        (letter != '_').then_some(if first { letter.to_ascii_uppercase() } else { letter })
    });
    letters.collect()
}

/// The string after `app =`, `using =` and `label =`.
pub(crate) fn name(key: &Ident, input: ParseStream<'_>) -> Result<LitStr> {
    equals(key, "\"..\"", input)?;
    let start = input.span();
    let expected = format!("`{key}` takes a name in quotes: write `{key} = \"..\"`");
    let value: LitStr = input.parse().map_err(|_| Error::new(start, expected))?;
    if value.value().is_empty() {
        return Err(Error::new(value.span(), format!("`{key}` must not be empty")));
    }
    Ok(value)
}

pub(crate) fn equals(key: &Ident, example: &str, input: ParseStream<'_>) -> Result<()> {
    match input.parse::<Option<Token![=]>>()? {
        Some(_) => Ok(()),
        None => Err(Error::new(key.span(), format!("`{key}` takes a value: write `{key} = {example}`"))),
    }
}

/// Nothing may follow a flag.
pub(crate) fn flag(key: &Ident, input: ParseStream<'_>) -> Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    Err(Error::new(key.span(), format!("`{key}` takes no value: write `{key}`, or leave it out")))
}

/// The number after `retry =`.
pub(crate) fn times(key: &Ident, input: ParseStream<'_>) -> Result<u32> {
    equals(key, "3", input)?;
    let start = input.span();
    let expected = || Error::new(start, format!("`{key}` takes a number: write `{key} = 3`"));
    let number: LitInt = input.parse().map_err(|_| expected())?;
    if number.base10_digits().starts_with('-') || !number.suffix().is_empty() {
        return Err(expected());
    }
    let problem = match number.base10_parse::<u32>() {
        Ok(0) => format!("`{key} = 0` runs nothing again: leave it out"),
        Ok(times @ 1..=RETRIES_LIMIT) => return Ok(times),
        _ => format!("`{key}` is {RETRIES_LIMIT} at most: write `{key} = 3`, say"),
    };
    Err(Error::new(number.span(), problem))
}

/// The duration after `timeout =`.
pub(crate) fn timeout(key: &Ident, input: ParseStream<'_>) -> Result<Duration> {
    equals(key, "\"5s\"", input)?;
    let start = input.span();
    if let Ok(number) = input.fork().parse::<LitInt>() {
        let text = format!("`{key}` takes a duration in quotes: write `{key} = \"{}s\"`", number.base10_digits());
        return Err(Error::new(start, text));
    }
    let expected = format!("`{key}` takes a duration in quotes: write `{key} = \"5s\"`");
    let text: LitStr = input.parse().map_err(|_| Error::new(start, expected))?;
    duration(&text.value()).map_err(|problem| Error::new(text.span(), format!("`{key}` {problem}")))
}

/// `500ms`, `5s`, `2m` and `1h`.
fn duration(text: &str) -> std::result::Result<Duration, &'static str> {
    let malformed = "is a whole number and a unit, `ms`, `s`, `m` or `h`: write `timeout = \"5s\"`";
    let too_long = "is 24 days at most: write `timeout = \"576h\"` or less";
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(malformed),
    };
    if number.is_empty() {
        return Err(malformed);
    }
    // Digits that are no number are too many.
    let milliseconds = number.parse().ok().and_then(|number: u64| number.checked_mul(milliseconds)).ok_or(too_long)?;
    match Duration::from_millis(milliseconds) {
        Duration::ZERO => Err("must be longer than nothing: write `timeout = \"5s\"`"),
        duration if duration > TIMEOUT_LIMIT => Err(too_long),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse::Parser;

    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, expected) in [
            ("500ms", Duration::from_millis(500)),
            ("5s", Duration::from_secs(5)),
            ("2m", Duration::from_mins(2)),
            ("1h", Duration::from_hours(1)),
            ("0001s", Duration::from_secs(1)),
            ("576h", TIMEOUT_LIMIT),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "5", "s", "5 s", " 5s", "5s ", "+5s", "-5s", "1.5s", "5S", "5sec", "1d", "1h30m", "\u{661}s"] {
            assert!(duration(text).is_err_and(|problem| problem.contains("a whole number and a unit")), "{text}");
        }
        for text in ["0s", "0ms", "00h"] {
            assert!(duration(text).is_err_and(|problem| problem.contains("longer than nothing")), "{text}");
        }
        for text in ["577h", "2073600001ms", "18446744073709551615h", "99999999999999999999s"] {
            assert!(duration(text).is_err_and(|problem| problem.contains("24 days at most")), "{text}");
        }
    }

    #[test]
    fn a_number_of_repetitions_is_a_literal_from_1_to_1000() {
        let read = |text: &str| {
            let key = Ident::new("retry", Span::call_site());
            (|input: ParseStream<'_>| times(&key, input)).parse_str(text).map_err(|error| error.to_string())
        };
        assert_eq!((read("= 1"), read("= 1_000")), (Ok(1), Ok(1_000)));
        for text in ["= N", "= \"3\"", "= -1", "= 3.5", "= 3u8", "= true", "="] {
            assert_eq!(read(text), Err("`retry` takes a number: write `retry = 3`".into()), "{text}");
        }
        assert_eq!(read(""), Err("`retry` takes a value: write `retry = 3`".into()));
        assert_eq!(read("= 0"), Err("`retry = 0` runs nothing again: leave it out".into()));
        for text in ["= 1001", "= 4294967297"] {
            assert_eq!(read(text), Err("`retry` is 1000 at most: write `retry = 3`, say".into()), "{text}");
        }
    }
}

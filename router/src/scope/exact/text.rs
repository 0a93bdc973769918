//! The text of a tree.
//!
//! JSON, and: `~` is `None`, `?x` is `Some(x)`, `()` a unit, `'"x"` a `char`, `b"00ff"` bytes, `inf`, `-inf` and
//! `nan:7ff8000000000000` are floats. A float always has a point, an exponent or such a word, and a key may be anything.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use serde::de::Error;

use super::{Tree, Unfit};

/// How deep values may lie in each other: twice what JSON's reader takes, since `Some` counts here.
const DEPTH_LIMIT: u32 = 256;

impl Tree {
    /// Appends the text.
    pub(super) fn write(&self, text: &mut String) {
        match self {
            Self::None => text.push('~'),
            Self::Some(inner) => {
                text.push('?');
                inner.write(text);
            }
            Self::Unit => text.push_str("()"),
            Self::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Int(value, _) => write(text, format_args!("{value}")),
            Self::Big(value) => write(text, format_args!("{value}")),
            Self::Float(bits, _) => match f64::from_bits(*bits) {
                value if value.is_nan() => write(text, format_args!("{NAN}{bits:016x}")),
                // The shortest digits that give the same number.
                value => write(text, format_args!("{value:?}")),
            },
            Self::Char(value) => {
                text.push('\'');
                quote(&value.to_string(), text);
            }
            Self::Text(value) => quote(value, text),
            Self::Bytes(bytes) => {
                text.push_str("b\"");
                text.push_str(&HEXLOWER.encode(bytes));
                text.push('"');
            }
            Self::Seq(items) | Self::Tuple(items) => {
                text.push('[');
                separated(items, text, Self::write);
                text.push(']');
            }
            Self::Map(entries) => {
                text.push('{');
                separated(entries, text, |(key, value), text| {
                    key.write(text);
                    text.push(':');
                    value.write(text);
                });
                text.push('}');
            }
            Self::Named(_, inner) => inner.write(text),
        }
    }
}

/// What the bits of a NaN follow.
const NAN: &str = "nan:";

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes everything");
}

fn quote(value: &str, text: &mut String) {
    text.push_str(&serde_json::to_string(value).expect("JSON has every text"));
}

fn separated<T>(items: &[T], text: &mut String, mut each: impl FnMut(&T, &mut String)) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        each(item, text);
    }
}

/// The tree of a text.
pub(super) fn parse(text: &str) -> Result<Tree, Unfit> {
    let mut parser = Parser { rest: text, depth: 0 };
    let tree = parser.tree()?;
    if parser.rest.is_empty() { Ok(tree) } else { Err(Unfit::custom("more than one value is stored")) }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    /// Goes over a token, if it comes next.
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn tree(&mut self) -> Result<Tree, Unfit> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(Unfit::custom(format_args!("its values lie more than {DEPTH_LIMIT} deep in each other")));
        }
        let tree = self.any();
        self.depth -= 1;
        tree
    }

    fn any(&mut self) -> Result<Tree, Unfit> {
        if self.takes("~") {
            return Ok(Tree::None);
        } else if self.takes("?") {
            return Ok(Tree::Some(Box::new(self.tree()?)));
        } else if self.takes("()") {
            return Ok(Tree::Unit);
        } else if self.takes("true") {
            return Ok(Tree::Bool(true));
        } else if self.takes("false") {
            return Ok(Tree::Bool(false));
        } else if self.takes("[") {
            return Ok(Tree::Seq(self.until("]", Self::tree)?));
        } else if self.takes("{") {
            return Ok(Tree::Map(self.until("}", Self::entry)?));
        } else if self.takes("'") {
            let text = self.string()?;
            let mut chars = text.chars();
            let (Some(value), None) = (chars.next(), chars.next()) else { return Err(Unfit::custom("no character")) };
            return Ok(Tree::Char(value));
        } else if self.takes("b") {
            let bytes = HEXLOWER.decode(self.string()?.as_bytes());
            return bytes.map(Tree::Bytes).map_err(Unfit::custom);
        } else if self.rest.starts_with('"') {
            return self.string().map(Tree::Text);
        }
        self.number()
    }

    fn entry(&mut self) -> Result<(Tree, Tree), Unfit> {
        let key = self.tree()?;
        if self.takes(":") { Ok((key, self.tree()?)) } else { Err(Unfit::custom("a key without a value")) }
    }

    fn until<T>(&mut self, end: &str, each: fn(&mut Self) -> Result<T, Unfit>) -> Result<Vec<T>, Unfit> {
        let mut items = Vec::new();
        if self.takes(end) {
            return Ok(items);
        }
        loop {
            items.push(each(self)?);
            if self.takes(end) {
                return Ok(items);
            } else if !self.takes(",") {
                return Err(Unfit::custom(format_args!("`{end}` is missing")));
            }
        }
    }

    fn string(&mut self) -> Result<String, Unfit> {
        let mut strings = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
        let string = strings.next().ok_or_else(|| Unfit::custom("a text is missing"))?;
        self.rest = &self.rest[strings.byte_offset()..];
        string.map_err(Unfit::custom)
    }

    fn number(&mut self) -> Result<Tree, Unfit> {
        let (word, rest) = self.rest.split_at(self.rest.find([',', ':', ']', '}']).unwrap_or(self.rest.len()));
        // The colon belongs to it.
        if word == "nan" && self.takes(NAN) {
            let bits = self.rest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let bits = bits.ok_or_else(|| Unfit::custom("a NaN without its bits"))?;
            self.rest = &self.rest[16..];
            return Ok(Tree::Float(bits, ""));
        }
        self.rest = rest;
        if let Ok(value) = word.parse::<i128>() {
            return Ok(Tree::Int(value, ""));
        } else if let Ok(value) = word.parse::<u128>() {
            return Ok(Tree::Big(value));
        }
        let value: f64 = word.parse().map_err(|_| Unfit::custom("a word that is no value"))?;
        Ok(Tree::Float(value.to_bits(), ""))
    }
}

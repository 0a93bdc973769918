//! What stands in the attribute's parentheses.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, Ident, LitStr, Result, Token, Type, token};

use crate::contradictions;
use crate::values::{choice, equals, flag, name, timeout, times};
use crate::words::{ACKNOWLEDGES, COMMITS, FLAGS, HOOK_ERRORS, ISOLATIONS, KEYS, MODES, PROPAGATIONS, known};

/// The arguments of a scope, as far as they can be judged without types.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) place: Place,
    /// The variant of `multidb::Propagation`, if one was written.
    pub(crate) propagation: Option<Ident>,
    /// The function commits and rolls back by itself.
    pub(crate) manual: bool,
    /// The variant of `multidb::HookErrors`, if one was written.
    pub(crate) hook_errors: Option<Ident>,
    /// The variant of `multidb::CommitMode`, if one was written.
    pub(crate) commit: Option<Ident>,
    /// The variant of `multidb::Acknowledge`, if one was written.
    pub(crate) acknowledge: Option<Ident>,
    /// The registry to use in place of the entered or installed one.
    pub(crate) databases: Option<Expr>,
    /// A value for the routers.
    pub(crate) hint: Option<Expr>,
    /// The variant of `multidb::Isolation`, if one was written.
    pub(crate) isolation: Option<Ident>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) label: Option<LitStr>,
    /// How many times the function is run again at most.
    pub(crate) retry: Option<u32>,
    /// The idempotency key.
    pub(crate) once: Option<Expr>,
    /// The keys as they were written, and with them the flags.
    keys: Vec<Ident>,
}

/// What chooses the scope's database.
#[derive(Default)]
pub(crate) enum Place {
    /// The app that the function's module belongs to.
    #[default]
    Module,
    App(LitStr),
    Alias(LitStr),
    Models(Vec<Type>),
}

/// Who ends the transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Auto,
    Manual,
}

impl Args {
    /// `mode` is the one that the attribute's own name says.
    pub(crate) fn parse(mode: Mode, tokens: TokenStream) -> Result<Self> {
        let args = (|input: ParseStream<'_>| {
            let mut args = Self { manual: mode == Mode::Manual, ..Self::default() };
            while !input.is_empty() {
                args.argument(input)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(args)
        })
        .parse2(tokens)?;
        if mode == Mode::Manual && !args.manual {
            return Err(Error::new(Span::call_site(), "`commit_manually` says `mode = manual` already"));
        }
        contradictions::refuse(&args)?;
        Ok(args)
    }

    /// The key, if it was written.
    pub(crate) fn key(&self, name: &str) -> Option<&Ident> {
        self.keys.iter().find(|key| *key == name)
    }

    fn argument(&mut self, input: ParseStream<'_>) -> Result<()> {
        if let Ok(alias) = input.fork().parse::<LitStr>() {
            let text = format!("a database is named by a key: write `using = {}`", alias.to_token_stream());
            return Err(Error::new(alias.span(), text));
        }
        if !starts_with_key(input) {
            return self.model(input);
        }
        let key = input.call(Ident::parse_any)?;
        known(&key, KEYS, "key", ", and models come without a key")?;
        if self.keys.contains(&key) {
            return Err(Error::new(key.span(), format!("`{key}` is given twice")));
        }
        self.value(&key, input)?;
        self.keys.push(key);
        Ok(())
    }

    fn model(&mut self, input: ParseStream<'_>) -> Result<()> {
        let start = input.span();
        let expected = "expected a model, such as `Account`, or a key, such as `using = \"orders\"`";
        let model: Type = input.parse().map_err(|_| Error::new(start, expected))?;
        match &mut self.place {
            Place::Models(models) if models.iter().any(|listed| same(listed, &model)) => {
                Err(Error::new_spanned(&model, format!("`{}` is listed twice", text(&model))))
            }
            Place::Models(models) => {
                models.push(model);
                Ok(())
            }
            Place::Module => {
                self.place = Place::Models(vec![model]);
                Ok(())
            }
            Place::App(_) | Place::Alias(_) => Err(choose_one(&model)),
        }
    }

    fn value(&mut self, key: &Ident, input: ParseStream<'_>) -> Result<()> {
        match key.to_string().as_str() {
            "app" => self.choose(key, Place::App(name(key, input)?))?,
            "using" => self.choose(key, Place::Alias(name(key, input)?))?,
            "propagation" => self.propagation = Some(choice(key, PROPAGATIONS, input)?),
            "mode" => self.manual = choice(key, MODES, input)? == "Manual",
            "hook_errors" => self.hook_errors = Some(choice(key, HOOK_ERRORS, input)?),
            "commit" => self.commit = Some(choice(key, COMMITS, input)?),
            "acknowledge" => self.acknowledge = Some(choice(key, ACKNOWLEDGES, input)?),
            "databases" => {
                equals(key, "&databases", input)?;
                self.databases = Some(input.parse()?);
            }
            "hint" => {
                equals(key, "Shard(user)", input)?;
                self.hint = Some(input.parse()?);
            }
            "isolation" => self.isolation = Some(choice(key, ISOLATIONS, input)?),
            "timeout" => self.timeout = Some(timeout(key, input)?),
            "label" => self.label = Some(name(key, input)?),
            "retry" => self.retry = Some(times(key, input)?),
            "once" => {
                equals(key, "request_id", input)?;
                self.once = Some(input.parse()?);
            }
            word if FLAGS.contains(&word) => flag(key, input)?,
            other => unreachable!("`{other}` is in the table of keys"),
        }
        Ok(())
    }

    fn choose(&mut self, key: &Ident, place: Place) -> Result<()> {
        if !matches!(self.place, Place::Module) {
            return Err(choose_one(key));
        }
        self.place = place;
        Ok(())
    }
}

/// The type as users write it: tokens print with a space between any two.
pub(crate) fn text(ty: &Type) -> String {
    ty.to_token_stream().to_string().replace(' ', "")
}

/// Whether two types are written alike: macros know no more than that.
pub(crate) fn same(a: &Type, b: &Type) -> bool {
    text(a) == text(b)
}

/// Models are paths and mostly in capitals; a lone word in small letters can only be meant as a key.
fn starts_with_key(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let Ok(word) = ahead.call(Ident::parse_any) else {
        return false;
    };
    let lower = word.to_string().starts_with(|first: char| first.is_lowercase());
    ahead.peek(Token![=]) || lower && (ahead.is_empty() || ahead.peek(Token![,]) || ahead.peek(token::Paren))
}

fn choose_one(second: &dyn ToTokens) -> Error {
    Error::new_spanned(second, "models, `app` and `using` each choose the database: choose one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args> {
        Args::parse(Mode::Auto, text.parse().expect("the test's tokens"))
    }

    fn refusal(text: &str) -> String {
        parse(text).err().expect("the arguments are refused").to_string()
    }

    #[test]
    fn models_are_any_types_in_the_order_written() {
        let Ok(Args { place: Place::Models(models), .. }) = parse("Account, crate::bank::Entry, Foo<'a, T>, Self,")
        else {
            panic!("not a list of models");
        };
        let texts: Vec<_> = models.iter().map(text).collect();
        assert_eq!(texts, ["Account", "crate::bank::Entry", "Foo<'a,T>", "Self"]);
    }

    #[test]
    fn supported_keys_are_read() {
        assert!(matches!(parse("").unwrap_or_default().place, Place::Module));
        let args = parse("using = \"orders\", propagation = requires_new").unwrap_or_default();
        assert!(matches!(args.place, Place::Alias(alias) if alias.value() == "orders"));
        assert_eq!(args.propagation.expect("a variant"), "RequiresNew");
        let args = parse("propagation = nested, app = \"bank\"").unwrap_or_default();
        assert!(matches!(args.place, Place::App(app) if app.value() == "bank"));
        assert_eq!(args.propagation.expect("a variant"), "Nested");
    }

    #[test]
    fn options_are_read_with_and_without_values() {
        let args = parse(
            "Account, read_only, isolation = repeatable_read, timeout = \"2m\", retry = 3, once = (id, &body), \
             label = \"pay\", verify_commit = 1",
        );
        assert!(args.is_err_and(|error| error.to_string().starts_with("`verify_commit` takes no value")));
        let args = parse(
            "isolation = repeatable_read, Account, timeout = \"2m\", verify_commit, retry = 3, label = \"pay\", \
             once = (id, &body), immediate",
        );
        let args = args.unwrap_or_default();
        assert_eq!(args.isolation.as_ref().expect("a variant"), "RepeatableRead");
        assert_eq!((args.timeout, args.retry), (Some(Duration::from_mins(2)), Some(3)));
        assert_eq!(args.label.as_ref().map(LitStr::value).as_deref(), Some("pay"));
        assert_eq!(args.once.to_token_stream().to_string(), "(id , & body)");
        let written = ["verify_commit", "immediate", "exclusive"].map(|flag| args.key(flag).is_some());
        assert_eq!(written, [true, true, false]);
    }

    #[test]
    fn how_several_databases_commit_is_one_of_two_words() {
        let commit = |text: &str| parse(text).unwrap_or_default().commit.map(|variant| variant.to_string());
        assert_eq!(commit("Account, Entry"), None);
        assert_eq!(commit("Account, Entry, commit = best_effort").as_deref(), Some("BestEffort"));
        assert_eq!(commit("Account, commit = atomic, retry = 3").as_deref(), Some("Atomic"));
        let accepted = "(accepted: `atomic`, `best_effort`)";
        assert_eq!(refusal("commit = two_phase"), format!("unknown value `two_phase` {accepted}"));
        let mistyped = format!("unknown value `besteffort`, did you mean `best_effort`? {accepted}");
        assert_eq!(refusal("commit = besteffort"), mistyped);
        assert_eq!(refusal("commit = \"best_effort\""), "write `commit = best_effort`, a bare word");
        assert_eq!(refusal("commit"), "`commit` takes a value: write `commit = atomic`");
    }

    #[test]
    fn flags_take_no_value_and_come_once() {
        for text in ["read_only = true", "read_only(true)", "read_only = false, retry = 3"] {
            assert_eq!(refusal(text), "`read_only` takes no value: write `read_only`, or leave it out", "{text}");
        }
        assert_eq!(refusal("read_only, read_only"), "`read_only` is given twice");
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(refusal("using = \"a\", using = \"b\""), "`using` is given twice");
        assert_eq!(refusal("Account, Account"), "`Account` is listed twice");
        let one = "models, `app` and `using` each choose the database: choose one of them";
        for text in ["Account, app = \"a\"", "using = \"a\", Account", "app = \"a\", using = \"b\""] {
            assert_eq!(refusal(text), one);
        }
    }

    #[test]
    fn names_are_strings_after_a_key() {
        assert_eq!(refusal("\"orders\""), "a database is named by a key: write `using = \"orders\"`");
        assert_eq!(refusal("app = \"\""), "`app` must not be empty");
        assert_eq!(refusal("using = orders"), "`using` takes a name in quotes: write `using = \"..\"`");
        assert_eq!(refusal("using(\"orders\")"), "`using` takes a value: write `using = \"..\"`");
        assert_eq!(refusal("app"), "`app` takes a value: write `app = \"..\"`");
    }

    #[test]
    fn a_mode_is_read_from_the_key_or_from_the_attributes_name() {
        assert!(!parse("").unwrap_or_default().manual);
        assert!(parse("mode = manual").unwrap_or_default().manual);
        let manual = |text: &str| Args::parse(Mode::Manual, text.parse().expect("the test's tokens"));
        assert!(manual("").unwrap_or_default().manual);
        assert!(manual("mode = auto").is_err());
    }
}

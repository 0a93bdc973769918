//! The arguments of a function with `retry`: each run gets them anew.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, Expr, FnArg, Generics, Ident, Pat, PatIdent, PatType, Receiver, ReceiverKind, Result, Signature,
    Type,
};

use crate::function::{behind_mut, peel};

/// A function that may be run several times.
#[derive(Debug)]
pub(crate) struct Repeated {
    /// What callers see: the parameters are bound whole.
    pub(crate) sig: Signature,
    /// Binds the user's patterns for one run.
    pub(crate) bindings: TokenStream,
    /// Binds those that the key of `once` looks into.
    pub(crate) key_bindings: TokenStream,
}

impl Repeated {
    pub(crate) fn new(sig: &Signature, statements: &TokenStream, once: Option<&Expr>) -> Result<Self> {
        let key = once.map(ToTokens::to_token_stream).unwrap_or_default();
        let generics = &sig.generics;
        let mut sig = sig.clone();
        let (mut bindings, mut key_bindings) = (TokenStream::new(), TokenStream::new());
        for input in &mut sig.inputs {
            match input {
                FnArg::Receiver(receiver) => shared(receiver)?,
                FnArg::Typed(param) => {
                    given_again(&param.ty)?;
                    let Some(rebound) = rebind(param, statements, generics) else { continue };
                    bindings.extend(rebound.for_a_run(&key));
                    key_bindings.extend(rebound.for_the_key(&key));
                }
            }
        }
        Ok(Self { sig, bindings, key_bindings })
    }
}

/// A parameter that is bound whole by the signature, and by its pattern in each run.
struct Rebound {
    /// Conditions, which hold for the binding too.
    conditions: Vec<Attribute>,
    /// What is said of unused variables, which are those of the binding.
    lints: Vec<Attribute>,
    pat: Pat,
    /// Its value for one run.
    value: TokenStream,
    /// The names that the signature no longer has.
    hidden: Vec<Ident>,
}

impl Rebound {
    fn for_a_run(&self, key: &TokenStream) -> TokenStream {
        let Self { conditions, lints, pat, value, hidden } = self;
        let conditions = quote!(#(#conditions)*);
        // What only the key uses is used.
        let used = hidden.iter().filter(|name| mentions(key, name));
        // In a tuple: a `let` of ours is judged by other lints than a parameter.
        quote!(#conditions #(#lints)* let (#pat,) = (#value,); #(#conditions let _ = &#used;)*)
    }

    fn for_the_key(&self, key: &TokenStream) -> TokenStream {
        let Self { conditions, pat, value, hidden, .. } = self;
        if !hidden.iter().any(|name| mentions(key, name)) {
            return TokenStream::new();
        }
        let conditions = quote!(#(#conditions)*);
        quote!(#conditions let (#pat,) = (#value,); #(#conditions let _ = &#hidden;)*)
    }
}

/// Binds the parameter whole, if the body could not be run twice otherwise.
fn rebind(param: &mut PatType, statements: &TokenStream, generics: &Generics) -> Option<Rebound> {
    let lent = matches!(peel(&param.ty), Type::Reference(_));
    let pat = (*param.pat).clone();
    let (name, hidden) = if let Pat::Ident(PatIdent { by_ref: None, subpat: None, mutability, ident, .. }) = &pat {
        // Nothing moves or changes a shared reference, or what is not used.
        if lent && mutability.is_none() || !mentions(statements, ident) {
            return None;
        }
        (ident.clone(), Vec::new())
    } else {
        let Names { names, unknown } = Names::of(&pat);
        if names.is_empty() && !unknown {
            return None;
        }
        (joined(&names), names)
    };
    let conditional = |attr: &Attribute| attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr");
    let conditions = param.attrs.iter().filter(|attr| conditional(attr)).cloned().collect();
    let of_bindings =
        |attr: &mut Attribute| !conditional(attr) && attr.to_token_stream().to_string().contains("unused");
    let lints = param.attrs.extract_if(.., of_bindings).collect();
    let ty = &param.ty;
    let value = if lent {
        quote!(#name)
    } else if is_parameter(ty, generics) {
        // The compiler's own remedy is a bound, and the trait in it must be one that users know.
        quote!(<#ty as ::core::clone::Clone>::clone(&#name))
    } else {
        quote!(<#ty as ::multidb::__private::Again>::again(&#name))
    };
    *param.pat = Pat::Ident(PatIdent { attrs: Vec::new(), by_ref: None, mutability: None, ident: name, subpat: None });
    Some(Rebound { conditions, lints, pat, value, hidden })
}

/// Whether a type is a type parameter of the function itself.
fn is_parameter(ty: &Type, generics: &Generics) -> bool {
    matches!(peel(ty), Type::Path(path) if generics.type_params().any(|param| path.path.is_ident(&param.ident)))
}

/// Refuses what certainly can't be given to each run. Whether the rest is `Clone` the compiler knows.
fn given_again(ty: &Type) -> Result<()> {
    if behind_mut(ty).is_some() {
        let message = "`retry` may run this function several times, and a later run would find what the one before left \
                       behind `&mut`: take it by value and return it";
        return Err(Error::new_spanned(ty, message));
    }
    if !matches!(peel(ty), Type::Reference(_)) && Opaque::is_in(ty) {
        let message = "`retry` gives each run a clone, and `impl Trait` can't be asked for one: \
                       take `&impl Trait`, or a generic parameter that is `Clone`";
        return Err(Error::new_spanned(ty, message));
    }
    Ok(())
}

fn shared(receiver: &Receiver) -> Result<()> {
    let changed = "`retry` may run this function several times, and a later run would find what the one before left in \
                   `self`: take `&self`";
    let taken = "`retry` may run this function several times, and the first run would take `self`: take `&self`";
    let message = match &receiver.kind {
        ReceiverKind::Reference(_, _, None) => return Ok(()),
        ReceiverKind::Reference(_, _, Some(_)) => changed,
        ReceiverKind::Typed(_, ty) if behind_mut(ty).is_some() => changed,
        ReceiverKind::Typed(_, ty) if matches!(peel(ty), Type::Reference(_)) => return Ok(()),
        _ => taken,
    };
    Err(Error::new_spanned(receiver, message))
}

/// The names that a pattern binds.
#[derive(Default)]
struct Names {
    names: Vec<Ident>,
    /// Whether a macro may bind others.
    unknown: bool,
}

impl Names {
    fn of(pat: &Pat) -> Self {
        let mut names = Self::default();
        names.visit_pat_mut(&mut pat.clone());
        names
    }
}

impl VisitMut for Names {
    fn visit_pat_ident_mut(&mut self, pat: &mut PatIdent) {
        if !self.names.contains(&pat.ident) {
            self.names.push(pat.ident.clone());
        }
        visit_mut::visit_pat_ident_mut(self, pat);
    }

    fn visit_pat_mut(&mut self, pat: &mut Pat) {
        self.unknown |= matches!(pat, Pat::Macro(_) | Pat::Verbatim(_));
        visit_mut::visit_pat_mut(self, pat);
    }
}

/// Whether a type holds an `impl Trait`.
struct Opaque(bool);

impl Opaque {
    fn is_in(ty: &Type) -> bool {
        let mut found = Self(false);
        found.visit_type_mut(&mut ty.clone());
        found.0
    }
}

impl VisitMut for Opaque {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        self.0 |= matches!(ty, Type::ImplTrait(_));
        visit_mut::visit_type_mut(self, ty);
    }
}

/// `a_and_b` for `(a, b)`: what the documentation shows, and what no lint on names objects to. No name of the user's is
/// the same, whatever its letters.
fn joined(names: &[Ident]) -> Ident {
    let words = names.iter().map(|name| {
        let name = name.unraw().to_string().to_lowercase();
        name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
    });
    let mut name = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_and_");
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert_str(0, "argument");
    }
    let plain = syn::parse_str(&name).is_ok_and(|parsed: Ident| parsed == name);
    if plain { Ident::new(&name, Span::mixed_site()) } else { Ident::new_raw(&name, Span::mixed_site()) }
}

/// Whether the tokens may use a name: texts may do so too, as formats.
fn mentions(tokens: &TokenStream, name: &Ident) -> bool {
    let word = name.unraw().to_string();
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&group.stream(), name),
        TokenTree::Ident(ident) => ident.unraw() == word,
        TokenTree::Literal(literal) => literal.to_string().contains(&word),
        TokenTree::Punct(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn repeated(sig: &Signature, body: &TokenStream, once: Option<&Expr>) -> [String; 3] {
        let repeated = Repeated::new(sig, body, once).expect("accepted");
        let text = |tokens: &dyn ToTokens| {
            let text = tokens.to_token_stream().to_string();
            text.replace(":: multidb :: __private :: ", "").replace(":: core :: clone :: ", "")
        };
        [text(&repeated.sig), text(&repeated.bindings), text(&repeated.key_bindings)]
    }

    fn refused(sig: &Signature) -> String {
        Repeated::new(sig, &TokenStream::new(), None).expect_err("refused").to_string()
    }

    #[test]
    fn callers_see_names_in_place_of_patterns() {
        let [sig, bindings, key] = repeated(
            &parse_quote!(fn f(mut a: i64, (b, _c): (String, T), _: Wagon, Unit {}: Unit)),
            &quote!(a + b),
            None,
        );
        assert_eq!(sig, "fn f (a : i64 , b_and_c : (String , T) , _ : Wagon , Unit { } : Unit)");
        let a = "let (mut a ,) = (< i64 as Again > :: again (& a) ,) ;";
        let rest = "let ((b , _c) ,) = (< (String , T) as Again > :: again (& b_and_c) ,) ;";
        assert_eq!((bindings, key), (format!("{a} {rest}"), String::new()));
    }

    #[test]
    fn what_is_lent_or_not_used_is_not_cloned() {
        let sig = parse_quote!(fn f(&self, a: &str, mut b: &[T], &(c, _): &(i64, T), d: Wagon, e: impl_macro!()));
        let [seen, bindings, _] = repeated(&sig, &quote!(println!("{a} {e}"), b, c), None);
        assert_eq!(seen, "fn f (& self , a : & str , b : & [T] , c : & (i64 , T) , d : Wagon , e : impl_macro ! ())");
        let lent = "let (mut b ,) = (b ,) ; let (& (c , _) ,) = (c ,) ;";
        assert_eq!(bindings, format!("{lent} let (e ,) = (< impl_macro ! () as Again > :: again (& e) ,) ;"));
    }

    #[test]
    fn a_type_parameter_is_asked_for_the_bound_that_users_know() {
        let [_, bindings, _] = repeated(&parse_quote!(fn f<T>(a: T, b: Vec<T>)), &quote!(a, b), None);
        let first = "let (a ,) = (< T as Clone > :: clone (& a) ,) ;";
        assert_eq!(bindings, format!("{first} let (b ,) = (< Vec < T > as Again > :: again (& b) ,) ;"));
    }

    #[test]
    fn a_key_sees_the_names_of_patterns() {
        let sig = parse_quote!(fn f((a, b): (T, T), (c, d): (T, T), e: T));
        let [_, bindings, key] = repeated(&sig, &quote!(b, d), Some(&parse_quote!(a + e)));
        let again =
            |names: &str, pattern: &str| format!("let ({pattern} ,) = (< (T , T) as Again > :: again (& {names}) ,) ;");
        let first = again("a_and_b", "(a , b)");
        assert_eq!(bindings, format!("{first} let _ = & a ; {}", again("c_and_d", "(c , d)")));
        assert_eq!(key, format!("{first} let _ = & a ; let _ = & b ;"));
    }

    #[test]
    fn conditions_hold_for_the_binding_and_lints_go_to_it() {
        let sig = parse_quote!(fn f(#[cfg(unix)] #[expect(unused_mut)] #[expect(clippy::large)] mut a: T));
        let [seen, bindings, _] = repeated(&sig, &quote!(a), None);
        assert_eq!(seen, "fn f (# [cfg (unix)] # [expect (clippy :: large)] a : T)");
        assert!(bindings.starts_with("# [cfg (unix)] # [expect (unused_mut)] let (mut a ,)"), "{bindings}");
    }

    #[test]
    fn names_for_patterns_are_always_names() {
        let name = |pat: Pat| joined(&Names::of(&pat).names).to_string();
        let single = |text: &str| name(syn::parse::Parser::parse_str(Pat::parse_multi, text).expect("a pattern"));
        assert_eq!(single("(r#type,)"), "r#type");
        assert_eq!(single("(_0,)"), "argument0");
        assert_eq!(single("(__,)"), "argument");
        assert_eq!(single("Ok(x) | Err(x)"), "x");
        assert_eq!(single("(UNIT, a__b_, c)"), "unit_and_a_b_and_c");
        assert_eq!(single("ref a @ [b, ..]"), "a_and_b");
        assert_eq!(single("pattern!()"), "argument");
    }

    #[test]
    fn what_can_not_be_given_twice_is_refused() {
        for sig in [parse_quote!(fn f(a: &mut T)), parse_quote!(fn f((a, b): &'a mut (T, T)))] {
            assert!(refused(&sig).ends_with("take it by value and return it"));
        }
        for sig in [parse_quote!(fn f(a: impl Copy)), parse_quote!(fn f(a: Option<impl Copy>))] {
            assert!(refused(&sig).contains("`impl Trait` can't be asked for one"));
        }
        for sig in [parse_quote!(fn f(&mut self)), parse_quote!(fn f(self: &mut Self))] {
            assert!(refused(&sig).contains("left in `self`"));
        }
        for sig in [parse_quote!(fn f(self)), parse_quote!(fn f(mut self)), parse_quote!(fn f(self: Rc<Self>))] {
            assert!(refused(&sig).contains("the first run would take `self`"));
        }
        for sig in [parse_quote!(fn f(&'a self, a: &impl Copy)), parse_quote!(fn f(self: &Self))] {
            assert!(Repeated::new(&sig, &TokenStream::new(), None).is_ok());
        }
    }
}

//! The annotated function, taken apart.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, Error, FnArg, Pat, PatType, Result, Signature, Token, Type, Visibility, braced, token};

/// A function without the parameters that the scope supplies.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    /// What callers see.
    pub(crate) sig: Signature,
    /// `None` for a declaration in a trait.
    pub(crate) body: Option<Body>,
    pub(crate) supplied: Vec<Supplied>,
}

/// The body's raw tokens: what is not looked into can't be got wrong.
pub(crate) struct Body {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) statements: TokenStream,
    pub(crate) span: Span,
}

/// A parameter that the scope supplies: marked, or of a type that only a scope can supply.
pub(crate) struct Supplied {
    /// Its `#[conn]` attributes: one, unless the user made a mistake.
    pub(crate) marks: Vec<Attribute>,
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) pat: Pat,
    pub(crate) ty: Type,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Self> {
        (|input: ParseStream<'_>| {
            let attrs = input.call(Attribute::parse_outer)?;
            let vis = input.parse()?;
            if !starts_a_function(input) {
                return Err(input.error("a transaction scope goes on a function"));
            }
            let mut sig: Signature = input.parse()?;
            let supplied = take_supplied(&mut sig);
            let declared = input.parse::<Option<Token![;]>>()?.is_some();
            let body = if declared { None } else { Some(input.parse()?) };
            Ok(Self { attrs, vis, sig, body, supplied })
        })
        .parse2(item)
    }
}

impl Function {
    /// What the function does: all but its documentation, its other attributes and who sees it.
    pub(crate) fn text(&self) -> TokenStream {
        let mut text = self.sig.to_token_stream();
        for Supplied { pat, ty, .. } in &self.supplied {
            pat.to_tokens(&mut text);
            ty.to_tokens(&mut text);
        }
        text.extend(self.body.as_ref().map(|body| body.statements.clone()));
        text
    }
}

impl Parse for Body {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let content;
        let braces = braced!(content in input);
        let attrs = content.call(Attribute::parse_inner)?;
        Ok(Self { attrs, statements: content.parse()?, span: braces.span.join() })
    }
}

impl Supplied {
    /// The error's place is the parameter, name and type.
    pub(crate) fn error(&self, message: &str) -> Error {
        let mut tokens = self.pat.to_token_stream();
        self.ty.to_tokens(&mut tokens);
        Error::new_spanned(tokens, message)
    }
}

/// The type without the groups that `macro_rules` and parentheses put around it.
pub(crate) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        _ => ty,
    }
}

/// The `T` of `&mut T`.
pub(crate) fn behind_mut(ty: &Type) -> Option<&Type> {
    match peel(ty) {
        Type::Reference(reference) if reference.mutability.is_some() => Some(&reference.elem),
        _ => None,
    }
}

/// The last segment of a path: `PgConn` of `multidb::PgConn`.
pub(crate) fn last_segment(ty: &Type) -> Option<String> {
    match peel(ty) {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// Whether the type has the name of one of the library's handles.
pub(crate) fn is_handle(ty: &Type) -> bool {
    let name = last_segment(ty);
    name.is_some_and(|name| ["PgConn", "MysqlConn", "SqliteConn", "AnyConn"].contains(&name.as_str()))
}

/// Whether a `fn` follows, be it after qualifiers.
fn starts_a_function(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    while !ahead.is_empty() && !ahead.peek(Token![fn]) {
        let qualifier = ahead.peek(Token![const])
            || ahead.peek(Token![async])
            || ahead.peek(Token![unsafe])
            || ahead.peek(Token![extern])
            || ahead.peek(syn::LitStr);
        if !qualifier || ahead.parse::<proc_macro2::TokenTree>().is_err() {
            return false;
        }
    }
    ahead.peek(Token![fn]) && !ahead.peek2(token::Paren)
}

/// Takes out of the signature what callers don't pass.
fn take_supplied(sig: &mut Signature) -> Vec<Supplied> {
    let mut supplied = Vec::new();
    let inputs = std::mem::take(&mut sig.inputs);
    for input in inputs {
        match input {
            FnArg::Typed(param) if is_supplied(&param) => {
                let PatType { attrs, pat, ty, .. } = param;
                let (marks, attrs) = attrs.into_iter().partition(is_mark);
                supplied.push(Supplied { marks, attrs, pat: *pat, ty: *ty });
            }
            other => sig.inputs.push(other),
        }
    }
    supplied
}

fn is_supplied(param: &PatType) -> bool {
    param.attrs.iter().any(is_mark) || behind_mut(&param.ty).is_some_and(is_handle)
}

fn is_mark(attr: &Attribute) -> bool {
    attr.path().is_ident("conn")
}

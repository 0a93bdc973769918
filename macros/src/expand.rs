//! What the attributes turn a function into.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Error, Expr, FnArg, Ident, Pat, PatWild, ReturnType, Token, Type, TypeInfer};

use crate::again::Repeated;
use crate::args::{Args, Place};
use crate::check::{self, Handle};
use crate::function::{Body, Function, Supplied, is_handle};
use crate::words::FLAGS;

/// The function that callers see, whose body runs in the scope. `repeated` is it where that may be several times. `text` is
/// the hash of its text.
pub(crate) fn scope(
    function: &Function,
    body: &Body,
    args: &Args,
    handles: &[Handle<'_>],
    repeated: Option<&Repeated>,
    text: u64,
) -> TokenStream {
    let Function { attrs, vis, sig, .. } = function;
    let sig = repeated.map_or(sig, |repeated| &repeated.sig);
    let inner = &body.attrs;
    let site = site(&sig.ident, args.once.is_some().then_some(text));
    let targets = targets(&args.place);
    let options = options(args);
    let types = handle_types(handles);
    let (output, _) = inferred_output(&sig.output);
    let count = handles.len();
    let indices = handles.iter().map(|handle| handle.target);
    let closure = closure(body, handles, repeated);
    let run = match (&args.retry, &args.once) {
        (None, None) => quote!(run),
        (Some(_), None) => quote!(run_again),
        (None, Some(_)) => quote!(run_once),
        (Some(_), Some(_)) => quote!(run_once_again),
    };
    let retries = args.retry.iter();
    let key = args.once.iter().map(|key| once(key, &output, repeated));
    quote! {
        #(#attrs)*
        #vis #sig {
            #(#inner)*
            ::multidb::__private::#run::<#types, #output, #count>(
                #site,
                &[#(#targets),*],
                #options,
                #(#retries,)*
                #(#key,)*
                [#(#indices),*],
                #closure,
            )
        }
    }
}

/// The function with its one error. Callers must not get others, so the signature is the one that a good
/// function would have; the body is kept, and with it the uses of imports and parameters, where it can be
/// checked as it is.
pub(crate) fn refused(function: &Function, error: &Error) -> TokenStream {
    let Function { attrs, vis, .. } = function;
    let error = error.to_compile_error();
    let mut sig = function.sig.clone();
    sig.variadic = None;
    let Some(body) = &function.body else {
        return quote!(#error #(#attrs)* #vis #sig;);
    };
    // The type of `impl Trait` comes from the body alone.
    let (_, opaque) = inferred_output(&sig.output);
    if opaque || sig.constness.is_none() && check::output(&sig).is_ok() {
        let Body { attrs: inner, statements, .. } = body;
        let params = function.supplied.iter().map(
            |Supplied { attrs, pat, ty, .. }| quote!(#(#attrs)* let #pat: #ty = ::core::option::Option::None.unwrap();),
        );
        return quote!(#error #(#attrs)* #vis #sig { #(#inner)* #(#params)* #statements });
    }
    for input in &mut sig.inputs {
        if let FnArg::Typed(param) = input {
            *param.pat = Pat::Wild(PatWild { attrs: Vec::new(), underscore_token: <Token![_]>::default() });
        }
    }
    quote!(#error #(#attrs)* #vis #sig { ::core::unimplemented!() })
}

/// Where the function stands. A constant, so that it costs nothing and lives for ever; the line is the
/// function's own and not the attribute's. One with `once` is also known by its text.
fn site(ident: &Ident, text: Option<u64>) -> TokenStream {
    let name = ident.unraw().to_string();
    let line = quote_spanned!(ident.span()=> ::core::line!());
    let column = quote_spanned!(ident.span()=> ::core::column!());
    let text = text.map(|text| quote!(.with_text(#column, #text)));
    quote! {
        const { &::multidb::__private::Function::new(#name, ::core::module_path!(), ::core::file!(), #line) #text }
    }
}

fn targets(place: &Place) -> Vec<TokenStream> {
    let target = quote!(::multidb::__private::Target);
    match place {
        Place::Module => vec![quote! {
            #target::app_in(::multidb::__private::app_of(::core::module_path!()), ::core::module_path!())
        }],
        Place::App(app) => vec![quote!(#target::app_in(#app, ::core::module_path!()))],
        Place::Alias(alias) => vec![quote!(#target::alias(#alias))],
        Place::Models(models) => models.iter().map(|model| quote!(#target::model::<#model>())).collect(),
    }
}

fn options(args: &Args) -> TokenStream {
    let propagation = args.propagation.iter().map(|variant| quote!(.propagation(::multidb::Propagation::#variant)));
    let manual = args.manual.then(|| quote!(.manual()));
    let hook_errors = args.hook_errors.iter().map(|variant| quote!(.hook_errors(::multidb::HookErrors::#variant)));
    let acknowledge = args.acknowledge.iter().map(|variant| quote!(.acknowledge(::multidb::Acknowledge::#variant)));
    let commit = args.commit.iter().map(|variant| quote!(.commit(::multidb::CommitMode::#variant)));
    let databases = args.databases.iter().map(|databases| quote!(.databases(#databases)));
    let hint = args.hint.iter().map(|hint| quote!(.hint(#hint)));
    let isolation = args.isolation.iter().map(|variant| quote!(.isolation(::multidb::Isolation::#variant)));
    let timeout = args.timeout.iter().map(|timeout| {
        let (seconds, nanoseconds) = (timeout.as_secs(), timeout.subsec_nanos());
        quote!(.timeout(::core::time::Duration::new(#seconds, #nanoseconds)))
    });
    let label = args.label.iter().map(|label| quote!(.label(#label)));
    let flags = FLAGS.into_iter().filter(|flag| args.key(flag).is_some());
    let flags = flags.map(|flag| Ident::new(flag, Span::call_site()));
    quote! {
        ::multidb::__private::Options::new()
            #(#propagation)* #manual #(#hook_errors)* #(#commit)* #(#acknowledge)* #(#databases)* #(#hint)* #(#isolation)* #(#timeout)* #(#label)* #(.#flags())*
    }
}

/// The key, taken while the arguments are still there. An error in it is shown where it stands; one in the output is
/// that of `run_once`, in the same place, and the compiler shows it once.
fn once(key: &Expr, output: &Type, repeated: Option<&Repeated>) -> TokenStream {
    let span = Span::call_site().located_at(key.span());
    let path = quote_spanned!(span=> ::multidb::__private::once);
    let lent = quote_spanned!(span=> &(#key));
    // The closure's type has the function's path in its name.
    let once = quote!(#path::<#output>(&|| (), #lent));
    match repeated.map(|repeated| &repeated.key_bindings) {
        Some(bindings) if !bindings.is_empty() => quote!({ #bindings #once }),
        _ => once,
    }
}

/// The tuple of the handles' types. Its place is a type that only users can have named, if there is one: the
/// compiler shows the tuple where one of them is no handle.
fn handle_types(handles: &[Handle<'_>]) -> TokenStream {
    let types = handles.iter().map(|handle| handle.ty);
    let suspect = handles.iter().find(|handle| !is_handle(handle.ty)).or(handles.first());
    let span = suspect.map_or_else(Span::call_site, |handle| handle.ty.span());
    quote_spanned!(span=> (#(#types,)*))
}

/// The body. Its braces are shown where the user's are, so that a missing `Ok(())` is reported there, and
/// still count as ours, so that no lint takes our `let` for one of the user's statements.
fn closure(body: &Body, handles: &[Handle<'_>], repeated: Option<&Repeated>) -> TokenStream {
    let statements = &body.statements;
    let param = if handles.is_empty() { quote!(_) } else { quote!(__multidb_handles) };
    let params = handles.iter().enumerate().map(|(index, handle)| {
        let Supplied { attrs, pat, .. } = handle.param;
        let index = syn::Index::from(index);
        // In a tuple, or the binding of an unused `_conn` would be a statement without effect.
        quote!(#(#attrs)* let (#pat,) = (&mut __multidb_handles.#index,);)
    });
    let span = Span::call_site().located_at(body.span);
    let bindings = repeated.map(|repeated| &repeated.bindings);
    let block = quote_spanned!(span=> { #(#params)* #bindings #statements });
    quote!(move |#param| #block)
}

/// The return type as it can be written in an expression, and whether it differs: `impl Trait` is `_` there.
fn inferred_output(output: &ReturnType) -> (Type, bool) {
    struct Infer(bool);

    impl VisitMut for Infer {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if matches!(ty, Type::ImplTrait(_)) {
                *ty = Type::Infer(TypeInfer { attrs: Vec::new(), underscore_token: <Token![_]>::default() });
                self.0 = true;
            } else {
                visit_mut::visit_type_mut(self, ty);
            }
        }
    }

    let mut infer = Infer(false);
    let mut ty = match output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => Type::clone(ty),
    };
    infer.visit_type_mut(&mut ty);
    (ty, infer.0)
}

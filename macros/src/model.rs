//! `#[derive(Model)]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Ident, LitStr, Result, Token, Type};

/// The impl, after an error if there is one: without it every use of the model would be another error.
pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut keys = Keys::default();
    let error = keys.read(input).err().map(Error::into_compile_error);

    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let name = ident.unraw().to_string();
    let module = || quote!(::multidb::__private::app_of(::core::module_path!()));
    let app = keys.app.map_or_else(module, |app| quote!(#app));
    let table = keys.table.or(keys.diesel_table).unwrap_or_else(|| inferred_table(&name));
    let parents = if keys.no_relations { Vec::new() } else { keys.parents };
    let parents = (!parents.is_empty()).then(|| {
        let infos = parents.iter().map(|parent| quote_spanned!(parent.span()=> <#parent as ::multidb::Model>::info()));
        quote! {
            fn parents() -> ::std::vec::Vec<&'static ::multidb::ModelInfo> {
                ::std::vec![#(#infos),*]
            }
        }
    });
    quote! {
        #error

        impl #generics ::multidb::Model for #ident #arguments #bounds {
            const NAME: &'static str = #name;
            const APP: &'static str = #app;
            const TABLE: &'static str = #table;

            fn info() -> &'static ::multidb::ModelInfo {
                static INFO: ::multidb::ModelInfo =
                    ::multidb::ModelInfo::new(#name, #app, #table, ::core::module_path!());
                &INFO
            }

            #parents
        }
    }
}

#[derive(Default)]
struct Keys {
    app: Option<LitStr>,
    table: Option<String>,
    diesel_table: Option<String>,
    no_relations: bool,
    /// What the rows belong to, by Diesel's `belongs_to`.
    parents: Vec<Type>,
}

impl Keys {
    fn read(&mut self, input: &DeriveInput) -> Result<()> {
        match &input.data {
            Data::Struct(_) => {}
            Data::Enum(data) => return Err(not_a_struct(data.enum_token.span)),
            Data::Union(data) => return Err(not_a_struct(data.union_token.span)),
        }
        for attr in &input.attrs {
            if attr.path().is_ident("model") {
                attr.parse_nested_meta(|meta| self.key(&meta))?;
            } else if attr.path().is_ident("diesel") {
                self.diesel_table = self.diesel_table.take().or_else(|| diesel_table(attr));
                self.parents.extend(parents(attr));
            }
        }
        Ok(())
    }

    fn key(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let twice = || meta.error("this key is given twice");
        if meta.path.is_ident("app") {
            let app = name(meta)?;
            if self.app.replace(app).is_some() { Err(twice()) } else { Ok(()) }
        } else if meta.path.is_ident("table") {
            let table = name(meta)?.value();
            if self.table.replace(table).is_some() { Err(twice()) } else { Ok(()) }
        } else if meta.path.is_ident("no_relations") {
            if std::mem::replace(&mut self.no_relations, true) { Err(twice()) } else { Ok(()) }
        } else {
            Err(meta.error("unknown key (accepted: `app`, `table`, `no_relations`)"))
        }
    }
}

fn not_a_struct(keyword: Span) -> Error {
    Error::new(keyword, "a model is a struct, whose fields are columns")
}

/// The string after a key.
fn name(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let value: LitStr = meta.value()?.parse()?;
    if value.value().is_empty() { Err(Error::new(value.span(), "this name must not be empty")) } else { Ok(value) }
}

/// `accounts` of `#[diesel(table_name = crate::schema::accounts)]`. Diesel's own derives judge the rest of
/// the attribute, so whatever stands there is passed over.
fn diesel_table(attr: &Attribute) -> Option<String> {
    let tokens: Vec<TokenTree> = attr.meta.require_list().ok()?.tokens.clone().into_iter().collect();
    let mut items = tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','));
    items.find_map(|item| match item {
        [TokenTree::Ident(key), TokenTree::Punct(_), .., TokenTree::Ident(table)] if key == "table_name" => {
            Some(table.unraw().to_string())
        }
        _ => None,
    })
}

/// `User` of `#[diesel(belongs_to(User, foreign_key = user_id))]`. What can't be read is Diesel's to refuse.
fn parents(attr: &Attribute) -> Vec<Type> {
    let Ok(list) = attr.meta.require_list() else { return Vec::new() };
    let tokens: Vec<TokenTree> = list.tokens.clone().into_iter().collect();
    let belongs_to = tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(key), TokenTree::Group(group)] if key == "belongs_to" => Some(group.stream()),
        _ => None,
    });
    let parent = |input: ParseStream<'_>| {
        if input.peek(Ident) && input.peek2(Token![=]) {
            input.parse::<Ident>()?;
            input.parse::<Token![=]>()?;
        }
        let parent = input.parse::<Type>()?;
        input.parse::<TokenStream>()?;
        Ok(parent)
    };
    belongs_to.filter_map(|tokens| Parser::parse2(parent, tokens).ok()).collect()
}

/// Diesel's own rule: the name in snake case, and an `s`.
fn inferred_table(name: &str) -> String {
    let mut table = String::with_capacity(name.len() + 2);
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            table.push('_');
        }
        table.extend(letter.to_lowercase());
    }
    table.push('s');
    table
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn read(input: &DeriveInput) -> (Keys, Option<String>) {
        let mut keys = Keys::default();
        let error = keys.read(input).err().map(|error| error.to_string());
        (keys, error)
    }

    #[test]
    fn the_table_is_the_last_segment_of_diesels_path_among_any_other_items() {
        let (keys, error) = read(&parse_quote! {
            #[diesel(check_for_backend(diesel::pg::Pg, Sqlite), future syntax => 3)]
            #[diesel(primary_key(id, at), table_name = crate::schema::r#accounts, treat_none_as_null = true)]
            struct Account;
        });
        assert_eq!((keys.diesel_table.as_deref(), error), (Some("accounts"), None));
    }

    #[test]
    fn without_a_name_the_table_is_the_one_that_diesel_infers() {
        assert_eq!(inferred_table("Foo"), "foos");
        assert_eq!(inferred_table("FooBarBaz"), "foo_bar_bazs");
        assert_eq!(inferred_table("HTTPLog"), "h_t_t_p_logs");
        assert_eq!(inferred_table("foo_bar"), "foo_bars");
    }

    #[test]
    fn keys_of_ours_are_read() {
        let (keys, error) = read(&parse_quote! {
            #[model(app = "bank", no_relations)]
            #[model(table = "old_accounts")]
            struct Account<'a, T>(&'a T);
        });
        assert_eq!(keys.app.map(|app| app.value()).as_deref(), Some("bank"));
        assert_eq!(keys.table.as_deref(), Some("old_accounts"));
        assert!(keys.no_relations && error.is_none());
    }

    #[test]
    fn what_the_rows_belong_to_is_read_in_each_of_diesels_spellings() {
        let (keys, error) = read(&parse_quote! {
            #[diesel(table_name = posts, belongs_to(User))]
            #[diesel(belongs_to(crate::blog::Author<'_>, foreign_key = written_by))]
            #[diesel(belongs_to(parent = Blog))]
            struct Post;
        });
        let parents: Vec<_> = keys.parents.iter().map(crate::args::text).collect();
        assert_eq!(parents, ["User", "crate::blog::Author<'_>", "Blog"]);
        assert!(error.is_none());
    }

    #[test]
    fn mistakes_are_refused() {
        let refusal = |input: DeriveInput| read(&input).1.expect("refused");
        let accepted = "unknown key (accepted: `app`, `table`, `no_relations`)";
        assert_eq!(
            refusal(parse_quote!(
                #[model(colour = "red")]
                struct A;
            )),
            accepted
        );
        assert_eq!(
            refusal(parse_quote!(
                #[model(app = "")]
                struct A;
            )),
            "this name must not be empty"
        );
        assert_eq!(
            refusal(parse_quote!(
                #[model(app = "a", app = "b")]
                struct A;
            )),
            "this key is given twice"
        );
        assert_eq!(
            refusal(parse_quote!(
                enum A {}
            )),
            "a model is a struct, whose fields are columns"
        );
    }
}

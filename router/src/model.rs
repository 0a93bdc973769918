//! What the library knows of a model.

use std::fmt;

/// A type whose rows live in one database: what routers decide on.
///
/// Derive it: `#[derive(Model)] #[model(app = "bank")]`. The table comes from `#[diesel(table_name = ..)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a model",
    label = "this is not a model",
    note = "write `#[derive(multidb::Model)]` on the type, or name a database with `using = \"alias\"`"
)]
pub trait Model {
    /// The name of the type.
    const NAME: &'static str;
    /// The application that the model belongs to: Django's app label.
    const APP: &'static str;
    /// The table.
    const TABLE: &'static str;
    /// All of it, as routers see it.
    fn info() -> &'static ModelInfo;

    /// The models whose rows its rows belong to, by Diesel's `belongs_to`. `#[model(no_relations)]` leaves them out.
    fn parents() -> Vec<&'static ModelInfo> {
        Vec::new()
    }
}

/// A model as routers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelInfo {
    name: &'static str,
    app: &'static str,
    table: &'static str,
    module: &'static str,
}

impl ModelInfo {
    /// The derive writes one of these for each model.
    pub const fn new(name: &'static str, app: &'static str, table: &'static str, module: &'static str) -> Self {
        Self { name, app, table, module }
    }

    /// The name of the type.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The application that the model belongs to.
    pub const fn app(&self) -> &'static str {
        self.app
    }

    /// The table.
    pub const fn table(&self) -> &'static str {
        self.table
    }

    /// The module path in which the type is defined.
    pub const fn module(&self) -> &'static str {
        self.module
    }
}

impl fmt::Display for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model `{}` of app `{}`", self.name, self.app)
    }
}

/// A list of models: a tuple of types that implement [`Model`].
pub trait Models {
    /// The models, in the order listed.
    fn infos() -> Vec<&'static ModelInfo>;
    /// Each model with each that it belongs to.
    fn relations() -> Vec<[&'static ModelInfo; 2]>;
}

macro_rules! models {
    ($($name:ident)*) => {
        impl<$($name: Model),*> Models for ($($name,)*) {
            fn infos() -> Vec<&'static ModelInfo> {
                vec![$($name::info()),*]
            }

            fn relations() -> Vec<[&'static ModelInfo; 2]> {
                let mut relations = Vec::new();
                $(relations.extend($name::parents().into_iter().map(|parent| [$name::info(), parent]));)*
                relations
            }
        }
    };
}

models!(A);
models!(A B);
models!(A B C);
models!(A B C D);
models!(A B C D E);
models!(A B C D E F);
models!(A B C D E F G);
models!(A B C D E F G H);
models!(A B C D E F G H I);
models!(A B C D E F G H I J);
models!(A B C D E F G H I J K);
models!(A B C D E F G H I J K L);

/// The application that a module belongs to: the first module below the crate, or the crate's own name.
pub const fn app_of(module_path: &'static str) -> &'static str {
    let (krate, rest) = split_segment(module_path);
    if rest.is_empty() { krate } else { split_segment(rest).0 }
}

/// Splits `a::b::c` into `a` and `b::c`.
const fn split_segment(path: &'static str) -> (&'static str, &'static str) {
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b':' {
            return (path.split_at(at).0, path.split_at(at + 2).1);
        }
        at += 1;
    }
    (path, "")
}

#[cfg(test)]
mod tests {
    use super::app_of;

    #[test]
    fn the_app_is_the_first_module_below_the_crate_or_the_crate() {
        assert_eq!(app_of("shop::orders::service"), "orders");
        assert_eq!(app_of("shop::orders"), "orders");
        assert_eq!(app_of("shop"), "shop");
    }
}

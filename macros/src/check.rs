//! What is refused, each with one sentence at the user's token.

use quote::ToTokens;
use syn::{Attribute, Error, Meta, Result, ReturnType, Signature, Type};

use crate::args::{Args, Place, same, text};
use crate::function::{Body, Function, Supplied, behind_mut, last_segment, peel};
use crate::words::quoted;

/// A connection that the scope supplies: one parameter of the function.
pub(crate) struct Handle<'a> {
    pub(crate) param: &'a Supplied,
    pub(crate) ty: &'a Type,
    /// Whose database: an index into the scope's targets.
    pub(crate) target: usize,
}

/// The function's body, if the function can be a scope at all.
pub(crate) fn signature(function: &Function) -> Result<&Body> {
    let Signature { constness, asyncness, abi, ident, .. } = &function.sig;
    let Some(body) = &function.body else {
        return Err(Error::new_spanned(ident, "a transaction scope goes on the implementation"));
    };
    if let Some(token) = constness {
        return Err(Error::new(token.span, "a `const fn` can't open a transaction"));
    }
    if let Some(token) = asyncness {
        let message = "a transaction belongs to one thread: \
                       make this function synchronous and call it through `spawn_blocking`";
        return Err(Error::new(token.span, message));
    }
    if let Some(abi) = abi {
        let message = "an `extern` function can't be a transaction scope: call one from it";
        return Err(Error::new_spanned(abi, message));
    }
    output(&function.sig)?;
    Ok(body)
}

/// Refuses only what certainly is not a `Result`: aliases such as `QueryResult<T>` can't be told from other
/// names.
pub(crate) fn output(sig: &Signature) -> Result<()> {
    let message = "a transaction scope must return a `Result`, so that it knows whether to commit";
    let ReturnType::Type(_, ty) = &sig.output else {
        return Err(Error::new_spanned(&sig.ident, message));
    };
    let refused = match peel(ty) {
        Type::Path(path) if path.path.segments.len() > 1 => false,
        Type::Path(_) => last_segment(ty).is_some_and(|name| NOT_RESULTS.contains(&name.as_str())),
        Type::Infer(_) | Type::Macro(_) | Type::Verbatim(_) => false,
        _ => true,
    };
    if refused { Err(Error::new_spanned(ty, message)) } else { Ok(()) }
}

/// The connections that the function asks for, each with its target.
pub(crate) fn handles<'a>(args: &Args, supplied: &'a [Supplied]) -> Result<Vec<Handle<'a>>> {
    let mut handles: Vec<Handle<'a>> = Vec::new();
    for param in supplied {
        let mark = mark(param)?;
        let handle = Handle { param, ty: handle_type(param)?, target: target(mark, &args.place)? };
        if handles.iter().any(|other| other.target == handle.target) {
            let message = "another parameter is already the connection to this database";
            return Err(Error::new_spanned(mark, message));
        }
        handles.push(handle);
    }
    Ok(handles)
}

/// Types that are not a `Result`, whatever is in scope under other names.
const NOT_RESULTS: [&str; 20] = [
    "bool", "char", "str", "String", "Option", "Vec", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32",
    "i64", "i128", "isize", "f32", "f64",
];

fn mark(param: &Supplied) -> Result<&Attribute> {
    let [mark] = &param.marks[..] else {
        return Err(match param.marks.get(1) {
            Some(second) => Error::new_spanned(second, "this parameter is already marked"),
            None => param.error("mark the parameter that the scope supplies with `#[conn]`"),
        });
    };
    if let Some(cfg) = param.attrs.iter().find(|attr| attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr")) {
        let message = "a supplied parameter can't be conditional: put the condition on the function";
        return Err(Error::new_spanned(cfg, message));
    }
    Ok(mark)
}

fn handle_type(param: &Supplied) -> Result<&Type> {
    let Some(ty) = behind_mut(&param.ty) else {
        let message = "the connection parameter is a mutable reference to a handle, such as `&mut PgConn`";
        return Err(Error::new_spanned(&param.ty, message));
    };
    let ours = match last_segment(ty).as_deref() {
        Some("PgConnection") => "PgConn",
        Some("MysqlConnection") => "MysqlConn",
        Some("SqliteConnection") => "SqliteConn",
        _ => return Ok(ty),
    };
    let message = format!("write `&mut {ours}`: the scope supplies a multidb handle, not Diesel's connection");
    Err(Error::new_spanned(&param.ty, message))
}

/// The index of the target whose connection the mark asks for.
fn target(mark: &Attribute, place: &Place) -> Result<usize> {
    let listed: &[Type] = if let Place::Models(models) = place { models } else { &[] };
    let model: Type = match &mark.meta {
        Meta::Path(_) if listed.len() > 1 => {
            let forms: Vec<String> = listed.iter().map(|model| format!("`#[conn({})]`", text(model))).collect();
            let message = format!("several models are listed: say whose database, {}", forms.join(" or "));
            return Err(Error::new_spanned(mark, message));
        }
        Meta::Path(_) => return Ok(0),
        Meta::List(list) => list.parse_args().map_err(|_| unreadable(mark))?,
        Meta::NameValue(_) => return Err(unreadable(mark)),
    };
    listed.iter().position(|listed| same(listed, &model)).ok_or_else(|| {
        let asked = text(&model);
        let message = if listed.is_empty() {
            format!("this scope lists no models, `{asked}` neither: write `#[conn]`")
        } else {
            let names: Vec<String> = listed.iter().map(text).collect();
            format!("`{asked}` is not listed by this scope, which lists {}", quoted(names.iter().map(String::as_str)))
        };
        Error::new_spanned(model.to_token_stream(), message)
    })
}

fn unreadable(mark: &Attribute) -> Error {
    Error::new_spanned(mark, "write `#[conn]`, or a listed model in parentheses, such as `#[conn(Account)]`")
}

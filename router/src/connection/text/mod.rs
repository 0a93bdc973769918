//! What a raw text may do behind the library's back, as far as its words prove it.
//!
//! A text that is proven harmless costs nothing. One that certainly begins or ends a transaction is refused before it is
//! sent. For every other text the server is asked: see [`question`](super::question).

mod inspection;
mod lexer;

pub use inspection::{Effect, SessionEffect, inspect};
pub use lexer::Syntax;

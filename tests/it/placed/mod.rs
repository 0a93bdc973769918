//! Nested scopes with their models on one database and on several, of one kind and of different kinds: a function means the
//! same in every layout.

mod layout;
mod models;
mod observer;
mod world;

mod composition;
mod dooms;
mod hooks;
mod keys;
mod manual;
mod propagations;
mod tree;
mod tree_model;
mod tree_run;
mod trees;

use models::*;
use world::*;

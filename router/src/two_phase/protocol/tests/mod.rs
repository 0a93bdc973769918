//! The machines in a modelled world: every interleaving, and many random ones.

mod cleaning;
mod client;
mod explorer;
mod recovery;
mod rules;
mod server;
mod settle;
mod simulation;
mod standing;
mod trouble;
mod world;

mod broken;
mod claims;
mod machines;

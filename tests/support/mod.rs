//! What tests on real servers need.

pub mod proxy;
pub mod servers;

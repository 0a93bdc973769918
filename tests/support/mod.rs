//! What tests on real servers need.

pub mod proxy;
#[cfg(test)]
mod proxy_tests;
pub mod servers;

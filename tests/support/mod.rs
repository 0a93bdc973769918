//! What tests on real servers need.

#[cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "testing"))]
pub mod idle;
pub mod proxy;
#[cfg(test)]
mod proxy_tests;
pub mod servers;

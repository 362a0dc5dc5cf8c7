//! The part of PQC-IIoT that touches secrets or every packet. No Python, no files,
//! no sockets, no policy: only primitives, the standards' constructions on them, and
//! memory that secrets may live in.
//!
//! Whoever offers these operations asks [`selftest::ready`] before each: it fails once a
//! self-test failed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod aead;
mod cbor;
pub mod edhoc;
pub mod envelope;
pub mod error;
pub mod handshake;
pub mod hash;
pub mod hpke;
pub mod kem;
pub mod measure;
pub mod memory;
pub mod merkle;
pub mod password;
pub mod rng;
pub mod secret;
pub mod selftest;
pub mod session;
pub mod sig;

#[cfg(test)]
mod test_memory;
#[cfg(test)]
mod test_vectors;

pub use error::{Error, Result};

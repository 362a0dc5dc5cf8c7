//! Randomness: AWS-LC's generator, seeded by the kernel, safe across fork.

use aws_lc_rs::rand;
use rand_core::{CryptoRng, RngCore};

use crate::error::{Error, Result};

/// Fills `out` with random bytes.
pub fn fill(out: &mut [u8]) -> Result<()> {
    rand::fill(out).map_err(|_| Error::System("the random number generator"))
}

/// The same generator for libraries that ask for a `rand_core` one.
///
/// Their interface cannot return an error; AWS-LC aborts the process when the kernel
/// gives no entropy, so there is none to lose.
pub(crate) struct SystemRng {
    failed: bool,
}

impl SystemRng {
    pub(crate) fn new() -> Self {
        Self { failed: false }
    }

    /// Whether every request was served; output made without it must be discarded.
    pub(crate) fn check(&self) -> Result<()> {
        if self.failed {
            Err(Error::System("the random number generator"))
        } else {
            Ok(())
        }
    }
}

impl CryptoRng for SystemRng {}

impl RngCore for SystemRng {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.failed |= fill(out).is_err();
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> core::result::Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

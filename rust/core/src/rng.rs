//! Randomness straight from the kernel: nothing to seed, nothing that a fork could copy.
//! (AWS-LC's own generator, which only its ML-DSA uses, takes 20 ms to gather jitter.)

use rand_core::{CryptoRng, RngCore};

use crate::error::{Error, Result};

/// Fills `out` with random bytes.
pub fn fill(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|_| Error::System("the random number generator"))
}

/// The same generator for libraries that ask for a `rand_core` one.
///
/// Their interface cannot return an error, so a failure is kept for [`SystemRng::check`].
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

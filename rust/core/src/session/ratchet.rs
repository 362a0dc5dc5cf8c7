//! A traffic key on one step of its hash ratchet.

use crate::aead::NONCE_LEN;
use crate::error::{exact, Result};
use crate::hash::{hkdf_expand, Sha2};
use crate::memory::{burning, SecretBytes};

use super::key::PacketKey;

/// Length of a traffic secret: the hash's, in bytes.
pub const SECRET_LEN: usize = 48;

/// Numbers between two steps, as a power of two.
pub(super) const STEP_BITS: u32 = 14;
/// What a step leaves on the stack, and a margin.
const STACK: usize = 8192;

/// The step that a number belongs to.
pub(super) fn step_of(number: u32) -> u32 {
    number >> STEP_BITS
}

pub(super) struct Ratchet {
    pub(super) step: u32,
    key: PacketKey,
    /// Chain (48) || nonce mask (12).
    secret: SecretBytes,
}

impl Ratchet {
    pub(super) fn new(secret: &[u8]) -> Result<Self> {
        exact("the traffic secret", secret, SECRET_LEN)?;
        Self::of(0, secret)
    }

    /// HKDF-Expand (RFC 5869, SHA-384) over the chain before: this step's key, and its
    /// chain and mask.
    fn of(step: u32, chain: &[u8]) -> Result<Self> {
        let mut key = SecretBytes::zeroed(32)?;
        let mut secret = SecretBytes::zeroed(SECRET_LEN + NONCE_LEN)?;
        let key = burning::<STACK, _>(|| {
            hkdf_expand(Sha2::Sha384, chain, &[b"pqc-iiot packet key"], &mut key)?;
            hkdf_expand(Sha2::Sha384, chain, &[b"pqc-iiot packet ratchet"], &mut secret)?;
            PacketKey::new(&key)
        })?;
        Ok(Self { step, key, secret })
    }

    pub(super) fn next(&self) -> Result<Self> {
        Self::of(self.step + 1, &self.secret[..SECRET_LEN])
    }

    /// What is secret, for the test that searches memory for it.
    #[cfg(test)]
    pub(super) fn expose(&self) -> [&[u8]; 2] {
        [&self.secret, self.key.expose()]
    }

    /// The mask with the number in its last bytes: never the same for two packets.
    fn nonce(&self, number: u32) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.secret[SECRET_LEN..]);
        // One store of four bytes: after four stores of one, the AEAD's load has to wait.
        let last = [nonce[8], nonce[9], nonce[10], nonce[11]];
        nonce[8..].copy_from_slice(&(u32::from_be_bytes(last) ^ number).to_be_bytes());
        nonce
    }

    pub(super) fn seal(&self, number: u32, aad: &[u8], text: &[u8], out: &mut [u8]) -> Result<()> {
        self.key.seal_into(&self.nonce(number), aad, text, out)
    }

    pub(super) fn open(&self, number: u32, aad: &[u8], data: &[u8], out: &mut [u8]) -> Result<()> {
        self.key.open_into(&self.nonce(number), aad, data, out)
    }
}

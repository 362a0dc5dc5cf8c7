//! A hybrid private key in two places: the post-quantum half here, the classical half in
//! a device that computes its Diffie-Hellman secret there and gives only that away.

use crate::error::{exact, Error, Result};
use crate::memory::burning;

use super::hybrid::OutsideHalf;
use super::{Kem, PrivateKey, PrivateKeyInner, SharedSecret, STACK};

/// The half of a hybrid private key that is here, and what is public of the other.
pub struct SplitPrivateKey {
    kem: Kem,
    outside: OutsideHalf,
    public_key: Vec<u8>,
}

impl SplitPrivateKey {
    /// The key of `kem` whose ML-KEM half is `pq` and whose classical half, elsewhere, has
    /// the public key `classical` (a point, validated).
    pub fn new(kem: Kem, pq: &PrivateKey, classical: &[u8]) -> Result<Self> {
        if kem != Kem::MlKem768P256 {
            return Err(Error::Parameter("a KEM whose classical half can be outside"));
        }
        let outside = OutsideHalf::new(kem, classical)?;
        if pq.kem != outside.ml_kem() {
            return Err(Error::Parameter("the KEM of the post-quantum half"));
        }
        let public_key = [pq.public_key(), outside.dh_public_key()].concat();
        Ok(Self { kem, outside, public_key })
    }

    /// Its KEM.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The encoded public key of both halves.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The point in `ciphertext` that the device computes its secret on; one that is off
    /// the curve is [`Error::InvalidKey`] and never reaches a device.
    pub fn classical_point<'a>(&self, ciphertext: &'a [u8]) -> Result<&'a [u8]> {
        exact("the KEM ciphertext", ciphertext, self.kem.ciphertext_len())?;
        self.outside.dh_ciphertext(ciphertext)
    }

    /// The shared secret of `ciphertext`, `share` being the device's Diffie-Hellman secret
    /// (an x-coordinate). A wrong share gives a secret that nobody has.
    pub fn decapsulate(
        &self,
        pq: &PrivateKey,
        share: &[u8],
        ciphertext: &[u8],
    ) -> Result<SharedSecret> {
        exact("the KEM ciphertext", ciphertext, self.kem.ciphertext_len())?;
        match &pq.inner {
            PrivateKeyInner::MlKem(key) if pq.kem == self.outside.ml_kem() => {
                burning::<STACK, _>(|| self.outside.decapsulate(key, share, ciphertext))
            }
            _ => Err(Error::Parameter("the KEM of the post-quantum half")),
        }
    }
}

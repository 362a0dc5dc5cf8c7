//! ML-KEM-768 and -1024 (FIPS 203) on libcrux, which takes the 64-byte seed `d || z`
//! that X-Wing and our key files need, and the randomness that vectors need. It wipes
//! nothing: callers run all of this inside [`crate::memory::burning`].

use libcrux_ml_kem::{
    mlkem1024, mlkem768, MlKemPrivateKey as PrivateBytes, MlKemPublicKey as PublicBytes,
};

use crate::error::{array, Error, Result};
use crate::memory::Locked;

use super::{Kem, SharedSecret};

/// Randomness of one encapsulation (`m`), in bytes.
pub(super) const RANDOMNESS: usize = 32;
/// The seed `d || z`, in bytes.
pub(super) const SEED: usize = 64;

const WHAT: &str = "the ML-KEM public key";

pub(super) enum MlKemPublicKey {
    K768(Box<PublicBytes<1184>>),
    K1024(Box<PublicBytes<1568>>),
}

impl MlKemPublicKey {
    /// With the modulus check of FIPS 203 section 7.2.
    pub(super) fn new(kem: Kem, bytes: &[u8]) -> Result<Self> {
        let (key, valid) = if kem == Kem::MlKem768 {
            let key = Box::new(array::<1184>(WHAT, bytes)?.into());
            let valid = mlkem768::validate_public_key(&key);
            (Self::K768(key), valid)
        } else {
            let key = Box::new(array::<1568>(WHAT, bytes)?.into());
            let valid = mlkem1024::validate_public_key(&key);
            (Self::K1024(key), valid)
        };
        valid.then_some(key).ok_or(Error::InvalidKey(WHAT))
    }

    pub(super) fn encapsulate(&self, m: &[u8], ciphertext: &mut [u8]) -> Result<SharedSecret> {
        let m = array::<RANDOMNESS>("the ML-KEM randomness", m)?;
        match self {
            Self::K768(key) => {
                let (encoded, mut secret) = mlkem768::encapsulate(key, m);
                ciphertext.copy_from_slice(encoded.as_ref());
                SharedSecret::take(&mut secret)
            }
            Self::K1024(key) => {
                let (encoded, mut secret) = mlkem1024::encapsulate(key, m);
                ciphertext.copy_from_slice(encoded.as_ref());
                SharedSecret::take(&mut secret)
            }
        }
    }
}

/// Expanded keys (FIPS 203's `dk`) in secret memory; libcrux's type has no destructor,
/// and needs none there.
pub(super) enum MlKemPrivateKey {
    K768(Locked<PrivateBytes<2400>>),
    K1024(Locked<PrivateBytes<3168>>),
}

impl MlKemPrivateKey {
    /// The key of `seed` (64 bytes, `d || z`) and its encoded public key.
    pub(super) fn from_seed(kem: Kem, seed: &[u8]) -> Result<(Self, Vec<u8>)> {
        let seed = array::<SEED>("the ML-KEM seed", seed)?;
        Ok(if kem == Kem::MlKem768 {
            let (private, public) = mlkem768::generate_key_pair(seed).into_parts();
            (Self::K768(Locked::new(private)?), public.as_ref().to_vec())
        } else {
            let (private, public) = mlkem1024::generate_key_pair(seed).into_parts();
            (Self::K1024(Locked::new(private)?), public.as_ref().to_vec())
        })
    }

    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret> {
        match self {
            Self::K768(key) => {
                let encoded = array::<1088>("the ciphertext", ciphertext)?.into();
                SharedSecret::take(&mut mlkem768::decapsulate(key, &encoded))
            }
            Self::K1024(key) => {
                let encoded = array::<1568>("the ciphertext", ciphertext)?.into();
                SharedSecret::take(&mut mlkem1024::decapsulate(key, &encoded))
            }
        }
    }

    /// The secret vector, `dk_PKE`.
    #[cfg(test)]
    pub(super) fn expose(&self) -> &[u8] {
        match self {
            Self::K768(key) => &key.as_slice()[..1152],
            Self::K1024(key) => &key.as_slice()[..1536],
        }
    }
}

//! ML-KEM-768 and -1024 (FIPS 203) on libcrux, which takes the 64-byte seed `d || z`
//! that X-Wing and our key files need, and the randomness that vectors need.

use libcrux_ml_kem::{
    mlkem1024, mlkem768, MlKemCiphertext, MlKemPrivateKey as PrivateBytes,
    MlKemPublicKey as PublicBytes,
};
use zeroize::Zeroizing;

use crate::error::{array, Error, Result};
use crate::memory::{burning, Locked};

use super::{Kem, SharedSecret};

/// Randomness of one encapsulation (`m`), in bytes.
pub(super) const RANDOMNESS: usize = 32;
/// The seed `d || z`, in bytes.
const SEED: usize = 64;
/// What the library leaves on the stack: its locals, about 20 KiB, and a margin.
const STACK: usize = 48 * 1024;

const INVALID: Error = Error::InvalidKey("the ML-KEM public key");

pub(super) enum MlKemPublicKey {
    K768(PublicBytes<1184>),
    K1024(PublicBytes<1568>),
}

impl MlKemPublicKey {
    /// With the modulus check of FIPS 203 section 7.2.
    pub(super) fn new(kem: Kem, bytes: &[u8]) -> Result<Self> {
        let (key, valid) = if kem == Kem::MlKem768 {
            let key = PublicBytes::from(array::<1184>("the ML-KEM-768 public key", bytes)?);
            let valid = mlkem768::validate_public_key(&key);
            (Self::K768(key), valid)
        } else {
            let key = PublicBytes::from(array::<1568>("the ML-KEM-1024 public key", bytes)?);
            let valid = mlkem1024::validate_public_key(&key);
            (Self::K1024(key), valid)
        };
        valid.then_some(key).ok_or(INVALID)
    }

    pub(super) fn encapsulate(&self, m: &[u8], ciphertext: &mut [u8]) -> Result<SharedSecret> {
        burning::<STACK, _>(|| {
            let m = Zeroizing::new(array::<RANDOMNESS>("the ML-KEM randomness", m)?);
            Ok(match self {
                Self::K768(key) => {
                    let (encoded, mut secret) = mlkem768::encapsulate(key, *m);
                    ciphertext.copy_from_slice(encoded.as_ref());
                    SharedSecret::take(&mut secret)?
                }
                Self::K1024(key) => {
                    let (encoded, mut secret) = mlkem1024::encapsulate(key, *m);
                    ciphertext.copy_from_slice(encoded.as_ref());
                    SharedSecret::take(&mut secret)?
                }
            })
        })
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
        burning::<{ 2 * STACK }, _>(|| {
            let seed = array::<SEED>("the ML-KEM seed", seed)?;
            Ok(if kem == Kem::MlKem768 {
                let (private, public) = mlkem768::generate_key_pair(seed).into_parts();
                (Self::K768(Locked::new(private)?), public.as_ref().to_vec())
            } else {
                let (private, public) = mlkem1024::generate_key_pair(seed).into_parts();
                (Self::K1024(Locked::new(private)?), public.as_ref().to_vec())
            })
        })
    }

    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret> {
        burning::<STACK, _>(|| {
            Ok(match self {
                Self::K768(key) => {
                    let encoded = array::<1088>("the ciphertext", ciphertext)?;
                    let encoded = MlKemCiphertext::from(encoded);
                    SharedSecret::take(&mut mlkem768::decapsulate(key, &encoded))?
                }
                Self::K1024(key) => {
                    let encoded = array::<1568>("the ciphertext", ciphertext)?;
                    let encoded = MlKemCiphertext::from(encoded);
                    SharedSecret::take(&mut mlkem1024::decapsulate(key, &encoded))?
                }
            })
        })
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

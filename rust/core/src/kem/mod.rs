//! Key encapsulation: ML-KEM (FIPS 203) and its hybrids, by their HPKE identifiers
//! (draft-ietf-hpke-pq). Private keys are seeds; public keys are validated once.

mod classical;
mod hybrid;
mod ml_kem;
mod split;

use std::ops::Deref;

use zeroize::{Zeroize, Zeroizing};

use crate::error::{exact, Error, Result};
use crate::memory::{burning, SecretBytes};
use crate::rng;

use self::hybrid::{HybridPrivateKey, HybridPublicKey};
use self::ml_kem::{MlKemPrivateKey, MlKemPublicKey};
pub use self::split::SplitPrivateKey;

/// Length of every shared secret here, in bytes.
pub const SHARED_SECRET_LEN: usize = 32;

/// What an operation leaves on the stack: libcrux's locals, measured at about 20 KiB
/// (twice that for a new key), and a margin.
const STACK: usize = 64 * 1024;

/// A KEM by its HPKE identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kem {
    /// ML-KEM-768, 0x0041.
    MlKem768,
    /// ML-KEM-1024, 0x0042.
    MlKem1024,
    /// MLKEM768-P256, 0x0050.
    MlKem768P256,
    /// MLKEM1024-P384, 0x0051.
    MlKem1024P384,
    /// MLKEM768-X25519 (X-Wing), 0x647a.
    MlKem768X25519,
}

/// Sizes of a KEM, in bytes.
struct Sizes {
    seed: usize,
    public_key: usize,
    ciphertext: usize,
}

impl Kem {
    /// Every KEM here.
    pub const ALL: [Self; 5] = [
        Self::MlKem768,
        Self::MlKem1024,
        Self::MlKem768P256,
        Self::MlKem1024P384,
        Self::MlKem768X25519,
    ];

    /// The KEM with HPKE identifier `id`.
    pub fn from_id(id: u16) -> Result<Self> {
        Self::ALL.into_iter().find(|kem| kem.id() == id).ok_or(Error::UnknownAlgorithm(id.into()))
    }

    /// The HPKE identifier.
    pub fn id(self) -> u16 {
        match self {
            Self::MlKem768 => 0x0041,
            Self::MlKem1024 => 0x0042,
            Self::MlKem768P256 => 0x0050,
            Self::MlKem1024P384 => 0x0051,
            Self::MlKem768X25519 => 0x647a,
        }
    }

    fn sizes(self) -> Sizes {
        let (seed, public_key, ciphertext) = match self {
            Self::MlKem768 => (64, 1184, 1088),
            Self::MlKem1024 => (64, 1568, 1568),
            Self::MlKem768P256 => (32, 1184 + 65, 1088 + 65),
            Self::MlKem1024P384 => (32, 1568 + 97, 1568 + 97),
            Self::MlKem768X25519 => (32, 1184 + 32, 1088 + 32),
        };
        Sizes { seed, public_key, ciphertext }
    }

    /// Length of the private key, a seed, in bytes.
    pub fn seed_len(self) -> usize {
        self.sizes().seed
    }

    /// Length of the public (encapsulation) key in bytes.
    pub fn public_key_len(self) -> usize {
        self.sizes().public_key
    }

    /// Length of the ciphertext (HPKE's `enc`) in bytes.
    pub fn ciphertext_len(self) -> usize {
        self.sizes().ciphertext
    }
}

/// A shared secret: 32 bytes in secret memory.
pub struct SharedSecret(SecretBytes);

impl SharedSecret {
    /// Moves a library's plain array into secret memory and wipes the array.
    fn take(bytes: &mut [u8; SHARED_SECRET_LEN]) -> Result<Self> {
        let secret = SecretBytes::copy_from(bytes);
        bytes.zeroize();
        secret.map(Self)
    }

    /// A shared secret that was computed elsewhere, in a token: 32 bytes.
    pub fn copy_from(bytes: &[u8]) -> Result<Self> {
        exact("the shared secret", bytes, SHARED_SECRET_LEN)?;
        SecretBytes::copy_from(bytes).map(Self)
    }
}

impl Deref for SharedSecret {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self, other).is_ok()
    }
}

enum PublicKeyInner {
    MlKem(MlKemPublicKey),
    Hybrid(HybridPublicKey),
}

/// A public key, validated once for many encapsulations.
pub struct PublicKey {
    kem: Kem,
    inner: PublicKeyInner,
}

impl PublicKey {
    /// Validates `bytes` (FIPS 203 section 7.2 and the point's encoding).
    pub fn new(kem: Kem, bytes: &[u8]) -> Result<Self> {
        exact("the KEM public key", bytes, kem.public_key_len())?;
        let inner = match kem {
            Kem::MlKem768 | Kem::MlKem1024 => {
                PublicKeyInner::MlKem(MlKemPublicKey::new(kem, bytes)?)
            }
            Kem::MlKem768P256 | Kem::MlKem1024P384 | Kem::MlKem768X25519 => {
                PublicKeyInner::Hybrid(HybridPublicKey::new(kem, bytes)?)
            }
        };
        Ok(Self { kem, inner })
    }

    /// Its KEM.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// Encapsulates to this key: ciphertext and shared secret.
    pub fn encapsulate(&self) -> Result<(Vec<u8>, SharedSecret)> {
        let mut randomness = Zeroizing::new([0u8; hybrid::MAX_RANDOMNESS]);
        let randomness = &mut randomness[..self.randomness_len()];
        rng::fill(randomness)?;
        self.encapsulate_derand(randomness)
    }

    pub(crate) fn randomness_len(&self) -> usize {
        match &self.inner {
            PublicKeyInner::MlKem(_) => ml_kem::RANDOMNESS,
            PublicKeyInner::Hybrid(key) => key.randomness_len(),
        }
    }

    /// Encapsulation with given randomness: for published vectors and self-tests only.
    pub(crate) fn encapsulate_derand(&self, randomness: &[u8]) -> Result<(Vec<u8>, SharedSecret)> {
        exact("the encapsulation randomness", randomness, self.randomness_len())?;
        burning::<STACK, _>(|| match &self.inner {
            PublicKeyInner::MlKem(key) => {
                let mut ciphertext = vec![0; self.kem.ciphertext_len()];
                let secret = key.encapsulate(randomness, &mut ciphertext)?;
                Ok((ciphertext, secret))
            }
            PublicKeyInner::Hybrid(key) => key.encapsulate(randomness),
        })
    }
}

enum PrivateKeyInner {
    MlKem(MlKemPrivateKey),
    Hybrid(HybridPrivateKey),
}

/// A private key: its seed and what was expanded from it, all in secret memory.
pub struct PrivateKey {
    kem: Kem,
    seed: SecretBytes,
    public_key: Vec<u8>,
    inner: PrivateKeyInner,
}

impl PrivateKey {
    /// A new key from fresh randomness.
    pub fn generate(kem: Kem) -> Result<Self> {
        let mut seed = SecretBytes::zeroed(kem.seed_len())?;
        rng::fill(&mut seed)?;
        Self::from_seed(kem, seed)
    }

    /// The key that `seed` stands for.
    pub fn from_seed(kem: Kem, seed: SecretBytes) -> Result<Self> {
        exact("the KEM seed", &seed, kem.seed_len())?;
        let (inner, public_key) = burning::<STACK, _>(|| -> Result<_> {
            Ok(match kem {
                Kem::MlKem768 | Kem::MlKem1024 => {
                    let (key, public_key) = MlKemPrivateKey::from_seed(kem, &seed)?;
                    (PrivateKeyInner::MlKem(key), public_key)
                }
                Kem::MlKem768P256 | Kem::MlKem1024P384 | Kem::MlKem768X25519 => {
                    let (key, public_key) = HybridPrivateKey::from_seed(kem, &seed)?;
                    (PrivateKeyInner::Hybrid(key), public_key)
                }
            })
        })?;
        Ok(Self { kem, seed, public_key, inner })
    }

    /// Its KEM.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The encoded public key.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(crate) fn seed(&self) -> &[u8] {
        &self.seed
    }

    /// What is secret besides the seed, for the test that searches memory for it.
    #[cfg(test)]
    pub(crate) fn expose(&self, mut show: impl FnMut(&[u8])) {
        match &self.inner {
            PrivateKeyInner::MlKem(key) => show(key.expose()),
            PrivateKeyInner::Hybrid(key) => key.expose(show),
        }
    }

    /// The shared secret of `ciphertext`. A ciphertext of the right length always gives
    /// one (implicit rejection, FIPS 203 section 6.3); a wrong one just never matches.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret> {
        exact("the KEM ciphertext", ciphertext, self.kem.ciphertext_len())?;
        burning::<STACK, _>(|| match &self.inner {
            PrivateKeyInner::MlKem(key) => key.decapsulate(ciphertext),
            PrivateKeyInner::Hybrid(key) => key.decapsulate(ciphertext),
        })
    }
}

#[cfg(test)]
mod tests;

//! Signatures by their COSE algorithm numbers: Falcon round 3 with padded signatures
//! (private-use numbers until one is assigned), ML-DSA (FIPS 204, RFC 9964), and Falcon
//! together with ECDSA.

mod composite;
mod ecdsa;
mod falcon;
mod ml_dsa;

use crate::error::{exact, Error, Result};
use crate::memory::SecretBytes;
use crate::selftest;

/// A signature algorithm by its COSE number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sig {
    /// Falcon-512, round 3, padded: -65601 (private use).
    Falcon512,
    /// Falcon-1024, round 3, padded: -65602 (private use).
    Falcon1024,
    /// Falcon-512 and ECDSA P-256, both required: -65603 (private use).
    Falcon512EcdsaP256,
    /// ML-DSA-65: -49.
    MlDsa65,
    /// ML-DSA-87: -50.
    MlDsa87,
}

impl Sig {
    /// Every signature algorithm here.
    pub const ALL: [Self; 5] =
        [Self::Falcon512, Self::Falcon1024, Self::Falcon512EcdsaP256, Self::MlDsa65, Self::MlDsa87];

    /// The algorithm with COSE number `id`.
    pub fn from_id(id: i64) -> Result<Self> {
        Self::ALL.into_iter().find(|sig| sig.id() == id).ok_or(Error::UnknownAlgorithm(id))
    }

    /// The COSE algorithm number.
    pub fn id(self) -> i64 {
        match self {
            Self::Falcon512 => -65601,
            Self::Falcon1024 => -65602,
            Self::Falcon512EcdsaP256 => -65603,
            Self::MlDsa65 => -49,
            Self::MlDsa87 => -50,
        }
    }

    /// Length of the encoded private key: Falcon's round-3 encoding, ML-DSA's seed, ECDSA's
    /// scalar.
    pub fn private_key_len(self) -> usize {
        match self {
            Self::Falcon512 => 1281,
            Self::Falcon1024 => 2305,
            Self::Falcon512EcdsaP256 => 1281 + ecdsa::SCALAR_LEN,
            Self::MlDsa65 | Self::MlDsa87 => 32,
        }
    }

    /// Length of the public key in bytes.
    pub fn public_key_len(self) -> usize {
        match self {
            Self::Falcon512 => 897,
            Self::Falcon1024 => 1793,
            Self::Falcon512EcdsaP256 => 897 + ecdsa::PUBLIC_LEN,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }

    /// Length of a signature in bytes.
    pub fn signature_len(self) -> usize {
        match self {
            Self::Falcon512 => 666,
            Self::Falcon1024 => 1280,
            Self::Falcon512EcdsaP256 => 666 + ecdsa::SIGNATURE_LEN,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }

    /// Whether it draws from AWS-LC's generator, which is tested when it is first used.
    fn signs_with_aws_lc(self) -> bool {
        !matches!(self, Self::Falcon512 | Self::Falcon1024)
    }
}

/// What both halves of the composite [`Sig::Falcon512EcdsaP256`] sign for `message`, where
/// one of them is elsewhere. ECDSA hashes it with SHA-256.
pub fn composite_message(message: &[u8]) -> Vec<u8> {
    composite::representative(message)
}

/// Whether `signature` (r || s, 64 bytes) is one of `message` by the ECDSA P-256 key with
/// this uncompressed point, with SHA-256: what devices sign statements about themselves
/// with. Bytes that are no point verify nothing.
pub fn ecdsa_verify(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ecdsa::VerifyingKey::new(point).is_ok_and(|key| key.verify(message, signature))
}

enum VerifyingInner {
    Falcon(falcon::VerifyingKey),
    Composite(composite::VerifyingKey),
    MlDsa(ml_dsa::VerifyingKey),
}

/// A public key, decoded once for many verifications.
pub struct VerifyingKey {
    sig: Sig,
    inner: VerifyingInner,
}

impl VerifyingKey {
    /// Decodes and validates `bytes`.
    pub fn new(sig: Sig, bytes: &[u8]) -> Result<Self> {
        exact("the signature public key", bytes, sig.public_key_len())?;
        let inner = match sig {
            Sig::Falcon512 | Sig::Falcon1024 => {
                VerifyingInner::Falcon(falcon::VerifyingKey::new(sig, bytes)?)
            }
            Sig::Falcon512EcdsaP256 => {
                VerifyingInner::Composite(composite::VerifyingKey::new(bytes)?)
            }
            Sig::MlDsa65 | Sig::MlDsa87 => {
                VerifyingInner::MlDsa(ml_dsa::VerifyingKey::new(sig, bytes)?)
            }
        };
        Ok(Self { sig, inner })
    }

    /// Its algorithm.
    pub fn sig(&self) -> Sig {
        self.sig
    }

    /// Whether `signature` is one of `message` by this key; never an error.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == self.sig.signature_len()
            && match &self.inner {
                VerifyingInner::Falcon(key) => key.verify(message, signature),
                VerifyingInner::Composite(key) => key.verify(message, signature),
                VerifyingInner::MlDsa(key) => key.verify(message, signature),
            }
    }
}

enum SigningInner {
    Falcon(falcon::SigningKey),
    Composite(composite::SigningKey),
    MlDsa,
}

/// A private key: its encoding, and for Falcon the expanded basis, in secret memory.
pub struct SigningKey {
    sig: Sig,
    encoded: SecretBytes,
    public_key: Vec<u8>,
    inner: SigningInner,
}

impl SigningKey {
    /// A new key from fresh randomness.
    pub fn generate(sig: Sig) -> Result<Self> {
        let mut encoded = SecretBytes::zeroed(sig.private_key_len())?;
        match sig {
            Sig::Falcon512 | Sig::Falcon1024 => falcon::generate(sig, &mut encoded)?,
            Sig::Falcon512EcdsaP256 => composite::generate(&mut encoded)?,
            Sig::MlDsa65 | Sig::MlDsa87 => crate::rng::fill(&mut encoded)?,
        }
        Self::from_encoded(sig, encoded)
    }

    /// The key with this encoding (see [`Sig::private_key_len`]).
    pub fn from_encoded(sig: Sig, encoded: SecretBytes) -> Result<Self> {
        if sig.signs_with_aws_lc() {
            selftest::check_aws_lc_signing(sig)?;
        }
        Self::for_self_test(sig, encoded)
    }

    /// As [`SigningKey::from_encoded`], without asking for the self-test that this serves.
    pub(crate) fn for_self_test(sig: Sig, encoded: SecretBytes) -> Result<Self> {
        exact("the signature private key", &encoded, sig.private_key_len())?;
        let (inner, public_key) = match sig {
            Sig::Falcon512 | Sig::Falcon1024 => {
                let (key, public_key) = falcon::SigningKey::new(sig, &encoded)?;
                (SigningInner::Falcon(key), public_key)
            }
            Sig::Falcon512EcdsaP256 => {
                let (key, public_key) = composite::SigningKey::new(&encoded)?;
                (SigningInner::Composite(key), public_key)
            }
            Sig::MlDsa65 | Sig::MlDsa87 => {
                (SigningInner::MlDsa, ml_dsa::public_key(sig, &encoded)?)
            }
        };
        Ok(Self { sig, encoded, public_key, inner })
    }

    /// Its algorithm.
    pub fn sig(&self) -> Sig {
        self.sig
    }

    /// The encoded public key.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// What is secret besides the encoding, for the test that searches memory for it.
    #[cfg(test)]
    pub(crate) fn expose(&self, show: impl FnMut(&[u8])) {
        match &self.inner {
            SigningInner::Falcon(key) => key.expose(show),
            SigningInner::Composite(key) => key.expose(&self.encoded, show),
            SigningInner::MlDsa => ml_dsa::expose(self.sig, &self.encoded, show),
        }
    }

    /// A signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.sig.signature_len()];
        match &self.inner {
            SigningInner::Falcon(key) => key.sign(message, &mut signature)?,
            SigningInner::Composite(key) => key.sign(&self.encoded, message, &mut signature)?,
            SigningInner::MlDsa => {
                ml_dsa::sign(self.sig, &self.encoded, message, &mut signature)?;
            }
        }
        Ok(signature)
    }
}

#[cfg(test)]
mod tests;

//! Falcon-512 and -1024 as submitted to NIST's round 3, with padded signatures, on
//! `fn-dsa` in its round-3 mode. Not FN-DSA: FIPS 206 is unpublished.

use std::sync::{Mutex, PoisonError};

use fn_dsa::{
    KeyPairGenerator, KeyPairGenerator1024, KeyPairGenerator512, SigningKey as _, SigningKey1024,
    SigningKey512, VerifyingKey as _, VerifyingKey1024, VerifyingKey512, DOMAIN_NONE,
    FN_DSA_LOGN_1024, FN_DSA_LOGN_512, HASH_ID_ORIGINAL_FALCON,
};
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::memory::{burning, Locked};
use crate::rng::SystemRng;

use super::Sig;

/// Expanded keys pass over the stack by value when they are decoded (57 and 114 KiB,
/// twice); afterwards the stack is burnt.
const DECODE_STACK: usize = 384 * 1024;
/// What signing leaves on the stack besides the key's own buffers: the sampler.
const SIGN_STACK: usize = 16 * 1024;

const INVALID_PRIVATE: Error = Error::InvalidKey("the Falcon private key");

pub(super) enum VerifyingKey {
    Falcon512(Box<VerifyingKey512>),
    Falcon1024(Box<VerifyingKey1024>),
}

impl VerifyingKey {
    pub(super) fn new(sig: Sig, bytes: &[u8]) -> Result<Self> {
        if sig == Sig::Falcon512 {
            VerifyingKey512::decode(bytes).map(|key| Self::Falcon512(Box::new(key)))
        } else {
            VerifyingKey1024::decode(bytes).map(|key| Self::Falcon1024(Box::new(key)))
        }
        .ok_or(Error::InvalidKey("the Falcon public key"))
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let id = &HASH_ID_ORIGINAL_FALCON;
        match self {
            Self::Falcon512(key) => key.verify(signature, &DOMAIN_NONE, id, message),
            Self::Falcon1024(key) => key.verify(signature, &DOMAIN_NONE, id, message),
        }
    }
}

/// Signing works in buffers that are part of the key, so it takes turns.
pub(super) enum SigningKey {
    Falcon512(Mutex<Locked<SigningKey512>>),
    Falcon1024(Mutex<Locked<SigningKey1024>>),
}

impl SigningKey {
    /// The expanded key and its encoded public key.
    pub(super) fn new(sig: Sig, encoded: &[u8]) -> Result<(Self, Vec<u8>)> {
        let mut public_key = vec![0; sig.public_key_len()];
        let key = burning::<DECODE_STACK, _>(|| -> Result<_> {
            Ok(if sig == Sig::Falcon512 {
                let key = Locked::new(SigningKey512::decode(encoded).ok_or(INVALID_PRIVATE)?)?;
                key.to_verifying_key(&mut public_key);
                Self::Falcon512(Mutex::new(key))
            } else {
                let key = Locked::new(SigningKey1024::decode(encoded).ok_or(INVALID_PRIVATE)?)?;
                key.to_verifying_key(&mut public_key);
                Self::Falcon1024(Mutex::new(key))
            })
        })?;
        Ok((key, public_key))
    }

    pub(super) fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<()> {
        let (mut rng, id) = (SystemRng::new(), &HASH_ID_ORIGINAL_FALCON);
        // A poisoned lock only means that a thread died while the buffers were in use;
        // every signature starts from the key itself.
        burning::<SIGN_STACK, _>(|| match self {
            Self::Falcon512(key) => {
                let mut key = key.lock().unwrap_or_else(PoisonError::into_inner);
                key.sign(&mut rng, &DOMAIN_NONE, id, message, signature);
            }
            Self::Falcon1024(key) => {
                let mut key = key.lock().unwrap_or_else(PoisonError::into_inner);
                key.sign(&mut rng, &DOMAIN_NONE, id, message, signature);
            }
        });
        rng.check().inspect_err(|_| signature.zeroize())
    }
}

#[cfg(test)]
impl SigningKey {
    /// The whole expanded key: f, g, F, G, the basis and the work buffers.
    pub(super) fn expose(&self, mut show: impl FnMut(&[u8])) {
        fn bytes<T>(value: &T) -> &[u8] {
            // SAFETY: arrays of numbers; read-only; padding at the end is not compared
            // for a meaning.
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
        }
        match self {
            Self::Falcon512(key) => show(bytes::<SigningKey512>(&key.lock().unwrap())),
            Self::Falcon1024(key) => show(bytes::<SigningKey1024>(&key.lock().unwrap())),
        }
    }
}

/// Writes a new private key's encoding into `encoded`.
pub(super) fn generate(sig: Sig, encoded: &mut [u8]) -> Result<()> {
    let mut rng = SystemRng::new();
    let mut public_key = vec![0; sig.public_key_len()];
    burning::<DECODE_STACK, _>(|| -> Result<()> {
        if sig == Sig::Falcon512 {
            let mut generator = Locked::new(KeyPairGenerator512::default())?;
            generator.keygen(FN_DSA_LOGN_512, &mut rng, encoded, &mut public_key);
        } else {
            let mut generator = Locked::new(KeyPairGenerator1024::default())?;
            generator.keygen(FN_DSA_LOGN_1024, &mut rng, encoded, &mut public_key);
        }
        Ok(())
    })?;
    rng.check().inspect_err(|_| encoded.zeroize())
}

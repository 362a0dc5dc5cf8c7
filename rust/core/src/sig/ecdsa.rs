//! ECDSA on P-256 with SHA-256 (FIPS 186-5) on AWS-LC: uncompressed points (SEC 1), raw
//! signatures r || s. The scalar stays in secret memory; AWS-LC's key exists only while it
//! signs, in memory that AWS-LC wipes on free.

use aws_lc_rs::agreement::{PrivateKey, ECDH_P256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    EcdsaKeyPair, ParsedPublicKey, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING,
};

use crate::error::{Error, Result};
use crate::memory::burning;
use crate::rng;

pub(super) const SCALAR_LEN: usize = 32;
pub(super) const PUBLIC_LEN: usize = 65;
pub(super) const SIGNATURE_LEN: usize = 64;

/// What AWS-LC leaves on the stack, and a margin.
const STACK: usize = 16 * 1024;

const INVALID_PRIVATE: Error = Error::InvalidKey("the ECDSA scalar");
const INVALID_PUBLIC: Error = Error::InvalidKey("the ECDSA public key");

/// Writes a new scalar: numbers outside the group's order (one in 2^32) are drawn again.
pub(super) fn generate(scalar: &mut [u8]) -> Result<()> {
    loop {
        rng::fill(scalar)?;
        if public_key(scalar).is_ok() {
            return Ok(());
        }
    }
}

pub(super) fn public_key(scalar: &[u8]) -> Result<Vec<u8>> {
    burning::<STACK, _>(|| {
        PrivateKey::from_private_key(&ECDH_P256, scalar)
            .and_then(|key| key.compute_public_key().map_err(Into::into))
            .map(|key| key.as_ref().to_vec())
            .map_err(|_| INVALID_PRIVATE)
    })
}

pub(super) fn sign(
    scalar: &[u8],
    public_key: &[u8],
    message: &[u8],
    signature: &mut [u8],
) -> Result<()> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    burning::<STACK, _>(|| {
        let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, public_key)
            .map_err(|_| INVALID_PRIVATE)?;
        match key.sign(&SystemRandom::new(), message) {
            Ok(made) if made.as_ref().len() == signature.len() => {
                signature.copy_from_slice(made.as_ref());
                Ok(())
            }
            _ => Err(Error::System("signing with ECDSA")),
        }
    })
}

pub(super) struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    pub(super) fn new(point: &[u8]) -> Result<Self> {
        if point.first() != Some(&4) {
            return Err(INVALID_PUBLIC);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map(Self).map_err(|_| INVALID_PUBLIC)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

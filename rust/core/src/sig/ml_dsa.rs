//! ML-DSA-87 (FIPS 204, pure, empty context) on AWS-LC. The seed stays in secret memory;
//! the expanded key exists only while it signs, in memory that AWS-LC wipes on free.

use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, PqdsaKeyPair, ML_DSA_87, ML_DSA_87_SIGNING,
};

use crate::error::{Error, Result};

fn key_pair(seed: &[u8]) -> Result<PqdsaKeyPair> {
    PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed)
        .map_err(|_| Error::InvalidKey("the ML-DSA-87 seed"))
}

pub(super) fn public_key(seed: &[u8]) -> Result<Vec<u8>> {
    Ok(key_pair(seed)?.public_key().as_ref().to_vec())
}

pub(super) fn sign(seed: &[u8], message: &[u8], signature: &mut [u8]) -> Result<()> {
    match key_pair(seed)?.sign(message, signature) {
        Ok(len) if len == signature.len() => Ok(()),
        _ => Err(Error::System("signing with ML-DSA-87")),
    }
}

/// What is secret in the expanded key (FIPS 204 section 4: rho, K, tr, s1, s2, t0).
#[cfg(test)]
pub(super) fn expose(seed: &[u8], mut show: impl FnMut(&[u8])) {
    use aws_lc_rs::encoding::AsRawBytes;
    let raw = key_pair(seed).unwrap().private_key().as_raw_bytes().unwrap();
    show(&raw.as_ref()[32..64]);
    show(&raw.as_ref()[128..128 + (7 + 8) * 96]);
}

pub(super) struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        ParsedPublicKey::new(&ML_DSA_87, bytes)
            .map(Self)
            .map_err(|_| Error::InvalidKey("the ML-DSA-87 public key"))
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

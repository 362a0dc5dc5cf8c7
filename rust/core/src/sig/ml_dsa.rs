//! ML-DSA-65 and -87 (FIPS 204, pure, empty context) on AWS-LC. The seed stays in secret memory;
//! the expanded key exists only while it signs, in memory that AWS-LC wipes on free.

use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, PqdsaKeyPair, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87,
    ML_DSA_87_SIGNING,
};

use crate::error::{Error, Result};

use super::Sig;

fn key_pair(sig: Sig, seed: &[u8]) -> Result<PqdsaKeyPair> {
    let algorithm = if sig == Sig::MlDsa65 { &ML_DSA_65_SIGNING } else { &ML_DSA_87_SIGNING };
    PqdsaKeyPair::from_seed(algorithm, seed).map_err(|_| Error::InvalidKey("the ML-DSA seed"))
}

pub(super) fn public_key(sig: Sig, seed: &[u8]) -> Result<Vec<u8>> {
    Ok(key_pair(sig, seed)?.public_key().as_ref().to_vec())
}

pub(super) fn sign(sig: Sig, seed: &[u8], message: &[u8], signature: &mut [u8]) -> Result<()> {
    match key_pair(sig, seed)?.sign(message, signature) {
        Ok(len) if len == signature.len() => Ok(()),
        _ => Err(Error::System("signing with ML-DSA")),
    }
}

/// What is secret in the expanded key (FIPS 204 section 4: rho, K, tr, s1, s2, t0).
#[cfg(test)]
pub(super) fn expose(sig: Sig, seed: &[u8], mut show: impl FnMut(&[u8])) {
    use aws_lc_rs::encoding::AsRawBytes;
    let raw = key_pair(sig, seed).unwrap().private_key().as_raw_bytes().unwrap();
    // s1 and s2: (l + k) polynomials of 256 coefficients, of 3 bits with eta 2, else 4.
    let vectors = if sig == Sig::MlDsa65 { (5 + 6) * 128 } else { (7 + 8) * 96 };
    show(&raw.as_ref()[32..64]);
    show(&raw.as_ref()[128..128 + vectors]);
}

pub(super) struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    pub(super) fn new(sig: Sig, bytes: &[u8]) -> Result<Self> {
        let algorithm = if sig == Sig::MlDsa65 { &ML_DSA_65 } else { &ML_DSA_87 };
        ParsedPublicKey::new(algorithm, bytes)
            .map(Self)
            .map_err(|_| Error::InvalidKey("the ML-DSA public key"))
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

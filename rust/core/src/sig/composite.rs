//! Falcon-512 and ECDSA P-256, both required: the construction of
//! draft-ietf-lamps-pq-composite-sigs (section 3) with Falcon in ML-DSA's place and a label
//! of our own, as the draft has none for Falcon.
//!
//! Keys and signatures are the halves one after the other, Falcon's first. Both halves sign
//! one representative of the message that names the composite, so neither half's signature
//! is one of anything else.

use crate::error::Result;
use crate::hash::{sha2, Sha2};

use super::{ecdsa, falcon, Sig};

const PREFIX: &[u8] = b"CompositeAlgorithmSignatures2025";
const LABEL: &[u8] = b"PQCIIOT-COMPSIG-Falcon512-ECDSA-P256-SHA512";

/// Which half comes first.
pub(super) const FIRST: Sig = Sig::Falcon512;

/// What both halves sign: `Prefix || Label || len(ctx) || ctx || PH(M)`, `ctx` being empty
/// and PH SHA-512.
pub(super) fn representative(message: &[u8]) -> Vec<u8> {
    [PREFIX, LABEL, &[0], &sha2(Sha2::Sha512, &[message])].concat()
}

pub(super) struct VerifyingKey {
    falcon: falcon::VerifyingKey,
    ecdsa: ecdsa::VerifyingKey,
}

impl VerifyingKey {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let (falcon, point) = bytes.split_at(FIRST.public_key_len());
        Ok(Self {
            falcon: falcon::VerifyingKey::new(FIRST, falcon)?,
            ecdsa: ecdsa::VerifyingKey::new(point)?,
        })
    }

    /// Both are verified always: what it takes does not tell which half is wrong.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let (falcon, ecdsa) = signature.split_at(FIRST.signature_len());
        let message = representative(message);
        self.falcon.verify(&message, falcon) & self.ecdsa.verify(&message, ecdsa)
    }
}

pub(super) struct SigningKey {
    falcon: falcon::SigningKey,
    point: Vec<u8>,
}

impl SigningKey {
    /// The expanded key and its encoded public key.
    pub(super) fn new(encoded: &[u8]) -> Result<(Self, Vec<u8>)> {
        let (falcon, scalar) = encoded.split_at(FIRST.private_key_len());
        let (falcon, mut public_key) = falcon::SigningKey::new(FIRST, falcon)?;
        let point = ecdsa::public_key(scalar)?;
        public_key.extend_from_slice(&point);
        Ok((Self { falcon, point }, public_key))
    }

    pub(super) fn sign(&self, encoded: &[u8], message: &[u8], signature: &mut [u8]) -> Result<()> {
        let (falcon, ecdsa) = signature.split_at_mut(FIRST.signature_len());
        let message = representative(message);
        self.falcon.sign(&message, falcon)?;
        let scalar = &encoded[FIRST.private_key_len()..];
        ecdsa::sign(scalar, &self.point, &message, ecdsa)
    }

    #[cfg(test)]
    pub(super) fn expose(&self, encoded: &[u8], mut show: impl FnMut(&[u8])) {
        show(&encoded[FIRST.private_key_len()..]);
        self.falcon.expose(show);
    }
}

/// Writes a new private key's encoding into `encoded`.
pub(super) fn generate(encoded: &mut [u8]) -> Result<()> {
    let (falcon, scalar) = encoded.split_at_mut(FIRST.private_key_len());
    falcon::generate(FIRST, falcon)?;
    ecdsa::generate(scalar)
}

//! The hybrid KEMs of draft-ietf-hpke-pq, by the CG construction of
//! draft-irtf-cfrg-hybrid-kems: the PQ secret, the DH secret, the DH ciphertext, the DH
//! public key and a label, hashed with SHA3-256. MLKEM768-X25519 is X-Wing
//! (draft-connolly-cfrg-xwing-kem).

use zeroize::Zeroizing;

use crate::error::{exact, Result};
use crate::hash::{sha3_256, shake256};
use crate::memory::SecretBytes;

use super::classical::{self, Group};
use super::ml_kem::{self, MlKemPrivateKey, MlKemPublicKey};
use super::{Kem, SharedSecret};

/// Most randomness that one encapsulation takes, in bytes.
pub(super) const MAX_RANDOMNESS: usize = ml_kem::RANDOMNESS + classical::MAX_SEED;

/// One row of the hybrids' table.
struct Hybrid {
    ml_kem: Kem,
    group: Group,
    label: &'static [u8],
}

const X_WING: Hybrid = Hybrid { ml_kem: Kem::MlKem768, group: Group::X25519, label: br"\.//^\" };
const MLKEM768_P256: Hybrid =
    Hybrid { ml_kem: Kem::MlKem768, group: Group::P256, label: b"MLKEM768-P256" };
const MLKEM1024_P384: Hybrid =
    Hybrid { ml_kem: Kem::MlKem1024, group: Group::P384, label: b"MLKEM1024-P384" };

fn hybrid(kem: Kem) -> &'static Hybrid {
    match kem {
        Kem::MlKem768P256 => &MLKEM768_P256,
        Kem::MlKem1024P384 => &MLKEM1024_P384,
        _ => &X_WING,
    }
}

impl Hybrid {
    fn combine(
        &self,
        pq_secret: &SharedSecret,
        dh_secret: &[u8],
        dh_ciphertext: &[u8],
        dh_public_key: &[u8],
    ) -> Result<SharedSecret> {
        let mut input = Zeroizing::new([0u8; 32 + 48 + 97 + 97 + 16]);
        let mut at = 0;
        for part in [&pq_secret[..], dh_secret, dh_ciphertext, dh_public_key, self.label] {
            input[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        SharedSecret::take(&mut sha3_256(&input[..at]))
    }
}

pub(super) struct HybridPublicKey {
    hybrid: &'static Hybrid,
    pq: MlKemPublicKey,
    dh: Vec<u8>,
}

impl HybridPublicKey {
    pub(super) fn new(kem: Kem, bytes: &[u8]) -> Result<Self> {
        let hybrid = hybrid(kem);
        let (pq, dh) = bytes.split_at(hybrid.ml_kem.public_key_len());
        hybrid.group.validate(dh)?;
        Ok(Self { hybrid, pq: MlKemPublicKey::new(hybrid.ml_kem, pq)?, dh: dh.to_vec() })
    }

    pub(super) fn randomness_len(&self) -> usize {
        ml_kem::RANDOMNESS + self.hybrid.group.seed_len()
    }

    /// `randomness`: ML-KEM's `m`, then what the ephemeral scalar is drawn from.
    pub(super) fn encapsulate(&self, randomness: &[u8]) -> Result<(Vec<u8>, SharedSecret)> {
        let (m, seed) = randomness.split_at(ml_kem::RANDOMNESS);
        let group = self.hybrid.group;
        let scalar = group.scalar(seed)?;
        let dh_ciphertext = group.public_key(scalar)?;
        let dh_secret = group.agree(scalar, &self.dh)?;
        let pq_len = self.hybrid.ml_kem.ciphertext_len();
        let mut ciphertext = vec![0; pq_len + dh_ciphertext.len()];
        let pq_secret = self.pq.encapsulate(m, &mut ciphertext[..pq_len])?;
        ciphertext[pq_len..].copy_from_slice(&dh_ciphertext);
        let dh_secret = &dh_secret[..group.shared_len()];
        let secret = self.hybrid.combine(&pq_secret, dh_secret, &dh_ciphertext, &self.dh)?;
        Ok((ciphertext, secret))
    }
}

pub(super) struct HybridPrivateKey {
    hybrid: &'static Hybrid,
    pq: MlKemPrivateKey,
    dh: SecretBytes,
    dh_public_key: Vec<u8>,
}

impl HybridPrivateKey {
    /// Expands the 32-byte seed with SHAKE256 into the ML-KEM seed and what the scalar is
    /// drawn from.
    pub(super) fn from_seed(kem: Kem, seed: &[u8]) -> Result<(Self, Vec<u8>)> {
        let hybrid = hybrid(kem);
        let mut expanded = Zeroizing::new([0u8; ml_kem::SEED + classical::MAX_SEED]);
        let expanded = &mut expanded[..ml_kem::SEED + hybrid.group.seed_len()];
        shake256(seed, expanded);
        let (pq_seed, dh_seed) = expanded.split_at(ml_kem::SEED);
        let dh = SecretBytes::copy_from(hybrid.group.scalar(dh_seed)?)?;
        let (pq, mut public_key) = MlKemPrivateKey::from_seed(hybrid.ml_kem, pq_seed)?;
        let dh_public_key = hybrid.group.public_key(&dh)?;
        public_key.extend_from_slice(&dh_public_key);
        Ok((Self { hybrid, pq, dh, dh_public_key }, public_key))
    }

    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret> {
        let (pq, dh) = ciphertext.split_at(self.hybrid.ml_kem.ciphertext_len());
        let group = self.hybrid.group;
        let dh_secret = group.agree(&self.dh, dh)?;
        let pq_secret = self.pq.decapsulate(pq)?;
        let dh_secret = &dh_secret[..group.shared_len()];
        self.hybrid.combine(&pq_secret, dh_secret, dh, &self.dh_public_key)
    }

    #[cfg(test)]
    pub(super) fn expose(&self, mut show: impl FnMut(&[u8])) {
        show(&self.dh);
        show(self.pq.expose());
    }
}

/// A hybrid key whose classical half is elsewhere: what is public of that half.
pub(super) struct OutsideHalf {
    hybrid: &'static Hybrid,
    dh_public_key: Vec<u8>,
}

impl OutsideHalf {
    pub(super) fn new(kem: Kem, dh_public_key: &[u8]) -> Result<Self> {
        let hybrid = hybrid(kem);
        hybrid.group.validate(dh_public_key)?;
        Ok(Self { hybrid, dh_public_key: dh_public_key.to_vec() })
    }

    pub(super) fn ml_kem(&self) -> Kem {
        self.hybrid.ml_kem
    }

    pub(super) fn dh_public_key(&self) -> &[u8] {
        &self.dh_public_key
    }

    /// The classical half of `ciphertext`, a point that is on the curve.
    pub(super) fn dh_ciphertext<'a>(&self, ciphertext: &'a [u8]) -> Result<&'a [u8]> {
        let point = &ciphertext[self.hybrid.ml_kem.ciphertext_len()..];
        self.hybrid.group.validate(point).map(|()| point)
    }

    pub(super) fn decapsulate(
        &self,
        pq: &MlKemPrivateKey,
        dh_secret: &[u8],
        ciphertext: &[u8],
    ) -> Result<SharedSecret> {
        exact("the Diffie-Hellman secret", dh_secret, self.hybrid.group.shared_len())?;
        let dh_ciphertext = self.dh_ciphertext(ciphertext)?;
        let pq_ciphertext = &ciphertext[..self.hybrid.ml_kem.ciphertext_len()];
        let pq_secret = pq.decapsulate(pq_ciphertext)?;
        self.hybrid.combine(&pq_secret, dh_secret, dh_ciphertext, &self.dh_public_key)
    }
}

//! HPKE base mode (RFC 9180 section 5, with the one-stage KDFs of its successor,
//! draft-ietf-hpke-hpke, and the KEMs of draft-ietf-hpke-pq), single-shot.

use zeroize::Zeroizing;

use crate::aead::{Aead, NONCE_LEN};
use crate::error::{exact, Error, Result};
use crate::hash::{hkdf_expand, hkdf_extract, shake128, shake256, Sha2};
use crate::kem::{Kem, PrivateKey, PublicKey, SharedSecret};
use crate::memory::burning;

const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;
const MAX_SECRET: usize = 64;
/// What the key schedule and the AEAD leave on the stack, and a margin.
const STACK: usize = 8192;

/// A KDF by its HPKE identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// HKDF with SHA-256 (0x0001), SHA-384 (0x0002) or SHA-512 (0x0003): two stages.
    Hkdf(Sha2),
    /// 0x0010, one stage.
    Shake128,
    /// 0x0011, one stage.
    Shake256,
}

impl Kdf {
    /// Every KDF here.
    pub const ALL: [Self; 5] = [
        Self::Hkdf(Sha2::Sha256),
        Self::Hkdf(Sha2::Sha384),
        Self::Hkdf(Sha2::Sha512),
        Self::Shake128,
        Self::Shake256,
    ];

    /// The KDF with HPKE identifier `id`.
    pub fn from_id(id: u16) -> Result<Self> {
        Self::ALL.into_iter().find(|kdf| kdf.id() == id).ok_or(Error::UnknownAlgorithm(id.into()))
    }

    /// The HPKE identifier.
    pub fn id(self) -> u16 {
        match self {
            Self::Hkdf(Sha2::Sha256) => 0x0001,
            Self::Hkdf(Sha2::Sha384) => 0x0002,
            Self::Hkdf(Sha2::Sha512) => 0x0003,
            Self::Shake128 => 0x0010,
            Self::Shake256 => 0x0011,
        }
    }

    /// `Nh`: length of the exporter secret, in bytes.
    fn secret_len(self) -> usize {
        match self {
            Self::Hkdf(hash) => hash.len(),
            Self::Shake128 => 32,
            Self::Shake256 => 64,
        }
    }
}

/// KDF and AEAD of an HPKE ciphersuite; the key brings the KEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// The key derivation function.
    pub kdf: Kdf,
    /// The AEAD.
    pub aead: Aead,
}

/// The key schedule's output; wiped on drop.
struct Context {
    aead: Aead,
    key: Zeroizing<[u8; 32]>,
    base_nonce: [u8; NONCE_LEN],
    #[cfg_attr(not(test), allow(dead_code, reason = "exports are checked by vectors"))]
    exporter_secret: Zeroizing<[u8; MAX_SECRET]>,
}

impl Suite {
    fn suite_id(self, kem_id: u16) -> [u8; 10] {
        let mut id = *b"HPKE\0\0\0\0\0\0";
        id[4..6].copy_from_slice(&kem_id.to_be_bytes());
        id[6..8].copy_from_slice(&self.kdf.id().to_be_bytes());
        id[8..10].copy_from_slice(&self.aead.id().to_be_bytes());
        id
    }

    /// KeySchedule of section 5.1 for mode_base: `psk` and `psk_id` are empty.
    fn key_schedule(self, kem_id: u16, secret: &SharedSecret, info: &[u8]) -> Result<Context> {
        let suite_id = self.suite_id(kem_id);
        let (key_len, secret_len) = (self.aead.key_len(), self.kdf.secret_len());
        let mut context = Context {
            aead: self.aead,
            key: Zeroizing::default(),
            base_nonce: [0; NONCE_LEN],
            exporter_secret: Zeroizing::new([0; MAX_SECRET]),
        };
        let exporter_secret = &mut context.exporter_secret[..secret_len];
        match self.kdf {
            Kdf::Hkdf(hash) => {
                let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
                    hkdf_extract(hash, salt, &[VERSION, &suite_id, label, ikm])
                };
                let psk_id_hash = extract(b"", b"psk_id_hash", b"")?;
                let info_hash = extract(b"", b"info_hash", info)?;
                let prk = extract(&secret[..], b"secret", b"")?;
                let expand = |label: &[u8], out: &mut [u8]| {
                    let len = (out.len() as u16).to_be_bytes();
                    let info: [&[u8]; 7] =
                        [&len, VERSION, &suite_id, label, &[MODE_BASE], &psk_id_hash, &info_hash];
                    hkdf_expand(hash, &prk, &info, out)
                };
                expand(b"key", &mut context.key[..key_len])?;
                expand(b"base_nonce", &mut context.base_nonce)?;
                expand(b"exp", exporter_secret)?;
            }
            Kdf::Shake128 | Kdf::Shake256 => {
                let info_len = u16::try_from(info.len())
                    .map_err(|_| Error::Parameter("the HPKE info's length"))?;
                let total = key_len + NONCE_LEN + secret_len;
                // secrets = lengthPrefixed(psk) || lengthPrefixed(shared_secret)
                let mut input = Zeroizing::new(Vec::with_capacity(128 + info.len()));
                input.extend_from_slice(&[0, 0, 0, secret.len() as u8]);
                input.extend_from_slice(&secret[..]);
                input.extend_from_slice(VERSION);
                input.extend_from_slice(&suite_id);
                input.extend_from_slice(b"\x00\x06secret");
                input.extend_from_slice(&(total as u16).to_be_bytes());
                // context = mode || lengthPrefixed(psk_id) || lengthPrefixed(info)
                input.extend_from_slice(&[MODE_BASE, 0, 0]);
                input.extend_from_slice(&info_len.to_be_bytes());
                input.extend_from_slice(info);
                let mut okm = Zeroizing::new([0u8; 32 + NONCE_LEN + MAX_SECRET]);
                let okm = &mut okm[..total];
                if self.kdf == Kdf::Shake128 {
                    shake128(&input, okm);
                } else {
                    shake256(&input, okm);
                }
                context.key[..key_len].copy_from_slice(&okm[..key_len]);
                context.base_nonce.copy_from_slice(&okm[key_len..key_len + NONCE_LEN]);
                exporter_secret.copy_from_slice(&okm[key_len + NONCE_LEN..]);
            }
        }
        Ok(context)
    }

    /// Encrypts `plaintext` to `recipient`: `enc`, and ciphertext with its tag.
    pub fn seal(
        self,
        recipient: &PublicKey,
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let (enc, secret) = recipient.encapsulate()?;
        let ciphertext = burning::<STACK, _>(|| {
            self.key_schedule(recipient.kem().id(), &secret, info)?.seal(0, aad, plaintext)
        })?;
        Ok((enc, ciphertext))
    }

    /// Decrypts what [`Suite::seal`] made. Every failure is [`Error::Authentication`]
    /// but a wrong length of `enc` or `info`.
    pub fn open(
        self,
        recipient: &PrivateKey,
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>> {
        let secret = match recipient.decapsulate(enc) {
            Err(Error::InvalidKey(_)) => return Err(Error::Authentication),
            other => other?,
        };
        self.open_with(recipient.kem(), &secret, enc, info, aad, ciphertext)
    }

    /// As [`Suite::open`], where `secret`, the KEM's shared secret of `enc`, is known: a
    /// token decapsulated, or a half of it came from there.
    pub fn open_with(
        self,
        kem: Kem,
        secret: &SharedSecret,
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>> {
        exact("the KEM ciphertext", enc, kem.ciphertext_len())?;
        let mut data = ciphertext.to_vec();
        let len = burning::<STACK, _>(|| {
            self.key_schedule(kem.id(), secret, info)?.open(0, aad, &mut data)
        })?;
        data.truncate(len);
        Ok(data)
    }
}

impl Context {
    /// ComputeNonce of section 5.2.
    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.base_nonce;
        for (byte, s) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= s;
        }
        nonce
    }

    fn key(&self) -> &[u8] {
        &self.key[..self.aead.key_len()]
    }

    fn seal(&self, sequence: u64, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        self.aead.seal(self.key(), self.nonce(sequence), aad, plaintext)
    }

    fn open(&self, sequence: u64, aad: &[u8], data: &mut [u8]) -> Result<usize> {
        self.aead.open_in_place(self.key(), self.nonce(sequence), aad, data).map(|out| out.len())
    }
}

#[cfg(test)]
mod tests;

//! AEADs (RFC 5116). Suites use AES-256-GCM; the others serve HPKE's other suites.

use aws_lc_rs::aead::{
    Aad, Algorithm, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305,
};

use zeroize::Zeroize;

use crate::error::{array, exact, Error, Result};

/// Nonce length of every AEAD here, in bytes.
pub const NONCE_LEN: usize = 12;
/// Tag length of every AEAD here, in bytes.
pub const TAG_LEN: usize = 16;

/// An AEAD by its HPKE identifier (RFC 9180 section 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// 0x0001
    Aes128Gcm,
    /// 0x0002
    Aes256Gcm,
    /// 0x0003
    ChaCha20Poly1305,
}

impl Aead {
    /// Every AEAD here.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The AEAD with HPKE identifier `id`.
    pub fn from_id(id: u16) -> Result<Self> {
        Self::ALL.into_iter().find(|aead| aead.id() == id).ok_or(Error::UnknownAlgorithm(id.into()))
    }

    /// The HPKE identifier.
    pub fn id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    /// Key length in bytes.
    pub fn key_len(self) -> usize {
        self.algorithm().key_len()
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    fn key(self, key: &[u8]) -> Result<LessSafeKey> {
        exact("the AEAD key", key, self.key_len())?;
        UnboundKey::new(self.algorithm(), key)
            .map(LessSafeKey::new)
            .map_err(|_| Error::InvalidKey("the AEAD key"))
    }

    /// Encrypts `data` in place; the result is its tag.
    pub fn seal_in_place(
        self,
        key: &[u8],
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN]> {
        let tag = self
            .key(key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
            .map_err(|_| Error::Parameter("the plaintext's length"))?;
        array("the AEAD tag", tag.as_ref())
    }

    /// Encrypts `plaintext`: ciphertext and tag.
    pub fn seal(
        self,
        key: &[u8],
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>> {
        // The exact capacity up front: a vector that grows leaves a copy behind.
        let mut out = Vec::with_capacity(plaintext.len() + TAG_LEN);
        out.extend_from_slice(plaintext);
        match self.seal_in_place(key, nonce, aad, &mut out) {
            Ok(tag) => {
                out.extend_from_slice(&tag);
                Ok(out)
            }
            Err(error) => {
                out.zeroize();
                Err(error)
            }
        }
    }

    /// Decrypts in place: `data` is ciphertext and tag, the result is its plaintext part.
    pub fn open_in_place<'a>(
        self,
        key: &[u8],
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        self.key(key)?
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
            .map_err(|_| Error::Authentication)
    }
}

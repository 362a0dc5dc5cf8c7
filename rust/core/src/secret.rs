//! Handles for symmetric secrets, and the one way a private key leaves the core:
//! encrypted under one of them.

use crate::aead::{Aead, NONCE_LEN, TAG_LEN};
use crate::error::{array, Error, Result};
use crate::hash::{hkdf_expand, hmac_sha256, Sha2};
use crate::kem::{self, Kem};
use crate::memory::{burning, SecretBytes};
use crate::rng;
use crate::sig::{self, Sig};

/// What AES-GCM and HMAC leave on the stack, and a margin.
const STACK: usize = 4096;
/// Longest secret from outside, wrapped or not, in bytes.
const MOST: usize = 4096;

/// A symmetric secret that can be used and never read.
pub struct Secret(SecretBytes);

impl Secret {
    /// `len` random bytes, 16 to 64.
    pub fn random(len: usize) -> Result<Self> {
        if !(16..=64).contains(&len) {
            return Err(Error::Parameter("the length of a random secret"));
        }
        let mut bytes = SecretBytes::zeroed(len)?;
        rng::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A copy of `bytes`, at least one and at most 4096, that came from elsewhere; wiping
    /// the original is the caller's job.
    pub fn copy_from(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || bytes.len() > MOST {
            return Err(Error::Parameter("the length of a secret"));
        }
        SecretBytes::copy_from(bytes).map(Self)
    }

    /// Length in bytes; the only thing that is told of the content.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A 32-byte secret for another purpose: HKDF-Expand with SHA-256 (RFC 5869), this
    /// secret of 32 to 64 bytes being the PRK and `info` naming the purpose.
    pub fn derive(&self, info: &[u8]) -> Result<Self> {
        if self.len() < Sha2::Sha256.len() {
            return Err(Error::Parameter("the length of the secret to derive from"));
        }
        let mut out = SecretBytes::zeroed(32)?;
        burning::<STACK, _>(|| hkdf_expand(Sha2::Sha256, &self.0, &[info], &mut out))?;
        Ok(Self(out))
    }

    /// HMAC-SHA-256 over `data` under this secret, 32 bytes.
    pub fn mac(&self, data: &[u8]) -> [u8; 32] {
        burning::<STACK, _>(|| hmac_sha256(&self.0, data))
    }

    /// Whether `tag` is `mac(data)`; constant time.
    pub fn verify_mac(&self, data: &[u8], tag: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.mac(data), tag).is_ok()
    }

    /// Encrypts `secret` under this 32-byte key: nonce (12) || AES-256-GCM || tag (16).
    /// The nonce is random; a key serves far fewer than 2^32 times.
    fn wrap_bytes(&self, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rng::fill(&mut nonce)?;
        // Encrypted in secret memory: the plaintext is never outside it.
        let mut data = SecretBytes::copy_from(secret)?;
        let tag =
            burning::<STACK, _>(|| Aead::Aes256Gcm.seal_in_place(&self.0, nonce, aad, &mut data))?;
        Ok([&nonce, &data[..], &tag].concat())
    }

    fn unwrap_bytes(&self, aad: &[u8], blob: &[u8]) -> Result<SecretBytes> {
        if !(NONCE_LEN + TAG_LEN..=NONCE_LEN + TAG_LEN + MOST).contains(&blob.len()) {
            return Err(Error::Parameter("the length of a wrapped secret"));
        }
        let (nonce, data) = blob.split_at(NONCE_LEN);
        // Decrypted in secret memory, as above.
        let mut data = SecretBytes::copy_from(data)?;
        let nonce = array("the nonce", nonce)?;
        let plaintext =
            burning::<STACK, _>(|| Aead::Aes256Gcm.open_in_place(&self.0, nonce, aad, &mut data))?;
        SecretBytes::copy_from(plaintext)
    }

    /// The key for data: never one that something is wrapped under, since what is decrypted
    /// leaves the core. It is the second block of HKDF-Expand, which `derive` never gives.
    fn data_key(&self) -> Result<SecretBytes> {
        if self.len() != 32 {
            return Err(Error::Parameter("the length of the key for data"));
        }
        let mut blocks = SecretBytes::zeroed(64)?;
        burning::<STACK, _>(|| {
            hkdf_expand(Sha2::Sha256, &self.0, &[b"pqc-iiot data"], &mut blocks)
        })?;
        SecretBytes::copy_from(&blocks[32..])
    }

    /// Encrypts data that is no secret of the core, in the format of `wrap_bytes`, but outside
    /// secret memory, of which there is little: data may be large.
    pub fn encrypt(&self, aad: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        let key = self.data_key()?;
        let mut out = vec![0; NONCE_LEN + data.len()];
        rng::fill(&mut out[..NONCE_LEN])?;
        let (nonce, rest) = out.split_at_mut(NONCE_LEN);
        rest.copy_from_slice(data);
        let nonce = array("the nonce", nonce)?;
        let tag = burning::<STACK, _>(|| Aead::Aes256Gcm.seal_in_place(&key, nonce, aad, rest))?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Decrypts what [`Secret::encrypt`] made, and nothing that was wrapped.
    pub fn decrypt(&self, aad: &[u8], blob: &[u8]) -> Result<Vec<u8>> {
        if blob.len() < NONCE_LEN + TAG_LEN {
            return Err(Error::Parameter("the length of encrypted data"));
        }
        let key = self.data_key()?;
        let (nonce, data) = blob.split_at(NONCE_LEN);
        let nonce = array("the nonce", nonce)?;
        let mut data = data.to_vec();
        let length =
            burning::<STACK, _>(|| Aead::Aes256Gcm.open_in_place(&key, nonce, aad, &mut data))?
                .len();
        data.truncate(length);
        Ok(data)
    }

    /// Wraps another secret.
    pub fn wrap(&self, aad: &[u8], secret: &Self) -> Result<Vec<u8>> {
        self.wrap_bytes(aad, &secret.0)
    }

    /// Unwraps what [`Secret::wrap`] made.
    pub fn unwrap(&self, aad: &[u8], blob: &[u8]) -> Result<Self> {
        self.unwrap_bytes(aad, blob).map(Self)
    }

    /// Wraps a KEM private key (its seed).
    pub fn wrap_kem(&self, aad: &[u8], key: &kem::PrivateKey) -> Result<Vec<u8>> {
        self.wrap_bytes(aad, key.seed())
    }

    /// Unwraps what [`Secret::wrap_kem`] made.
    pub fn unwrap_kem(&self, aad: &[u8], kem: Kem, blob: &[u8]) -> Result<kem::PrivateKey> {
        kem::PrivateKey::from_seed(kem, self.unwrap_bytes(aad, blob)?)
    }

    /// Wraps a signature private key.
    pub fn wrap_sig(&self, aad: &[u8], key: &sig::SigningKey) -> Result<Vec<u8>> {
        self.wrap_bytes(aad, key.encoded())
    }

    /// Unwraps what [`Secret::wrap_sig`] made.
    pub fn unwrap_sig(&self, aad: &[u8], sig: Sig, blob: &[u8]) -> Result<sig::SigningKey> {
        sig::SigningKey::from_encoded(sig, self.unwrap_bytes(aad, blob)?)
    }
}

impl From<SecretBytes> for Secret {
    fn from(bytes: SecretBytes) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests;

//! SHA-3 and SHAKE (FIPS 202), HKDF (RFC 5869) and HMAC-SHA-256 (RFC 2104). Callers run
//! what is secret inside [`crate::memory::burning`].

use aws_lc_rs::{digest, hkdf, hmac};

use crate::error::{Error, Result};
use crate::memory::SecretBytes;

/// Hash functions that HKDF and HPKE use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sha2 {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Sha2 {
    /// Output length in bytes.
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// A hash always has output; here because `len` without it looks forgotten.
    pub fn is_empty(self) -> bool {
        false
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Sha256 => hkdf::HKDF_SHA256,
            Self::Sha384 => hkdf::HKDF_SHA384,
            Self::Sha512 => hkdf::HKDF_SHA512,
        }
    }
}

/// SHA-2 (FIPS 180-4) over `parts`, one after the other.
pub fn sha2(hash: Sha2, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(hash.digest());
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

/// HKDF-Extract (RFC 5869 section 2.2): `prk` gets the hash's length.
pub fn hkdf_extract(hash: Sha2, salt: &[u8], ikm: &[&[u8]]) -> Result<SecretBytes> {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hash.hmac(), salt));
    for part in ikm {
        mac.update(part);
    }
    SecretBytes::copy_from(mac.sign().as_ref())
}

/// HKDF-Expand (RFC 5869 section 2.3) into `out`, at most 255 times the hash's length.
/// `prk` is at most 64 bytes.
pub fn hkdf_expand(hash: Sha2, prk: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<()> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    if prk.len() > Sha2::Sha512.len() {
        // Here, because the library panics.
        return Err(Error::Parameter("the HKDF key's length"));
    }
    if out.is_empty() {
        return Ok(());
    }
    hkdf::Prk::new_less_safe(hash.hkdf(), prk)
        .expand(info, Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| Error::Parameter("the HKDF output length"))
}

/// HMAC-SHA-256 over `data`, 32 bytes.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    tag
}

/// SHA3-256 of `data`, 32 bytes.
pub fn sha3_256(data: &[u8]) -> [u8; 32] {
    libcrux_sha3::sha256(data)
}

/// SHAKE128 of `data` into `out`.
pub fn shake128(data: &[u8], out: &mut [u8]) {
    libcrux_sha3::shake128_ema(out, data);
}

/// SHAKE256 of `data` into `out`.
pub fn shake256(data: &[u8], out: &mut [u8]) {
    libcrux_sha3::shake256_ema(out, data);
}

//! This project's cipher suites, under private-use numbers (RFC 9528 section 10.2): -24 is
//! suite 1, -25 suite 2, and so on.
//!
//! All have AES-256-GCM and SHA-384, which RFC 9528 pairs as well (suite 24): a transcript
//! hash as strong as the strongest KEM here, and what CNSA 2.0 asks for. The messages are no
//! longer for it, as with method 0 no MAC is sent. The KEM is the responder's; each side
//! signs with the algorithm of its own credential.

use crate::aead::{Aead as Cipher, NONCE_LEN};
use crate::error::{array, Error, Result};
use crate::hash::Sha2;
use crate::kem::Kem;

use super::{Aead, CipherSuite};

struct Aes256Gcm;

impl Aead for Aes256Gcm {
    fn key_len(&self) -> usize {
        Cipher::Aes256Gcm.key_len()
    }

    fn nonce_len(&self) -> usize {
        NONCE_LEN
    }

    fn seal(&self, key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        Cipher::Aes256Gcm.seal(key, array("the nonce", nonce)?, aad, plaintext)
    }

    fn open(&self, key: &[u8], nonce: &[u8], aad: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>> {
        let mut data = ciphertext.to_vec();
        let nonce = array("the nonce", nonce)?;
        let len = Cipher::Aes256Gcm.open_in_place(key, nonce, aad, &mut data)?.len();
        data.truncate(len);
        Ok(data)
    }
}

const fn suite(id: i64) -> CipherSuite {
    CipherSuite { id, hash: Sha2::Sha384, aead: &Aes256Gcm }
}

static SUITES: [(CipherSuite, Kem); 7] = [
    (suite(-24), Kem::MlKem768X25519),
    (suite(-25), Kem::MlKem1024P384),
    (suite(-26), Kem::MlKem768),
    (suite(-27), Kem::MlKem1024),
    (suite(-28), Kem::MlKem1024),
    (suite(-29), Kem::MlKem768P256),
    (suite(-30), Kem::MlKem768),
];

/// The cipher suite with this number, and its KEM.
pub fn own_suite(id: i64) -> Result<&'static (CipherSuite, Kem)> {
    SUITES.iter().find(|(suite, _)| suite.id == id).ok_or(Error::UnknownAlgorithm(id))
}

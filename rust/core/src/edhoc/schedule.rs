//! The key schedule and the transcript (RFC 9528 sections 4.1 and 5).

use crate::cbor::{byte_string, head};
use crate::error::{Error, Result};
use crate::hash::{hkdf_expand, hkdf_extract, sha2, Sha2};
use crate::memory::{burning, SecretBytes};

use super::{label, CipherSuite, Credential, Edition, Exporter, Verify};

/// What HKDF and the AEAD leave on the stack, and a margin.
const STACK: usize = 4096;

/// Where a handshake stands: TH_2, TH_3 or TH_4, and PRK_2e, which with signatures is
/// also PRK_3e2m and PRK_4e3m (section 4.1.1).
pub(super) struct Schedule {
    pub(super) edition: Edition,
    pub(super) suite: &'static CipherSuite,
    pub(super) th: Vec<u8>,
    pub(super) prk: SecretBytes,
}

/// EDHOC_KDF (section 4.1.2): HKDF-Expand with info = (label, context, length).
pub(super) fn kdf(
    hash: Sha2,
    prk: &[u8],
    label: u64,
    context: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let mut info = Vec::with_capacity(context.len() + 16);
    head(0, label, &mut info);
    byte_string(context, &mut info);
    head(0, out.len() as u64, &mut info);
    burning::<STACK, _>(|| hkdf_expand(hash, prk, &[&info], out))
}

impl Schedule {
    /// TH_2 = H( G_Y, H(message_1) ) and PRK_2e = EDHOC_Extract( TH_2, G_XY ).
    pub(super) fn new(
        edition: Edition,
        suite: &'static CipherSuite,
        message_1: &[u8],
        g_y: &[u8],
        g_xy: &[u8],
        outside_c_r: Option<&[u8]>,
    ) -> Result<Self> {
        let mut input = Vec::with_capacity(g_y.len() + 80);
        byte_string(g_y, &mut input);
        if let Some(c_r) = outside_c_r {
            super::messages::identifier(c_r, &mut input);
        }
        byte_string(&sha2(suite.hash, &[message_1]), &mut input);
        let th = sha2(suite.hash, &[&input]);
        let salt = match edition {
            Edition::Rfc9528 => &th[..],
            #[cfg(test)]
            Edition::Draft15 => b"",
        };
        let prk = burning::<STACK, _>(|| hkdf_extract(suite.hash, salt, &[g_xy]))?;
        Ok(Self { edition, suite, th, prk })
    }

    pub(super) fn clone_state(&self) -> Result<Self> {
        let prk = SecretBytes::copy_from(&self.prk)?;
        Ok(Self { edition: self.edition, suite: self.suite, th: self.th.clone(), prk })
    }

    /// TH_3 = H( TH_2, PLAINTEXT_2, CRED_R ), TH_4 = H( TH_3, PLAINTEXT_3, CRED_I ).
    pub(super) fn advance(&mut self, plaintext: &[u8], cred: &[u8]) {
        let cred = match self.edition {
            Edition::Rfc9528 => cred,
            #[cfg(test)]
            Edition::Draft15 => b"",
        };
        let mut th = Vec::with_capacity(self.th.len() + 2);
        byte_string(&self.th, &mut th);
        self.th = sha2(self.suite.hash, &[&th, plaintext, cred]);
    }

    /// PLAINTEXT_2 XOR KEYSTREAM_2, either way (section 5.3.2).
    pub(super) fn apply_keystream_2(&self, text: &mut [u8]) -> Result<()> {
        let mut keystream = SecretBytes::zeroed(text.len())?;
        self.derive(label::KEYSTREAM_2, &mut keystream)?;
        text.iter_mut().zip(keystream.iter()).for_each(|(byte, key)| *byte ^= key);
        Ok(())
    }

    fn derive(&self, label: u64, out: &mut [u8]) -> Result<()> {
        kdf(self.suite.hash, &self.prk, label, &self.th, out)
    }

    /// MAC_2 or MAC_3, as long as the hash.
    pub(super) fn mac(
        &self,
        label: u64,
        c_r: Option<&[u8]>,
        credential: Credential<'_>,
    ) -> Result<Vec<u8>> {
        let mut mac = vec![0; self.suite.hash.len()];
        let context = context_mac(&self.th, c_r, credential);
        kdf(self.suite.hash, &self.prk, label, &context, &mut mac)?;
        Ok(mac)
    }

    /// Whether `signature` is the credential's over this handshake's MAC.
    pub(super) fn check(
        &self,
        label: u64,
        c_r: Option<&[u8]>,
        credential: Credential<'_>,
        signature: &[u8],
        verify: &mut Verify<'_>,
    ) -> Result<()> {
        let mac = self.mac(label, c_r, credential)?;
        if verify(&to_be_signed(&self.th, credential, &mac), signature) {
            Ok(())
        } else {
            Err(Error::Authentication)
        }
    }

    fn key_and_iv(&self, key: u64, iv: u64) -> Result<(SecretBytes, Vec<u8>)> {
        let mut k = SecretBytes::zeroed(self.suite.aead.key_len())?;
        let mut n = vec![0; self.suite.aead.nonce_len()];
        self.derive(key, &mut k)?;
        self.derive(iv, &mut n)?;
        Ok((k, n))
    }

    pub(super) fn seal(&self, key: u64, iv: u64, plaintext: &[u8]) -> Result<Vec<u8>> {
        let (k, n) = self.key_and_iv(key, iv)?;
        burning::<STACK, _>(|| self.suite.aead.seal(&k, &n, &a_x(&self.th), plaintext))
    }

    pub(super) fn open(&self, key: u64, iv: u64, ciphertext: &[u8]) -> Result<Vec<u8>> {
        let (k, n) = self.key_and_iv(key, iv)?;
        burning::<STACK, _>(|| self.suite.aead.open(&k, &n, &a_x(&self.th), ciphertext))
    }

    /// PRK_out = EDHOC_KDF( PRK_4e3m, 7, TH_4, hash_length ).
    pub(super) fn exporter(&self) -> Result<Exporter> {
        let mut prk_out = SecretBytes::zeroed(self.suite.hash.len())?;
        self.derive(label::PRK_OUT, &mut prk_out)?;
        Ok(Exporter { hash: self.suite.hash, prk_out })
    }
}

/// A_3 and A_4: Enc_structure [ "Encrypt0", h'', TH ] (section 5.4.2).
pub(super) fn a_x(th: &[u8]) -> Vec<u8> {
    let mut out = b"\x83\x68Encrypt0\x40".to_vec();
    byte_string(th, &mut out);
    out
}

/// context_2 = << C_R, ID_CRED_R, TH_2, CRED_R >>, context_3 the same without C_R.
pub(super) fn context_mac(th: &[u8], c_r: Option<&[u8]>, credential: Credential<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(credential.id.len() + credential.cred.len() + 80);
    if let Some(c_r) = c_r {
        super::messages::identifier(c_r, &mut out);
    }
    out.extend_from_slice(credential.id);
    byte_string(th, &mut out);
    out.extend_from_slice(credential.cred);
    out
}

/// M_2 and M_3: [ "Signature1", << ID_CRED_x >>, << TH, CRED_x >>, MAC ] (section 5.3.2).
pub(super) fn to_be_signed(th: &[u8], credential: Credential<'_>, mac: &[u8]) -> Vec<u8> {
    let mut external = Vec::with_capacity(credential.cred.len() + 80);
    byte_string(th, &mut external);
    external.extend_from_slice(credential.cred);
    let mut out = b"\x84\x6aSignature1".to_vec();
    byte_string(credential.id, &mut out);
    byte_string(&external, &mut out);
    byte_string(mac, &mut out);
    out
}

//! EDHOC (RFC 9528), method 0: signatures on both sides, message 4, credentials by
//! reference, no external authorization data. Without I/O: messages in, messages out.
//!
//! A KEM takes the place of Diffie-Hellman as in draft-ietf-lake-pqsuites: G_X is the
//! initiator's ephemeral encapsulation key, G_Y the ciphertext, G_XY the shared secret.
//! Whoever calls brings those, and signs and verifies.
//!
//! A step that fails leaves its state as it was: the next message may still be the right
//! one.

mod messages;
mod schedule;
mod suites;

use crate::error::{Error, Result};
use crate::hash::Sha2;
use crate::kem::SharedSecret;
use crate::memory::SecretBytes;

pub use self::messages::Message1;
use self::messages::{
    message_2, plaintext_2, plaintext_3, read_message_2, read_message_3, read_plaintext_2,
    read_plaintext_3, Plaintext,
};
use self::schedule::{to_be_signed, Schedule};
pub use self::suites::own_suite;

/// Labels of EDHOC_KDF (section 4.1.2).
mod label {
    pub(super) const KEYSTREAM_2: u64 = 0;
    pub(super) const MAC_2: u64 = 2;
    pub(super) const K_3: u64 = 3;
    pub(super) const IV_3: u64 = 4;
    pub(super) const MAC_3: u64 = 6;
    pub(super) const PRK_OUT: u64 = 7;
    pub(super) const K_4: u64 = 8;
    pub(super) const IV_4: u64 = 9;
    pub(super) const PRK_EXPORTER: u64 = 10;
    pub(super) const KEY_UPDATE: u64 = 11;
}

/// The AEAD of a cipher suite.
pub trait Aead: Sync {
    /// Key length in bytes.
    fn key_len(&self) -> usize;
    /// Nonce length in bytes.
    fn nonce_len(&self) -> usize;
    /// Ciphertext and tag.
    fn seal(&self, key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>>;
    /// The plaintext; [`Error::Authentication`] where it does not open.
    fn open(&self, key: &[u8], nonce: &[u8], aad: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>>;
}

/// What of a cipher suite (section 3.6) the messages depend on.
pub struct CipherSuite {
    /// Its identifier; private use is below -20.
    pub id: i64,
    /// The EDHOC hash algorithm.
    pub hash: Sha2,
    /// The EDHOC AEAD algorithm.
    pub aead: &'static dyn Aead,
}

/// A credential and how it is referred to (section 3.5.3), both encoded: `id` is a COSE
/// header map, `cred` one CBOR item.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// ID_CRED_x.
    pub id: &'a [u8],
    /// CRED_x.
    pub cred: &'a [u8],
}

/// The working group's vectors are of the time of draft 15. It had C_R beside
/// CIPHERTEXT_2 and in TH_2, no salt for PRK_2e, and no credentials in TH_3 and TH_4;
/// everything else was as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edition {
    Rfc9528,
    #[cfg(test)]
    Draft15,
}

impl Edition {
    /// Whether C_R stands beside CIPHERTEXT_2, and not in it.
    fn c_r_outside(self) -> bool {
        self != Self::Rfc9528
    }
}

type Verify<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// The initiator after message 1.
pub struct Initiator {
    suite: &'static CipherSuite,
    edition: Edition,
    message_1: Vec<u8>,
}

impl Initiator {
    /// Section 5.2.2: `g_x` and the connection identifier `c_i` go into message 1.
    pub fn new(suite: &'static CipherSuite, g_x: &[u8], c_i: &[u8]) -> Self {
        let message_1 = Message1 { suite: suite.id, g_x, c_i }.encode();
        Self { suite, edition: Edition::Rfc9528, message_1 }
    }

    /// Message 1.
    pub fn message_1(&self) -> &[u8] {
        &self.message_1
    }

    /// Section 5.3.3, up to the credential: whom the responder claims to be. `agree` turns
    /// G_Y (`g_y_len` bytes) into G_XY.
    pub fn read_message_2(
        &self,
        message_2: &[u8],
        g_y_len: usize,
        agree: impl FnOnce(&[u8]) -> Result<SharedSecret>,
    ) -> Result<Claimed> {
        let (g_y, ciphertext, outside) = read_message_2(self.edition, message_2, g_y_len)?;
        let g_xy = agree(g_y)?;
        let schedule =
            Schedule::new(self.edition, self.suite, &self.message_1, g_y, &g_xy, outside)?;
        let mut plaintext = ciphertext.to_vec();
        schedule.apply_keystream_2(&mut plaintext)?;
        let claim = read_plaintext_2(self.edition, &plaintext, outside)?;
        Ok(Claimed { schedule, plaintext, claim })
    }
}

/// Somebody who has not proved yet who it is.
pub struct Claimed {
    schedule: Schedule,
    plaintext: Vec<u8>,
    claim: Plaintext,
}

impl Claimed {
    /// ID_CRED_x: whose credential to look for.
    pub fn id_cred(&self) -> &[u8] {
        &self.claim.id_cred
    }

    /// Section 5.3.3, the rest: whether the responder holds `cred_r`'s key.
    pub fn verify_responder(&self, cred_r: &[u8], verify: &mut Verify<'_>) -> Result<Verified> {
        let mut schedule = self.schedule.clone_state()?;
        let c_r = (self.schedule.edition == Edition::Rfc9528).then_some(&self.claim.c_r[..]);
        let credential = Credential { id: &self.claim.id_cred, cred: cred_r };
        schedule.check(label::MAC_2, c_r, credential, &self.claim.signature, verify)?;
        schedule.advance(&self.plaintext, cred_r);
        Ok(Verified { schedule, c_r: self.claim.c_r.clone() })
    }

    /// Section 5.4.3, the rest: whether the initiator holds `cred_i`'s key. The result is
    /// message 4 and the exporter.
    pub fn verify_initiator(
        &self,
        cred_i: &[u8],
        verify: &mut Verify<'_>,
    ) -> Result<(Vec<u8>, Exporter)> {
        let mut schedule = self.schedule.clone_state()?;
        let credential = Credential { id: &self.claim.id_cred, cred: cred_i };
        schedule.check(label::MAC_3, None, credential, &self.claim.signature, verify)?;
        schedule.advance(&self.plaintext, cred_i);
        // Section 5.5.2
        let message_4 = schedule.seal(label::K_4, label::IV_4, b"")?;
        Ok((messages::sealed(&message_4), schedule.exporter()?))
    }
}

/// The initiator who knows the responder.
pub struct Verified {
    schedule: Schedule,
    c_r: Vec<u8>,
}

impl Verified {
    /// C_R, the responder's connection identifier.
    pub fn c_r(&self) -> &[u8] {
        &self.c_r
    }

    /// Section 5.4.2: M_3, what the initiator signs.
    pub fn to_be_signed(&self, own: Credential<'_>) -> Result<Vec<u8>> {
        let mac_3 = self.schedule.mac(label::MAC_3, None, own)?;
        Ok(to_be_signed(&self.schedule.th, own, &mac_3))
    }

    /// Section 5.4.2, the rest: message 3, and what waits for message 4.
    pub fn message_3(
        self,
        own: Credential<'_>,
        signature: &[u8],
    ) -> Result<(Vec<u8>, Unconfirmed)> {
        let mut schedule = self.schedule;
        let plaintext = plaintext_3(own.id, signature);
        let ciphertext = schedule.seal(label::K_3, label::IV_3, &plaintext)?;
        schedule.advance(&plaintext, own.cred);
        Ok((messages::sealed(&ciphertext), Unconfirmed { schedule }))
    }
}

/// The initiator before the responder's confirmation.
pub struct Unconfirmed {
    schedule: Schedule,
}

impl Unconfirmed {
    /// Section 5.5.3: the exporter, once message 4 has shown that the responder has the
    /// keys as well.
    pub fn read_message_4(&self, message_4: &[u8]) -> Result<Exporter> {
        let ciphertext = read_message_3(message_4)?;
        match self.schedule.open(label::K_4, label::IV_4, ciphertext)?[..] {
            [] => self.schedule.exporter(),
            _ => Err(Error::Frame("message 4 carries data that is not known here")),
        }
    }
}

/// The responder that has yet to sign.
pub struct Unsigned {
    schedule: Schedule,
    g_y: Vec<u8>,
    c_r: Vec<u8>,
}

impl Unsigned {
    /// Section 5.3.2: the answer to `message_1`, whose G_X gave `g_y` and `g_xy`.
    pub fn new(
        suite: &'static CipherSuite,
        message_1: &[u8],
        g_y: &[u8],
        g_xy: &[u8],
        c_r: &[u8],
    ) -> Result<Self> {
        Self::of_edition(Edition::Rfc9528, suite, message_1, (g_y, g_xy), c_r)
    }

    pub(crate) fn of_edition(
        edition: Edition,
        suite: &'static CipherSuite,
        message_1: &[u8],
        (g_y, g_xy): (&[u8], &[u8]),
        c_r: &[u8],
    ) -> Result<Self> {
        let outside = edition.c_r_outside().then_some(c_r);
        let schedule = Schedule::new(edition, suite, message_1, g_y, g_xy, outside)?;
        Ok(Self { schedule, g_y: g_y.to_vec(), c_r: c_r.to_vec() })
    }

    fn c_r_inside(&self) -> Option<&[u8]> {
        (!self.schedule.edition.c_r_outside()).then_some(&self.c_r)
    }

    /// M_2, what the responder signs.
    pub fn to_be_signed(&self, own: Credential<'_>) -> Result<Vec<u8>> {
        let mac_2 = self.schedule.mac(label::MAC_2, self.c_r_inside(), own)?;
        Ok(to_be_signed(&self.schedule.th, own, &mac_2))
    }

    /// Message 2, and what waits for message 3.
    pub fn message_2(self, own: Credential<'_>, signature: &[u8]) -> Result<(Vec<u8>, Responder)> {
        let plaintext = plaintext_2(self.c_r_inside(), own.id, signature);
        let mut ciphertext = plaintext.clone();
        self.schedule.apply_keystream_2(&mut ciphertext)?;
        let outside = self.schedule.edition.c_r_outside().then_some(&self.c_r[..]);
        let message = message_2(&self.g_y, &ciphertext, outside);
        let mut schedule = self.schedule;
        schedule.advance(&plaintext, own.cred);
        Ok((message, Responder { schedule }))
    }
}

/// The responder after message 2.
pub struct Responder {
    schedule: Schedule,
}

impl Responder {
    /// Section 5.4.3, up to the credential: whom the initiator claims to be.
    pub fn read_message_3(&self, message_3: &[u8]) -> Result<Claimed> {
        let ciphertext = read_message_3(message_3)?;
        let plaintext = self.schedule.open(label::K_3, label::IV_3, ciphertext)?;
        let claim = read_plaintext_3(self.schedule.edition, &plaintext)?;
        let schedule = self.schedule.clone_state()?;
        Ok(Claimed { schedule, plaintext, claim })
    }
}

/// EDHOC_Exporter (section 4.2.1): keys for the application.
pub struct Exporter {
    hash: Sha2,
    prk_out: SecretBytes,
}

impl Exporter {
    /// Fills `out` for `label` (private use from 32768) and `context`.
    pub fn export(&self, label: u64, context: &[u8], out: &mut [u8]) -> Result<()> {
        let mut prk = SecretBytes::zeroed(self.hash.len())?;
        schedule::kdf(self.hash, &self.prk_out, label::PRK_EXPORTER, b"", &mut prk)?;
        schedule::kdf(self.hash, &prk, label, context, out)
    }

    /// EDHOC_KeyUpdate (appendix H): forward secrecy for what was exported before.
    pub fn key_update(&mut self, context: &[u8]) -> Result<()> {
        let mut updated = SecretBytes::zeroed(self.hash.len())?;
        schedule::kdf(self.hash, &self.prk_out, label::KEY_UPDATE, context, &mut updated)?;
        self.prk_out = updated;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

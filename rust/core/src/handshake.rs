//! One handshake, either side: EDHOC with this project's suites, an ephemeral KEM key, and
//! a session at the end. Whoever calls signs, and brings the credentials.
//!
//! A step that fails leaves the handshake as it was: forged messages tear nothing down.

use crate::edhoc::{self, own_suite, CipherSuite, Credential, Exporter, Message1};
use crate::error::{array, Error, Result};
use crate::kem::{Kem, PrivateKey, PublicKey};
use crate::session::{Role, Session, ID_LEN};
use crate::sig::VerifyingKey;

const ORDER: Error = Error::Parameter("the order of the handshake's steps");

/// ID_CRED_x and CRED_x, kept.
pub struct Party {
    /// A COSE header map.
    pub id_cred: Vec<u8>,
    /// One CBOR item.
    pub cred: Vec<u8>,
}

impl Party {
    fn credential(&self) -> Credential<'_> {
        Credential { id: &self.id_cred, cred: &self.cred }
    }

    fn must_be(&self, id_cred: &[u8]) -> Result<()> {
        if self.id_cred == id_cred {
            Ok(())
        } else {
            Err(Error::Authentication)
        }
    }
}

enum Initiating {
    Message2(edhoc::Initiator, PrivateKey),
    Signature(edhoc::Verified),
    Message4(edhoc::Unconfirmed),
    Done,
}

/// The side that begins, with one peer in mind.
pub struct Initiator {
    suite: &'static CipherSuite,
    kem: Kem,
    own: Party,
    peer: Party,
    c_i: [u8; ID_LEN],
    c_r: [u8; ID_LEN],
    state: Initiating,
    message_1: Vec<u8>,
}

impl Initiator {
    /// Makes the ephemeral key and message 1. `c_i` is the id of this side's session.
    pub fn new(suite: i64, c_i: &[u8], own: Party, peer: Party) -> Result<Self> {
        let (suite, kem) = own_suite(suite)?;
        let c_i = array("the session id", c_i)?;
        let key = PrivateKey::generate(*kem)?;
        let edhoc = edhoc::Initiator::new(suite, key.public_key(), &c_i);
        let message_1 = edhoc.message_1().to_vec();
        let state = Initiating::Message2(edhoc, key);
        Ok(Self { suite, kem: *kem, own, peer, c_i, c_r: [0; ID_LEN], state, message_1 })
    }

    /// Message 1.
    pub fn message_1(&self) -> &[u8] {
        &self.message_1
    }

    /// The cipher suite's number.
    pub fn suite(&self) -> i64 {
        self.suite.id
    }

    /// Takes message 2, if it is the peer's: what this side signs. The ephemeral key is
    /// wiped then.
    pub fn read_message_2(&mut self, message_2: &[u8], key: &VerifyingKey) -> Result<Vec<u8>> {
        let Initiating::Message2(edhoc, ephemeral) = &self.state else { return Err(ORDER) };
        let claimed = edhoc.read_message_2(message_2, self.kem.ciphertext_len(), |g_y| {
            ephemeral.decapsulate(g_y)
        })?;
        self.peer.must_be(claimed.id_cred())?;
        let verified = claimed.verify_responder(&self.peer.cred, &mut |message, signature| {
            key.verify(message, signature)
        })?;
        self.c_r = verified.c_r().try_into().map_err(|_| Error::Authentication)?;
        let to_be_signed = verified.to_be_signed(self.own.credential())?;
        self.state = Initiating::Signature(verified);
        Ok(to_be_signed)
    }

    /// Message 3 with the signature over what [`Initiator::read_message_2`] gave.
    pub fn message_3(&mut self, signature: &[u8]) -> Result<Vec<u8>> {
        let state = core::mem::replace(&mut self.state, Initiating::Done);
        let Initiating::Signature(verified) = state else {
            self.state = state;
            return Err(ORDER);
        };
        let (message_3, unconfirmed) = verified.message_3(self.own.credential(), signature)?;
        self.state = Initiating::Message4(unconfirmed);
        Ok(message_3)
    }

    /// Takes message 4: the session, with a replay window of `window` numbers.
    pub fn read_message_4(&mut self, message_4: &[u8], window: u32) -> Result<Session> {
        let Initiating::Message4(unconfirmed) = &self.state else { return Err(ORDER) };
        let exporter = unconfirmed.read_message_4(message_4)?;
        let session = Session::new(exporter, Role::Initiator, self.c_i, self.c_r, window)?;
        self.state = Initiating::Done;
        Ok(session)
    }

    /// C_R, once message 2 was taken.
    pub fn c_r(&self) -> [u8; ID_LEN] {
        self.c_r
    }
}

enum Responding {
    Signature(edhoc::Unsigned),
    Message3(edhoc::Responder),
    Done,
}

/// The side that answers.
pub struct Responder {
    own: Party,
    c_i: [u8; ID_LEN],
    c_r: [u8; ID_LEN],
    state: Responding,
}

impl Responder {
    /// Takes message 1 of `suite` and encapsulates to its key. `c_r` is the id of this
    /// side's session. [`Error::Frame`] for another suite or a malformed message,
    /// [`Error::InvalidKey`] for a key that is none.
    pub fn new(suite: i64, message_1: &[u8], c_r: &[u8], own: Party) -> Result<Self> {
        let (suite, kem) = own_suite(suite)?;
        let c_r = array("the session id", c_r)?;
        let message = Message1::read(message_1)?;
        let c_i = message.c_i.try_into().map_err(|_| Error::Frame("C_I has another length"))?;
        if message.suite != suite.id || message.g_x.len() != kem.public_key_len() {
            return Err(Error::Frame("the handshake is of another suite than these keys"));
        }
        let (g_y, g_xy) = PublicKey::new(*kem, message.g_x)?.encapsulate()?;
        let unsigned = edhoc::Unsigned::new(suite, message_1, &g_y, &g_xy, &c_r)?;
        Ok(Self { own, c_i, c_r, state: Responding::Signature(unsigned) })
    }

    /// C_I: where the answer goes.
    pub fn c_i(&self) -> [u8; ID_LEN] {
        self.c_i
    }

    /// What this side signs.
    pub fn to_be_signed(&self) -> Result<Vec<u8>> {
        match &self.state {
            Responding::Signature(unsigned) => unsigned.to_be_signed(self.own.credential()),
            _ => Err(ORDER),
        }
    }

    /// Message 2 with the signature over [`Responder::to_be_signed`].
    pub fn message_2(&mut self, signature: &[u8]) -> Result<Vec<u8>> {
        let state = core::mem::replace(&mut self.state, Responding::Done);
        let Responding::Signature(unsigned) = state else {
            self.state = state;
            return Err(ORDER);
        };
        let (message_2, responder) = unsigned.message_2(self.own.credential(), signature)?;
        self.state = Responding::Message3(responder);
        Ok(message_2)
    }

    /// Takes message 3, if it is from `peer`: message 4 and the session.
    pub fn read_message_3(
        &mut self,
        message_3: &[u8],
        peer: &Party,
        key: &VerifyingKey,
        window: u32,
    ) -> Result<(Vec<u8>, Session)> {
        let Responding::Message3(responder) = &self.state else { return Err(ORDER) };
        let claimed = responder.read_message_3(message_3)?;
        peer.must_be(claimed.id_cred())?;
        let (message_4, exporter): (Vec<u8>, Exporter) = claimed
            .verify_initiator(&peer.cred, &mut |message, signature| {
                key.verify(message, signature)
            })?;
        let session = Session::new(exporter, Role::Responder, self.c_r, self.c_i, window)?;
        self.state = Responding::Done;
        Ok((message_4, session))
    }
}

#[cfg(test)]
mod tests;

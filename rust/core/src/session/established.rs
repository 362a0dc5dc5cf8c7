//! What a handshake leaves behind: both directions' keys, and the exporter.

use crate::edhoc::Exporter;
use crate::error::Result;
use crate::memory::SecretBytes;
use crate::secret::Secret;

use super::{Receiver, Sender, ID_LEN, SECRET_LEN};

/// Label of EDHOC_Exporter for both traffic secrets (private use, RFC 9528 section 10.1).
const TRAFFIC: u64 = 32768;

/// Who began the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent message 1.
    Initiator,
    /// It answered.
    Responder,
}

/// An established session.
pub struct Session {
    /// What goes out.
    pub sender: Sender,
    /// What comes in.
    pub receiver: Receiver,
    exporter: Exporter,
}

impl Session {
    /// `own` is the id under which packets arrive here, `peer` the one they are sent to;
    /// `window` as in [`Receiver::new`].
    ///
    /// The exporter is updated (appendix H) after the traffic secrets left it: what stays
    /// in memory gives no packet key away.
    pub fn new(
        mut exporter: Exporter,
        role: Role,
        own: [u8; ID_LEN],
        peer: [u8; ID_LEN],
        window: u32,
    ) -> Result<Self> {
        // Initiator to responder, then back.
        let mut secrets = SecretBytes::zeroed(2 * SECRET_LEN)?;
        exporter.export(TRAFFIC, b"", &mut secrets)?;
        let (forth, back) = secrets.split_at(SECRET_LEN);
        let (out, in_) = match role {
            Role::Initiator => (forth, back),
            Role::Responder => (back, forth),
        };
        let sender = Sender::new(peer, out)?;
        let receiver = Receiver::new(own, in_, window)?;
        exporter.key_update(b"")?;
        Ok(Self { sender, receiver, exporter })
    }

    /// A secret of `len` bytes, the same on both sides (EDHOC_Exporter, section 4.2.1).
    pub fn export(&self, label: u64, context: &[u8], len: usize) -> Result<Secret> {
        let mut secret = SecretBytes::zeroed(len)?;
        self.exporter.export(label, context, &mut secret)?;
        Ok(secret.into())
    }
}

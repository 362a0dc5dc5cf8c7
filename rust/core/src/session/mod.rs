//! Packets of an established session: a header of 8 bytes, AES-256-GCM, a nonce from the
//! number, the topic bound as associated data; 24 bytes beyond the payload.
//!
//! ```text
//! packet = 0x01 || session id (4) || number (3) || ciphertext || tag (16)
//! ```
//!
//! Numbers run from 0 to 2^20 - 1 for a key. Every 2^14 numbers both sides go one step
//! down a hash ratchet (HKDF-Expand) and wipe the step before, so that a stolen key opens
//! nothing that was sent earlier.
//!
//! The header needs no place in the associated data: the id chooses the key and the number
//! the nonce, so a packet opens under no other header.

mod established;
pub(crate) mod key;
mod ratchet;
mod window;

use core::cmp::Ordering;

use crate::aead::TAG_LEN;
use crate::error::{exact, Error, Result};
use crate::memory::burning;

pub use self::established::{Role, Session};
pub use self::ratchet::SECRET_LEN;
use self::ratchet::{step_of, Ratchet};
pub use self::window::{Window, TOLD};

/// First byte of every packet of this version.
pub const PACKET: u8 = 0x01;
/// Length of a session id, in bytes.
pub const ID_LEN: usize = 4;
/// Bytes before the ciphertext.
pub const HEADER_LEN: usize = 1 + ID_LEN + 3;
/// Bytes beyond the payload.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Packets under one handshake's key, and openings that may fail under it.
pub const LIMIT: u32 = 1 << 20;

/// How many steps ahead of the last authentic packet a packet may be: what a forger can
/// make the receiver compute.
const AHEAD: u32 = 2;

/// What packets leave: copies of GHASH's key among others, and a margin.
const STACK: usize = 4096;

/// Runs `work` on one packet or many, and wipes what they left on the stack.
pub fn wiping<R>(work: impl FnOnce() -> R) -> R {
    burning::<STACK, _>(work)
}

/// The sending half of a session.
pub struct Sender {
    id: [u8; ID_LEN],
    ratchet: Ratchet,
    next: u32,
}

impl Sender {
    /// `id` is what the receiver knows the session by, `secret` has [`SECRET_LEN`] bytes.
    pub fn new(id: [u8; ID_LEN], secret: &[u8]) -> Result<Self> {
        Ok(Self { id, ratchet: Ratchet::new(secret)?, next: 0 })
    }

    /// How many packets were sealed.
    pub fn sealed(&self) -> u32 {
        self.next
    }

    /// One packet into `out`, which is [`OVERHEAD`] longer than `payload`.
    /// [`Error::Limit`] where the key's numbers are used up. Call it inside [`wiping`].
    pub fn seal(&mut self, topic: &[u8], payload: &[u8], out: &mut [u8]) -> Result<()> {
        let number = self.next;
        if number >= LIMIT {
            return Err(Error::Limit("this session's numbers are used up"));
        }
        exact("the packet", out, OVERHEAD + payload.len())?;
        if step_of(number) != self.ratchet.step {
            self.ratchet = self.ratchet.next()?;
        }
        // Counted before it is used: an error below skips a number and repeats none.
        self.next += 1;
        let (header, sealed) = out.split_at_mut(HEADER_LEN);
        header[0] = PACKET;
        header[1..=ID_LEN].copy_from_slice(&self.id);
        header[1 + ID_LEN..].copy_from_slice(&number.to_be_bytes()[1..]);
        self.ratchet.seal(number, topic, payload, sealed)
    }
}

/// The receiving half of a session.
pub struct Receiver {
    id: [u8; ID_LEN],
    /// The steps that may still be needed: the last authentic packet's, and the one before
    /// it while its numbers are inside the window.
    current: Ratchet,
    before: Option<Ratchet>,
    /// A step that some packet claimed, genuine or not: computed once, however many do.
    ahead: Option<Ratchet>,
    /// Which packets were seen, with a topic or without.
    window: Window,
    /// How far behind the highest one a packet with a topic may be; 0 is strict order.
    late: u32,
    /// One above the highest number of a packet with a topic.
    ordered: u32,
    opened: u32,
    failures: u32,
}

impl Receiver {
    /// `window` is how far behind the highest number a packet with a topic may be: 0 is strict
    /// order. Control, which has none, takes other ways and may overtake and be overtaken.
    pub fn new(id: [u8; ID_LEN], secret: &[u8], window: u32) -> Result<Self> {
        Ok(Self {
            id,
            current: Ratchet::new(secret)?,
            before: None,
            ahead: None,
            window: Window::new(window.max(TOLD))?,
            late: window,
            ordered: 0,
            opened: 0,
            failures: 0,
        })
    }

    /// How many packets were opened.
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// How many openings failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// One above the highest number of a packet that was opened.
    pub fn next(&self) -> u32 {
        self.window.next()
    }

    /// The lowest number with which a packet with a topic can still be opened.
    pub fn oldest(&self) -> u32 {
        self.ordered.saturating_sub(self.late)
    }

    /// What the sender is told; see [`Window::told`].
    pub fn told(&self) -> [u8; TOLD as usize / 8] {
        self.window.told()
    }

    /// The payload of a packet, once, into `out`, which is [`OVERHEAD`] shorter.
    ///
    /// [`Error::Frame`] where it is no packet of this session, [`Error::Replay`] where its
    /// number was seen or is too old, [`Error::Authentication`] where it is not genuine,
    /// [`Error::Limit`] after too many of those. Nothing but the count of failures changes
    /// unless it is genuine. Call it inside [`wiping`].
    pub fn open(&mut self, topic: &[u8], packet: &[u8], out: &mut [u8]) -> Result<()> {
        let number = number_of(self.id, packet)?;
        if self.failures >= LIMIT {
            return Err(Error::Limit("too many forged packets for this session's key"));
        }
        self.window.check(number)?;
        if !topic.is_empty() && number < self.oldest() {
            return Err(Error::Replay);
        }
        let step = step_of(number);
        let ratchet = match step.cmp(&self.current.step) {
            Ordering::Equal => &self.current,
            Ordering::Less => {
                self.before.as_ref().filter(|before| before.step == step).ok_or(Error::Replay)?
            }
            Ordering::Greater => self.step_ahead(step)?,
        };
        if let Err(error) = ratchet.open(number, topic, &packet[HEADER_LEN..], out) {
            self.failures += 1;
            return Err(error);
        }
        self.accept(number);
        if !topic.is_empty() {
            self.ordered = self.ordered.max(number + 1);
        }
        Ok(())
    }

    fn step_ahead(&mut self, step: u32) -> Result<&Ratchet> {
        if step > self.current.step + AHEAD {
            return Err(Error::Frame("the packet's number is too far ahead"));
        }
        let known = self.ahead.take().filter(|ahead| ahead.step <= step);
        let mut ratchet = match known {
            Some(ahead) => ahead,
            None => self.current.next()?,
        };
        while ratchet.step < step {
            ratchet = ratchet.next()?;
        }
        Ok(self.ahead.insert(ratchet))
    }

    fn accept(&mut self, number: u32) {
        if step_of(number) > self.current.step {
            if let Some(ratchet) = self.ahead.take() {
                let before = core::mem::replace(&mut self.current, ratchet);
                self.before = (before.step + 1 == self.current.step).then_some(before);
            }
        }
        self.window.accept(number);
        self.opened += 1;
        if self.before.is_some() && step_of(self.window.oldest()) == self.current.step {
            self.before = None;
        }
    }
}

fn number_of(id: [u8; ID_LEN], packet: &[u8]) -> Result<u32> {
    const INVALID: Error = Error::Frame("these bytes are not a packet of this session");
    if packet.len() < OVERHEAD || packet[0] != PACKET || packet[1..=ID_LEN] != id {
        return Err(INVALID);
    }
    let n = &packet[1 + ID_LEN..HEADER_LEN];
    let number = u32::from_be_bytes([0, n[0], n[1], n[2]]);
    if number < LIMIT {
        Ok(number)
    } else {
        Err(INVALID)
    }
}

#[cfg(test)]
mod tests;

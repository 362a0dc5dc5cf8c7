//! Packets of an established session: a header of 8 bytes, AES-256-GCM, a nonce from the
//! number, the topic bound as associated data; 24 bytes beyond the payload.
//!
//!     packet = 0x01 || session id (4) || number (3) || ciphertext || tag (16)
//!
//! Numbers run from 0 to 2^20 - 1 for a key. Every 2^14 numbers both sides go one step
//! down a hash ratchet (HKDF-Expand) and wipe the step before, so that a stolen key opens
//! nothing that was sent earlier.

mod window;

use crate::aead::{Aead, NONCE_LEN, TAG_LEN};
use crate::error::{Error, Result};
use crate::hash::{hkdf_expand, Sha2};
use crate::memory::{burning, SecretBytes};

pub use self::window::Window;

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

/// Numbers between two steps of the ratchet, as a power of two.
const STEP_BITS: u32 = 14;
/// How many steps ahead of the last authentic packet a packet may be: what a forger can
/// make the receiver compute.
const AHEAD: u32 = 2;
/// What a step leaves on the stack, and a margin.
const STACK: usize = 4096;

/// A traffic key on one step of its ratchet.
struct Ratchet {
    step: u32,
    /// Chain (32) || AEAD key (32) || nonce mask (12).
    secret: SecretBytes,
}

const CHAIN: usize = 32;
const KEY: core::ops::Range<usize> = CHAIN..CHAIN + 32;
const MASK: core::ops::Range<usize> = CHAIN + 32..CHAIN + 32 + NONCE_LEN;

impl Ratchet {
    /// `secret`: 32 bytes from the handshake's exporter.
    fn new(secret: &[u8]) -> Result<Self> {
        crate::error::exact("the traffic secret", secret, CHAIN)?;
        Self::of(0, secret)
    }

    fn of(step: u32, chain: &[u8]) -> Result<Self> {
        let mut secret = SecretBytes::zeroed(MASK.end)?;
        burning::<STACK, _>(|| {
            hkdf_expand(Sha2::Sha256, chain, &[b"pqc-iiot key"], &mut secret[CHAIN..])
        })?;
        burning::<STACK, _>(|| {
            hkdf_expand(Sha2::Sha256, chain, &[b"pqc-iiot ratchet"], &mut secret[..CHAIN])
        })?;
        Ok(Self { step, secret })
    }

    fn next(&self) -> Result<Self> {
        Self::of(self.step + 1, &self.secret[..CHAIN])
    }

    fn nonce(&self, number: u32) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.secret[MASK]);
        for (byte, n) in nonce[NONCE_LEN - 4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= n;
        }
        nonce
    }
}

fn step_of(number: u32) -> u32 {
    number >> STEP_BITS
}

/// The sending half of a session.
pub struct Sender {
    id: [u8; ID_LEN],
    ratchet: Ratchet,
    next: u32,
}

impl Sender {
    /// `id` is what the receiver knows the session by.
    pub fn new(id: [u8; ID_LEN], secret: &[u8]) -> Result<Self> {
        Ok(Self { id, ratchet: Ratchet::new(secret)?, next: 0 })
    }

    /// How many packets were sealed.
    pub fn sealed(&self) -> u32 {
        self.next
    }

    /// One packet. [`Error::Limit`] where the key's numbers are used up.
    pub fn seal(&mut self, topic: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
        let number = self.next;
        if number >= LIMIT {
            return Err(Error::Limit("this session's numbers are used up"));
        }
        if step_of(number) != self.ratchet.step {
            self.ratchet = self.ratchet.next()?;
        }
        // Counted before it is used: an error below skips a number and repeats none.
        self.next += 1;
        let mut packet = Vec::with_capacity(OVERHEAD + payload.len());
        packet.push(PACKET);
        packet.extend_from_slice(&self.id);
        packet.extend_from_slice(&number.to_be_bytes()[1..]);
        packet.extend_from_slice(payload);
        let (header, text) = packet.split_at_mut(HEADER_LEN);
        let aad = [header, topic].concat();
        let ratchet = &self.ratchet;
        let (key, nonce) = (&ratchet.secret[KEY], ratchet.nonce(number));
        let tag = Aead::Aes256Gcm.seal_in_place(key, nonce, &aad, text)?;
        packet.extend_from_slice(&tag);
        Ok(packet)
    }
}

/// The receiving half of a session.
pub struct Receiver {
    id: [u8; ID_LEN],
    /// The steps that may still be needed: the last authentic packet's, and the one before
    /// it while its numbers are inside the window.
    current: Ratchet,
    before: Option<Ratchet>,
    window: Window,
    failures: u32,
}

impl Receiver {
    /// `window` is how far behind the highest number a packet may be: 0 is strict order.
    pub fn new(id: [u8; ID_LEN], secret: &[u8], window: u32) -> Result<Self> {
        Ok(Self {
            id,
            current: Ratchet::new(secret)?,
            before: None,
            window: Window::new(window)?,
            failures: 0,
        })
    }

    /// How many openings failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The payload of a packet, once. [`Error::Frame`] where it is no packet of this
    /// session, [`Error::Replay`] where its number was seen or is too old,
    /// [`Error::Authentication`] where it is not genuine, [`Error::Limit`] after too many
    /// of those. Nothing but the count of failures changes unless it is genuine.
    pub fn open(&mut self, topic: &[u8], packet: &[u8]) -> Result<Vec<u8>> {
        let number = number_of(self.id, packet)?;
        if self.failures >= LIMIT {
            return Err(Error::Limit("too many forged packets for this session's key"));
        }
        self.window.check(number)?;
        let mut ahead = None;
        let ratchet = self.ratchet_for(step_of(number), &mut ahead)?;
        let (header, data) = packet.split_at(HEADER_LEN);
        let aad = [header, topic].concat();
        let mut data = data.to_vec();
        let opened = Aead::Aes256Gcm.open_in_place(
            &ratchet.secret[KEY],
            ratchet.nonce(number),
            &aad,
            &mut data,
        );
        match opened.map(|text| text.len()) {
            Ok(len) => data.truncate(len),
            Err(error) => {
                self.failures += 1;
                return Err(error);
            }
        }
        if let Some(ratchet) = ahead {
            let before = core::mem::replace(&mut self.current, ratchet);
            self.before = (before.step + 1 == self.current.step).then_some(before);
        }
        self.window.accept(number);
        if self.before.is_some() && step_of(self.window.oldest()) == self.current.step {
            self.before = None;
        }
        Ok(data)
    }

    fn ratchet_for<'a>(&'a self, step: u32, ahead: &'a mut Option<Ratchet>) -> Result<&'a Ratchet> {
        if step == self.current.step {
            return Ok(&self.current);
        }
        if step < self.current.step {
            return self.before.as_ref().filter(|r| r.step == step).ok_or(Error::Replay);
        }
        if step > self.current.step + AHEAD {
            return Err(Error::Frame("the packet's number is too far ahead"));
        }
        let mut ratchet = self.current.next()?;
        while ratchet.step < step {
            ratchet = ratchet.next()?;
        }
        Ok(ahead.insert(ratchet))
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

//! The envelope's bytes: COSE_Encrypt0 around COSE_Sign1 (RFC 9052), as docs/protocol.md
//! lays them out. Only the deterministic encoding exists here, so that a frame means one
//! thing and is written in one way.
//!
//! `protected` is always the protected header as an encoded byte string, `context` the
//! context as an encoded text-as-bytes string, fingerprints have 32 bytes.

use core::ops::Range;

use crate::cbor::{byte_string, head, Reader};
use crate::error::{Error, Result};
use crate::sig::VerifyingKey;

/// Length of a key id, in bytes.
pub const KID_LEN: usize = 8;

const OUTER: &[u8] = b"\xd0\x83"; // 16([
const ALG: &[u8] = b"\xa4\x01\x3a"; // {1: -1 - u32
const RECIPIENT: &[u8] = b"\x04\x48"; // 4: h'8 bytes'
const SENDER: &[u8] = b"\x24\x48"; // -5: h'8 bytes'
const SEQUENCE: &[u8] = b"\x25"; // -6: uint
const ENC: &[u8] = b"\xa1\x23"; // {-4: bstr}
const INNER: &[u8] = b"\x84\x40\xa0"; // [h'', {},
const ENC_STRUCTURE: &[u8] = b"\x83\x68Encrypt0"; // ["Encrypt0",
const SIG_STRUCTURE: &[u8] = b"\x84\x6aSignature1\x40"; // ["Signature1", h'',
const DOMAIN: &[u8] = b"\x85\x74pqc-iiot envelope v1"; // ["pqc-iiot envelope v1",

/// Where the parts of a frame are. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// COSE algorithm number of the suite's envelope.
    pub alg: i64,
    /// The sender's number for this frame, 1 to 2^62 - 1.
    pub sequence: u64,
    /// The recipient's key id.
    pub recipient: Range<usize>,
    /// The sender's key id.
    pub sender: Range<usize>,
    /// The protected header as an encoded byte string.
    pub protected: Range<usize>,
    /// HPKE's encapsulated key.
    pub enc: Range<usize>,
    /// HPKE's ciphertext with its tag.
    pub ciphertext: Range<usize>,
}

impl Layout {
    /// Takes a frame apart, or says why it is none.
    pub fn of(frame: &[u8]) -> Result<Self> {
        let layout = read(frame).ok_or(Error::Frame("these bytes are not a frame"))?;
        if !(1..1 << 62).contains(&layout.sequence) {
            return Err(Error::Frame("the frame's sequence number is out of range"));
        }
        Ok(layout)
    }
}

fn read(frame: &[u8]) -> Option<Layout> {
    let mut reader = Reader::new(frame);
    reader.expect(OUTER)?;
    let start = reader.at;
    let fields = reader.byte_string()?;
    let protected = start..fields.end;
    reader.at = fields.start;
    reader.expect(ALG)?;
    let alg = &frame[reader.take(4)?];
    let alg = -1 - alg.iter().fold(0i64, |value, &byte| value << 8 | i64::from(byte));
    reader.expect(RECIPIENT)?;
    let recipient = reader.take(KID_LEN)?;
    reader.expect(SENDER)?;
    let sender = reader.take(KID_LEN)?;
    reader.expect(SEQUENCE)?;
    let sequence = reader.head(0)?;
    if reader.at != protected.end || alg >= -0x1_0000 {
        return None;
    }
    reader.expect(ENC)?;
    let enc = reader.byte_string()?;
    let ciphertext = reader.byte_string()?;
    reader.is_at_end().then_some(Layout {
        alg,
        sequence,
        recipient,
        sender,
        protected,
        enc,
        ciphertext,
    })
}

/// The protected header as an encoded byte string. `alg` is below -65536.
pub fn protected(alg: i64, recipient: &[u8], sender: &[u8], sequence: u64) -> Result<Vec<u8>> {
    crate::error::exact("the recipient's key id", recipient, KID_LEN)?;
    crate::error::exact("the sender's key id", sender, KID_LEN)?;
    let alg = u32::try_from(-1 - alg).ok().filter(|&alg| alg >= 0x1_0000);
    let alg = alg.ok_or(Error::Parameter("the envelope's algorithm number"))?;
    let mut fields = Vec::with_capacity(40);
    fields.extend_from_slice(ALG);
    fields.extend_from_slice(&alg.to_be_bytes());
    fields.extend_from_slice(RECIPIENT);
    fields.extend_from_slice(recipient);
    fields.extend_from_slice(SENDER);
    fields.extend_from_slice(sender);
    fields.extend_from_slice(SEQUENCE);
    head(0, sequence, &mut fields);
    let mut out = Vec::with_capacity(fields.len() + 2);
    byte_string(&fields, &mut out);
    Ok(out)
}

/// HPKE's aad: the Enc_structure of RFC 9052 section 5.3, the context as external_aad.
pub fn aad(protected: &[u8], context: &[u8]) -> Vec<u8> {
    [ENC_STRUCTURE, protected, context].concat()
}

/// The Sig_structure of RFC 9052 section 4.4 over an encoded payload. Its external_aad
/// names the protocol and binds the outer header, both fingerprints and the context.
fn sig_structure(
    protected: &[u8],
    recipient: &[u8],
    sender: &[u8],
    context: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let parts = [DOMAIN, protected, b"\x58\x20", recipient, b"\x58\x20", sender, context];
    let external_len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(SIG_STRUCTURE.len() + 5 + external_len + payload.len());
    out.extend_from_slice(SIG_STRUCTURE);
    head(2, external_len as u64, &mut out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(payload);
    out
}

/// What the sender signs.
pub fn to_be_signed(
    protected: &[u8],
    recipient: &[u8],
    sender: &[u8],
    context: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(payload.len() + 5);
    byte_string(payload, &mut encoded);
    sig_structure(protected, recipient, sender, context, &encoded)
}

/// The plaintext: a COSE_Sign1 without its tag, its algorithm pinned with the key.
pub fn plaintext(payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INNER.len() + 10 + payload.len() + signature.len());
    out.extend_from_slice(INNER);
    byte_string(payload, &mut out);
    byte_string(signature, &mut out);
    out
}

/// The whole frame.
pub fn frame(protected: &[u8], enc: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let size = OUTER.len() + protected.len() + ENC.len() + 10 + enc.len() + ciphertext.len();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(OUTER);
    out.extend_from_slice(protected);
    out.extend_from_slice(ENC);
    byte_string(enc, &mut out);
    byte_string(ciphertext, &mut out);
    out
}

/// Verifies a plaintext as signed by `key` for this header, these fingerprints and this
/// context: where its payload is. Every failure is [`Error::Authentication`].
pub fn verify(
    key: &VerifyingKey,
    protected: &[u8],
    recipient: &[u8],
    sender: &[u8],
    context: &[u8],
    plaintext: &[u8],
) -> Result<Range<usize>> {
    let mut reader = Reader::new(plaintext);
    let mut parts = || {
        reader.expect(INNER)?;
        let payload = reader.byte_string()?;
        let signature = reader.byte_string()?;
        reader.is_at_end().then_some((payload, signature))
    };
    let (payload, signature) = parts().ok_or(Error::Authentication)?;
    let encoded = &plaintext[INNER.len()..payload.end];
    let signed = sig_structure(protected, recipient, sender, context, encoded);
    if key.verify(&signed, &plaintext[signature]) {
        Ok(payload)
    } else {
        Err(Error::Authentication)
    }
}

#[cfg(test)]
mod tests;

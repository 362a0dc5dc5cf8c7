//! The messages and plaintexts, encoded and read (RFC 9528 sections 3.3.2, 3.5.3 and 5).

use crate::cbor::{byte_string, integer, Reader};
use crate::error::{Error, Result};

use super::Edition;

const METHOD: i64 = 0;
const KID_MAP: &[u8] = b"\xa1\x04"; // {4: …
const INVALID: Error = Error::Frame("the handshake message has another shape");

/// Message 1 (section 5.2.1) with one cipher suite.
pub struct Message1<'a> {
    /// SUITES_I, which is also the selected one.
    pub suite: i64,
    /// G_X.
    pub g_x: &'a [u8],
    /// C_I.
    pub c_i: &'a [u8],
}

impl<'a> Message1<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.g_x.len() + 20);
        integer(METHOD, &mut out);
        integer(self.suite, &mut out);
        byte_string(self.g_x, &mut out);
        identifier(self.c_i, &mut out);
        out
    }

    /// Reads message 1; [`Error::Frame`] where it is none of this profile.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let parts = (|| {
            let method = reader.integer()?;
            let suite = reader.integer()?;
            let g_x = reader.byte_string()?;
            let c_i = read_identifier(&mut reader, bytes)?;
            (method == METHOD && reader.is_at_end()).then_some((suite, &bytes[g_x], c_i))
        })();
        let (suite, g_x, c_i) = parts.ok_or(INVALID)?;
        Ok(Self { suite, g_x, c_i })
    }
}

/// A byte string identifier as section 3.3.2 encodes it: one byte that is the encoding of
/// an integer from -24 to 23 stands for itself.
pub(super) fn identifier(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes {
        [byte @ (0x00..=0x17 | 0x20..=0x37)] => out.push(*byte),
        _ => byte_string(bytes, out),
    }
}

fn read_identifier<'a>(reader: &mut Reader<'_>, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if reader.peek()? == 2 {
        let range = reader.byte_string()?;
        // One byte that could have stood for itself must.
        return match &bytes[range] {
            [0x00..=0x17 | 0x20..=0x37] => None,
            other => Some(other),
        };
    }
    let start = reader.at;
    (-24..24).contains(&reader.integer()?).then(|| &bytes[start..reader.at])
}

/// ID_CRED_x in a plaintext: a map with nothing but `kid` is the key id alone.
fn id_cred(id: &[u8], out: &mut Vec<u8>) {
    let kid = id.strip_prefix(KID_MAP).and_then(|rest| {
        let mut reader = Reader::new(rest);
        let range = reader.byte_string()?;
        reader.is_at_end().then(|| &rest[range])
    });
    match (kid, id) {
        (Some(kid), _) => identifier(kid, out),
        // Draft 15 had key ids that are integers.
        #[cfg(test)]
        (None, [0xa1, 4, kid]) => out.push(*kid),
        (None, _) => out.extend_from_slice(id),
    }
}

fn read_id_cred(edition: Edition, reader: &mut Reader<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    if reader.peek()? == 5 {
        return reader.item().map(|range| bytes[range].to_vec());
    }
    let first = reader.peek()?;
    let (mut id, kid) = (KID_MAP.to_vec(), read_identifier(reader, bytes)?);
    match edition {
        #[cfg(test)]
        Edition::Draft15 if first < 2 => id.extend_from_slice(kid),
        _ if first < 3 => byte_string(kid, &mut id),
        _ => return None,
    }
    Some(id)
}

/// What PLAINTEXT_2 or PLAINTEXT_3 says; C_R only in the former.
pub(super) struct Plaintext {
    pub(super) c_r: Vec<u8>,
    pub(super) id_cred: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// PLAINTEXT_2 = ( C_R, ID_CRED_R / bstr / -24..23, Signature_or_MAC_2 ).
pub(super) fn plaintext_2(c_r: Option<&[u8]>, id: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(id.len() + signature.len() + 16);
    if let Some(c_r) = c_r {
        identifier(c_r, &mut out);
    }
    id_cred(id, &mut out);
    byte_string(signature, &mut out);
    out
}

/// PLAINTEXT_3 = ( ID_CRED_I / bstr / -24..23, Signature_or_MAC_3 ).
pub(super) fn plaintext_3(id: &[u8], signature: &[u8]) -> Vec<u8> {
    plaintext_2(None, id, signature)
}

pub(super) fn read_plaintext_2(
    edition: Edition,
    bytes: &[u8],
    outside: Option<&[u8]>,
) -> Result<Plaintext> {
    let mut reader = Reader::new(bytes);
    let c_r = match edition {
        Edition::Rfc9528 => read_identifier(&mut reader, bytes),
        #[cfg(test)]
        Edition::Draft15 => outside,
    };
    let _ = outside;
    // What does not decrypt to a plaintext was not made for this handshake.
    let c_r = c_r.ok_or(Error::Authentication)?.to_vec();
    read_rest(edition, reader, bytes, c_r)
}

pub(super) fn read_plaintext_3(edition: Edition, bytes: &[u8]) -> Result<Plaintext> {
    read_rest(edition, Reader::new(bytes), bytes, Vec::new())
}

fn read_rest(
    edition: Edition,
    mut reader: Reader<'_>,
    bytes: &[u8],
    c_r: Vec<u8>,
) -> Result<Plaintext> {
    let parts = (|| {
        let id_cred = read_id_cred(edition, &mut reader, bytes)?;
        let signature = reader.byte_string()?;
        reader.is_at_end().then(|| (id_cred, bytes[signature].to_vec()))
    })();
    let (id_cred, signature) = parts.ok_or(Error::Authentication)?;
    Ok(Plaintext { c_r, id_cred, signature })
}

/// Message 2 = ( G_Y_CIPHERTEXT_2 ), section 5.3.1.
pub(super) fn message_2(g_y: &[u8], ciphertext: &[u8], outside: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(g_y.len() + ciphertext.len() + 8);
    byte_string(&[g_y, ciphertext].concat(), &mut out);
    if let Some(c_r) = outside {
        identifier(c_r, &mut out);
    }
    out
}

type Parts2<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>);

pub(super) fn read_message_2(edition: Edition, bytes: &[u8], g_y_len: usize) -> Result<Parts2<'_>> {
    let mut reader = Reader::new(bytes);
    let parts = (|| {
        let both = &bytes[reader.byte_string()?];
        let outside = match edition {
            Edition::Rfc9528 => None,
            #[cfg(test)]
            Edition::Draft15 => Some(read_identifier(&mut reader, bytes)?),
        };
        let (g_y, ciphertext) = both.split_at_checked(g_y_len)?;
        (reader.is_at_end() && !ciphertext.is_empty()).then_some((g_y, ciphertext, outside))
    })();
    parts.ok_or(INVALID)
}

/// Messages 3 and 4: a ciphertext as one byte string (sections 5.4.1 and 5.5.1).
pub(super) fn sealed(ciphertext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ciphertext.len() + 4);
    byte_string(ciphertext, &mut out);
    out
}

pub(super) fn read_message_3(bytes: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(bytes);
    let range = reader.byte_string().filter(|_| reader.is_at_end()).ok_or(INVALID)?;
    Ok(&bytes[range])
}

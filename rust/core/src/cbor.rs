//! The little CBOR (RFC 8949) that packets and handshakes need: heads in the shortest
//! form, byte strings, integers, and skipping over one item. Nothing is allocated by what
//! the bytes claim.

use core::ops::Range;

/// How deep arrays and maps may nest in an item.
const DEPTH: u8 = 4;

/// Appends an initial byte and its argument in the shortest form (section 3).
pub(crate) fn head(major: u8, value: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a byte string.
pub(crate) fn byte_string(bytes: &[u8], out: &mut Vec<u8>) {
    head(2, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends an integer.
pub(crate) fn integer(value: i64, out: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => head(0, value, out),
        Err(_) => head(1, !value as u64, out),
    }
}

/// Reads items from the front; every step fails where the bytes end or differ.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len())?;
        let start = core::mem::replace(&mut self.at, end);
        Some(start..end)
    }

    pub(crate) fn expect(&mut self, bytes: &[u8]) -> Option<()> {
        let range = self.take(bytes.len())?;
        (&self.bytes[range] == bytes).then_some(())
    }

    /// An initial byte and its argument, in the shortest form only: type and value.
    fn any_head(&mut self) -> Option<(u8, u64)> {
        let first = self.bytes[self.take(1)?.start];
        let (major, info) = (first >> 5, first & 0x1f);
        let len = match info {
            0..24 => return Some((major, info.into())),
            24..28 => 1 << (info - 24),
            _ => return None,
        };
        let bytes: &'a [u8] = &self.bytes[self.take(len)?];
        let value = bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let shortest = match info {
            24 => value >= 24,
            25 => value >= 0x100,
            26 => value >= 0x1_0000,
            _ => value >= 0x1_0000_0000,
        };
        shortest.then_some((major, value))
    }

    pub(crate) fn head(&mut self, major: u8) -> Option<u64> {
        self.any_head().filter(|(found, _)| *found == major).map(|(_, value)| value)
    }

    pub(crate) fn byte_string(&mut self) -> Option<Range<usize>> {
        let len = usize::try_from(self.head(2)?).ok()?;
        self.take(len)
    }

    pub(crate) fn integer(&mut self) -> Option<i64> {
        let (major, value) = self.any_head()?;
        let value = i64::try_from(value).ok()?;
        match major {
            0 => Some(value),
            1 => Some(!value),
            _ => None,
        }
    }

    /// The major type of the next item.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).map(|byte| byte >> 5)
    }

    /// Any one item: where it stands.
    pub(crate) fn item(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.skip(DEPTH)?;
        Some(start..self.at)
    }

    fn skip(&mut self, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let (major, value) = self.any_head()?;
        match major {
            0 | 1 | 7 => {}
            2 | 3 => {
                self.take(usize::try_from(value).ok()?)?;
            }
            4 | 5 => {
                // A claim of more items than bytes fails at once, before any loop.
                let items = value.checked_mul(u64::from(major - 3))?;
                if items > (self.bytes.len() - self.at) as u64 {
                    return None;
                }
                for _ in 0..items {
                    self.skip(depth)?;
                }
            }
            _ => self.skip(depth)?,
        }
        Some(())
    }
}

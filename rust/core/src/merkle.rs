//! Merkle tree hashing of RFC 9162, section 2.1, and the chain of an audit log, whose
//! links are the leaf hashes of such a tree.

use aws_lc_rs::digest::{Context, Digest, SHA256};

use crate::error::{Error, Result};

/// Bytes of a hash.
pub const HASH_SIZE: usize = 32;

type Hash = [u8; HASH_SIZE];

/// How a record of a torn tail begins its event; it is never one that merely follows.
const TORN_TAIL: &[u8] = b"\"event\":\"audit_torn_tail\"";
/// That text ends before here in a line, whatever the sequence.
const NAME_END: usize = 128;

/// The hash of a leaf (section 2.1.1).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    hash(0, &[leaf])
}

/// The hash of the tree over these hashes of subtrees of one size, but for the last one,
/// which may be smaller. Without any, the hash of the empty tree.
pub fn root(hashes: &[u8]) -> Result<Hash> {
    if hashes.len() % HASH_SIZE != 0 {
        return Err(Error::Parameter("the length of the hashes"));
    }
    let mut level = hashes.to_vec();
    while level.len() > HASH_SIZE {
        // An odd one at the end goes up as it is: its subtree is the right end of the tree.
        level = level
            .chunks(2 * HASH_SIZE)
            .flat_map(|pair| match pair.try_into() {
                Ok(odd) => odd,
                Err(_) => hash(1, &[pair]),
            })
            .collect();
    }
    Ok(level.try_into().unwrap_or_else(|_| digest_of(Context::new(&SHA256).finish())))
}

/// The lines at the beginning of `log` that follow record `sequence` with the hash `last`
/// in its chain: how many bytes they have, and their leaf hashes, one after the other.
///
/// A line follows if it is complete, begins with the next sequence number and ends with the
/// hash of the line before. Its other bytes are as they were written if the line behind it
/// follows, too. One about a torn tail needs a look at what is in front of it, and ends it.
pub fn follow(log: &[u8], sequence: u64, last: &[u8]) -> Result<(usize, Vec<u8>)> {
    let mut previous: Hash =
        last.try_into().map_err(|_| Error::Parameter("the length of the last hash"))?;
    let (mut position, mut next, mut hashes) = (0, sequence, Vec::new());
    for line in log.split_inclusive(|&byte| byte == b'\n') {
        let Some(line_) = line.strip_suffix(b"\n") else { break };
        next = next.checked_add(1).ok_or(Error::Parameter("the sequence"))?;
        if !follows(line_, next, &previous) {
            break;
        }
        previous = leaf_hash(line_);
        hashes.extend_from_slice(&previous);
        position += line.len();
    }
    Ok((position, hashes))
}

fn follows(line: &[u8], sequence: u64, previous: &Hash) -> bool {
    let begin = format!("{{\"v\":1,\"seq\":{sequence},");
    let head = &line[..line.len().min(NAME_END)];
    line.strip_suffix(b"\"}")
        .and_then(|rest| rest.split_last_chunk::<{ 2 * HASH_SIZE }>())
        .is_some_and(|(rest, digits)| rest.ends_with(b",\"prev\":\"") && is_hex(digits, previous))
        && line.starts_with(begin.as_bytes())
        && !head.windows(TORN_TAIL.len()).any(|window| window == TORN_TAIL)
}

fn is_hex(digits: &[u8; 2 * HASH_SIZE], bytes: &Hash) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    digits.chunks(2).zip(bytes).all(|(pair, byte)| {
        pair == [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
    })
}

fn hash(kind: u8, parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    for part in parts {
        context.update(part);
    }
    digest_of(context.finish())
}

fn digest_of(digest: Digest) -> Hash {
    let mut hash = [0; HASH_SIZE];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MTH as section 2.1.1 defines it.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => digest_of(Context::new(&SHA256).finish()),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                hash(1, &[&naive(left), &naive(right)])
            }
        }
    }

    fn log(count: u64) -> (Vec<u8>, Vec<Hash>) {
        let (mut log, mut hashes, mut previous) = (Vec::new(), Vec::new(), "0".repeat(64));
        for sequence in 1..=count {
            let line = format!("{{\"v\":1,\"seq\":{sequence},\"x\":7,\"prev\":\"{previous}\"}}");
            hashes.push(leaf_hash(line.as_bytes()));
            previous = hex::encode(hashes.last().unwrap());
            log.extend_from_slice(line.as_bytes());
            log.push(b'\n');
        }
        (log, hashes)
    }

    #[test]
    fn the_root_is_the_definition() {
        for count in 0..300u32 {
            let leaves: Vec<_> = (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            assert_eq!(root(&leaves.concat()).unwrap(), naive(&leaves), "{count}");
        }
        assert!(root(&[0; 33]).is_err());
    }

    #[test]
    fn a_chain_is_followed_to_its_first_break() {
        let (whole, hashes) = log(5);
        let all = follow(&whole, 0, &[0; 32]).unwrap();
        assert_eq!(all, (whole.len(), hashes.concat()));
        let mut lines = whole.split_inclusive(|&byte| byte == b'\n');
        let first = lines.next().unwrap().len();
        assert_eq!(follow(&whole[first..], 1, &hashes[0]).unwrap().1, hashes[1..].concat());
        assert_eq!(follow(&whole[..whole.len() - 1], 0, &[0; 32]).unwrap().1.len(), 4 * 32);
        for changed in 0..whole.len() {
            let mut other = whole.clone();
            other[changed] ^= 1;
            let (end, _) = follow(&other, 0, &[0; 32]).unwrap();
            // The last line's own content is the only one that nothing vouches for yet.
            let own = whole.len() - ",\"x\":7,\"prev\":\"\"}\n".len() - 64..whole.len() - 76;
            assert!(end < whole.len() || own.contains(&changed), "{changed}");
        }
        assert_eq!(follow(b"", 7, &[0; 32]).unwrap(), (0, vec![]));
        assert!(follow(b"", 0, &[0; 31]).is_err());
        assert!(follow(b"x\n", u64::MAX, &[0; 32]).is_err());
    }

    #[test]
    fn a_torn_tail_is_not_followed() {
        let zeros = "0".repeat(64);
        let line = format!(
            "{{\"v\":1,\"seq\":1,\"id\":\"\",\"event\":\"audit_torn_tail\",\"prev\":\"{zeros}\"}}\n"
        );
        assert_eq!(follow(line.as_bytes(), 0, &[0; 32]).unwrap().0, 0);
    }
}

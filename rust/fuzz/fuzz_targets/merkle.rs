//! The chain of an audit log and the root of its tree, against their definitions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::merkle::{follow, leaf_hash, root, HASH_SIZE};

/// MTH of RFC 9162, section 2.1.1, over hashes.
fn naive(hashes: &[[u8; HASH_SIZE]]) -> [u8; HASH_SIZE] {
    if let [only] = hashes {
        return *only;
    }
    let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
    // A leaf hash begins with 0, so a node's is not one; it is computed by `root` of two.
    root(&[naive(left), naive(right)].concat()).expect("two hashes")
}

fn check(log: &[u8], sequence: u64, last: &[u8; HASH_SIZE]) {
    let Ok((end, hashes)) = follow(log, sequence, last) else {
        assert!(u64::MAX - sequence <= log.len() as u64);
        return;
    };
    let lines: Vec<_> = log[..end].split_inclusive(|&byte| byte == b'\n').collect();
    assert!(log[..end].is_empty() || log[..end].ends_with(b"\n"));
    let each = lines.iter().map(|line| leaf_hash(&line[..line.len() - 1]));
    assert_eq!(hashes, each.flatten().collect::<Vec<_>>());
    // What follows does so whether it is read at once or in two parts.
    if let Some(first) = lines.first() {
        let (one, rest) = log.split_at(first.len());
        let head = follow(one, sequence, last).expect("a line that follows");
        let head_hash: &[u8; HASH_SIZE] = head.1[..].try_into().expect("one hash");
        let tail = follow(rest, sequence + 1, head_hash).expect("the rest");
        assert_eq!((end, hashes), (head.0 + tail.0, [head.1, tail.1].concat()));
    }
}

fuzz_target!(|input: &[u8]| {
    check(input, 0, &[0; HASH_SIZE]);
    check(input, u64::MAX - 1, &[0; HASH_SIZE]);
    // A log that follows, but for some bytes: position, position, byte.
    let mut log = Vec::new();
    let mut previous = [0; HASH_SIZE];
    for sequence in 1..=4 {
        let digits: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{{\"v\":1,\"seq\":{sequence},\"x\":7,\"prev\":\"{digits}\"}}");
        previous = leaf_hash(line.as_bytes());
        log.extend_from_slice(line.as_bytes());
        log.push(b'\n');
    }
    for edit in input.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % log.len();
        log[at] = edit[2];
    }
    check(&log, 0, &[0; HASH_SIZE]);
    let hashes = input.chunks_exact(HASH_SIZE).map(|hash| hash.try_into().expect("32 bytes"));
    let hashes: Vec<[u8; HASH_SIZE]> = hashes.collect();
    if !hashes.is_empty() {
        assert_eq!(root(hashes.as_flattened()), Ok(naive(&hashes)));
    }
    assert_eq!(root(input).is_ok(), input.len() % HASH_SIZE == 0);
});

//! Frames: refused, or read in the one way in which they are written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::envelope::{frame, protected, Layout};

fn check(bytes: &[u8]) {
    let Ok(layout) = Layout::of(bytes) else { return };
    let part = |range: &core::ops::Range<usize>| &bytes[range.clone()];
    let (recipient, sender) = (part(&layout.recipient), part(&layout.sender));
    let header = protected(layout.alg, recipient, sender, layout.sequence);
    let again = header.map(|h| frame(&h, part(&layout.enc), part(&layout.ciphertext)));
    assert_eq!(again.as_deref(), Ok(bytes));
}

fuzz_target!(|input: &[u8]| {
    check(input);
    // A frame with some bytes changed gets further than garbage: position, position, byte.
    let Ok(header) = protected(-65793, &[1; 8], &[2; 8], 1000) else { return };
    let mut bytes = frame(&header, &[3; 300], &[4; 30]);
    for edit in input.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2];
    }
    check(&bytes);
    bytes.truncate(input.len());
    check(&bytes);
});

//! Frames: refused, or read in the one way in which they are written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::envelope::{frame, protected, Layout};

fuzz_target!(|bytes: &[u8]| {
    let Ok(layout) = Layout::of(bytes) else { return };
    let part = |range: &core::ops::Range<usize>| &bytes[range.clone()];
    let (recipient, sender) = (part(&layout.recipient), part(&layout.sender));
    let header = protected(layout.alg, recipient, sender, layout.sequence);
    let again = header.map(|h| frame(&h, part(&layout.enc), part(&layout.ciphertext)));
    assert_eq!(again.as_deref(), Ok(bytes));
});

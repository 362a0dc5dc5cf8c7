//! Encoded signature private keys, as they come out of a key file: refused, or decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::sig::{Sig, SigningKey};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let sig = [Sig::Falcon512, Sig::Falcon1024][usize::from(choice) % 2];
    let mut encoded = bytes.to_vec();
    if choice < 0xf0 {
        encoded.resize(sig.private_key_len(), 0);
        encoded[0] = if sig == Sig::Falcon512 { 0x59 } else { 0x5a };
    }
    if let Ok(key) = SecretBytes::copy_from(&encoded).and_then(|e| SigningKey::from_encoded(sig, e))
    {
        assert_eq!(key.public_key().len(), sig.public_key_len());
    }
});

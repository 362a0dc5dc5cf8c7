//! KEM public keys: refused, or good for an encapsulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::kem::{Kem, PublicKey};
use pqc_iiot_core::Error;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let kem = Kem::ALL[usize::from(choice) % Kem::ALL.len()];
    // The right length most of the time: what comes after it is the parser.
    let mut key = bytes.to_vec();
    if choice < 0xf0 {
        key.resize(kem.public_key_len(), 0);
    }
    if let Ok(key) = PublicKey::new(kem, &key) {
        match key.encapsulate() {
            Ok((ciphertext, secret)) => {
                assert_eq!((ciphertext.len(), secret.len()), (kem.ciphertext_len(), 32));
            }
            // An X25519 point of small order, which only shows in use.
            Err(error) => assert!(matches!(error, Error::InvalidKey(_))),
        }
    }
});

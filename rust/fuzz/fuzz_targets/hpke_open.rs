//! HPKE messages to one key of each KEM: none of them can be opened.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::aead::Aead;
use pqc_iiot_core::hpke::{Kdf, Suite};
use pqc_iiot_core::kem::{Kem, PrivateKey};
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::Error;

fn keys() -> &'static [PrivateKey] {
    static KEYS: OnceLock<Vec<PrivateKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let seed = [7; 64];
        let key = |kem: Kem| {
            let seed = SecretBytes::copy_from(&seed[..kem.seed_len()])?;
            PrivateKey::from_seed(kem, seed)
        };
        Kem::ALL.into_iter().filter_map(|kem| key(kem).ok()).collect()
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let choice = usize::from(choice);
    let key = &keys()[choice % 4];
    let suite =
        Suite { kdf: Kdf::ALL[choice / 4 % 5], aead: Aead::ALL[choice / 20 % Aead::ALL.len()] };
    let enc_len = key.kem().ciphertext_len();
    let mut message = bytes.to_vec();
    if choice < 0xf0 {
        message.resize(message.len().max(enc_len + 16), 0);
    }
    let (enc, ciphertext) = message.split_at(message.len().min(enc_len));
    match suite.open(key, enc, b"info", b"aad", ciphertext) {
        Err(Error::Authentication | Error::Length { .. }) => {}
        other => panic!("{:?}", other.map(|plaintext| plaintext.len())),
    }
});

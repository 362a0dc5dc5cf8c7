//! Signature public keys, and signatures under a key that is one: none of them verifies.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::sig::{Sig, SigningKey, VerifyingKey};

fn keys() -> &'static [VerifyingKey] {
    static KEYS: OnceLock<Vec<VerifyingKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = |sig| VerifyingKey::new(sig, SigningKey::generate(sig)?.public_key());
        Sig::ALL.into_iter().filter_map(|sig| key(sig).ok()).collect()
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let sig = Sig::ALL[usize::from(choice) % Sig::ALL.len()];
    let resized = |len: usize| {
        let mut bytes = bytes.to_vec();
        if choice < 0xf0 {
            bytes.resize(len, 0);
        }
        bytes
    };
    let key = &keys()[usize::from(choice) % Sig::ALL.len()];
    let mut signature = resized(sig.signature_len());
    assert!(!key.verify(b"message", &signature));
    // With the right header byte it gets further.
    if let (Some(first), Some(logn)) = (signature.first_mut(), logn(sig)) {
        *first = 0x30 + logn;
    }
    assert!(!key.verify(b"message", &signature));
    let mut public = resized(sig.public_key_len());
    if let (Some(first), Some(logn)) = (public.first_mut(), logn(sig)) {
        *first = logn;
    }
    if let Ok(key) = VerifyingKey::new(sig, &public) {
        assert!(!key.verify(b"message", &[1; 4627][..sig.signature_len()]));
    }
});

fn logn(sig: Sig) -> Option<u8> {
    match sig {
        Sig::Falcon512 | Sig::Falcon512EcdsaP256 => Some(9),
        Sig::Falcon1024 => Some(10),
        Sig::MlDsa65 | Sig::MlDsa87 => None,
    }
}

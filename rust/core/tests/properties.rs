//! Whatever bytes come in: round trips hold, changes are noticed, nothing panics.
#![allow(clippy::unwrap_used)]

use pqc_iiot_core::aead::Aead;
use pqc_iiot_core::hpke::{Kdf, Suite};
use pqc_iiot_core::kem::{Kem, PrivateKey, PublicKey};
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::secret::Secret;
use pqc_iiot_core::sig::{Sig, SigningKey, VerifyingKey};
use pqc_iiot_core::Error;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn suites() -> impl Strategy<Value = Suite> {
    (select(Kdf::ALL.to_vec()), select(Aead::ALL.to_vec()))
        .prop_map(|(kdf, aead)| Suite { kdf, aead })
}

/// Changes one byte of `data`, if there is one.
fn changed(data: &[u8], at: usize, flip: u8) -> Option<Vec<u8>> {
    let mut data = data.to_vec();
    let at = at.checked_rem(data.len())?;
    data[at] ^= flip;
    Some(data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hpke_opens_what_was_sealed_and_nothing_else(
        kem in select(Kem::ALL.to_vec()),
        suite in suites(),
        (info, aad, plaintext) in (bytes(80), bytes(80), bytes(200)),
        at: usize,
        flip in 1u8..,
    ) {
        let key = PrivateKey::generate(kem).unwrap();
        let public = PublicKey::new(kem, key.public_key()).unwrap();
        let (enc, ciphertext) = suite.seal(&public, &info, &aad, &plaintext).unwrap();
        let open = |enc: &[u8], info: &[u8], aad: &[u8], ciphertext: &[u8]| {
            suite.open(&key, enc, info, aad, ciphertext)
        };
        prop_assert_eq!(&open(&enc, &info, &aad, &ciphertext).unwrap(), &plaintext);
        let refused = Err(Error::Authentication);
        if let Some(bad) = changed(&enc, at, flip) {
            prop_assert_eq!(open(&bad, &info, &aad, &ciphertext), refused.clone());
        }
        if let Some(bad) = changed(&info, at, flip) {
            prop_assert_eq!(open(&enc, &bad, &aad, &ciphertext), refused.clone());
        }
        if let Some(bad) = changed(&aad, at, flip) {
            prop_assert_eq!(open(&enc, &info, &bad, &ciphertext), refused.clone());
        }
        if let Some(bad) = changed(&ciphertext, at, flip) {
            prop_assert_eq!(open(&enc, &info, &aad, &bad), refused.clone());
        }
        let cut = &ciphertext[..at % ciphertext.len()];
        prop_assert_eq!(open(&enc, &info, &aad, cut), refused);
        let (expected, got) = (enc.len(), at % enc.len());
        prop_assert_eq!(
            open(&enc[..got], &info, &aad, &ciphertext),
            Err(Error::Length { what: "the KEM ciphertext", expected, got })
        );
    }

    #[test]
    fn a_kem_key_is_good_or_refused(
        kem in select(Kem::ALL.to_vec()),
        mut garbage in vec(any::<u8>(), 1665),
        len in 0usize..1700,
    ) {
        prop_assert!(PublicKey::new(kem, &garbage[..len.min(1665)]).is_err());
        // Coefficients below the modulus: garbage that passes for a key.
        garbage.chunks_exact_mut(3).for_each(|pair| pair.copy_from_slice(&[pair[0], 0x77, 0x77]));
        garbage.truncate(kem.public_key_len());
        if let Ok(key) = PublicKey::new(kem, &garbage) {
            prop_assert_eq!(key.encapsulate().unwrap().0.len(), kem.ciphertext_len());
        } else {
            let has_point = matches!(kem, Kem::MlKem1024P384 | Kem::MlKem768P256);
            prop_assert!(has_point, "only a point can be wrong");
        }
    }

    #[test]
    fn signatures_verify_as_signed_and_not_otherwise(
        sig in select(Sig::ALL.to_vec()),
        message in bytes(300),
        garbage in bytes(5000),
        at: usize,
        flip in 1u8..,
    ) {
        let key = SigningKey::generate(sig).unwrap();
        let public = VerifyingKey::new(sig, key.public_key()).unwrap();
        let signature = key.sign(&message).unwrap();
        prop_assert!(public.verify(&message, &signature));
        prop_assert!(!public.verify(&message, &changed(&signature, at, flip).unwrap()));
        prop_assert!(!public.verify(&message, &signature[..at % signature.len()]));
        prop_assert!(!public.verify(&message, &garbage));
        if let Some(other) = changed(&message, at, flip) {
            prop_assert!(!public.verify(&other, &signature));
        }
        if let Ok(other) = VerifyingKey::new(sig, &changed(key.public_key(), at, flip).unwrap()) {
            prop_assert!(!other.verify(&message, &signature));
        }
    }

    #[test]
    fn secrets_unwrap_as_wrapped_and_not_otherwise(
        len in 16usize..=64,
        aad in bytes(50),
        garbage in bytes(5000),
        at: usize,
        flip in 1u8..,
    ) {
        let (kek, secret) = (Secret::random(32).unwrap(), Secret::random(len).unwrap());
        let blob = kek.wrap(&aad, &secret).unwrap();
        prop_assert_eq!(blob.len(), 12 + len + 16);
        prop_assert_eq!(kek.unwrap(&aad, &blob).unwrap().mac(b""), secret.mac(b""));
        prop_assert!(kek.unwrap(&aad, &changed(&blob, at, flip).unwrap()).is_err());
        prop_assert!(kek.unwrap(&aad, &blob[..at % blob.len()]).is_err());
        prop_assert!(kek.unwrap(&aad, &garbage).is_err());
        if let Some(other) = changed(&aad, at, flip) {
            prop_assert!(kek.unwrap(&other, &blob).is_err());
        }
    }

    #[test]
    fn signing_keys_are_good_or_refused(sig in select(Sig::ALL.to_vec()), garbage in bytes(2400)) {
        let secret = SecretBytes::copy_from(&garbage).unwrap();
        prop_assert!(SigningKey::from_encoded(sig, secret).is_err() || sig == Sig::MlDsa87);
    }
}

use super::*;
use crate::test_vectors;

#[test]
fn every_algorithm_signs_and_verifies() {
    for sig in Sig::ALL {
        let key = SigningKey::generate(sig).unwrap();
        let public = VerifyingKey::new(sig, key.public_key()).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert_eq!(signature.len(), sig.signature_len());
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"other", &signature));
        assert!(!public.verify(b"message", &signature[1..]));
        assert!(!public.verify(b"message", &[]));
        for at in [0, 1, 41, sig.signature_len() / 2, sig.signature_len() - 1] {
            let mut bad = signature.clone();
            bad[at] ^= 1;
            assert!(!public.verify(b"message", &bad), "{sig:?} byte {at}");
        }
        let other = SigningKey::generate(sig).unwrap();
        assert!(!VerifyingKey::new(sig, other.public_key())
            .unwrap()
            .verify(b"message", &signature));
        assert_ne!(key.sign(b"message").unwrap(), signature, "signing is randomised");
    }
}

#[test]
fn bad_keys_are_refused() {
    for sig in Sig::ALL {
        assert!(VerifyingKey::new(sig, &[0; 7]).is_err());
        let short = SecretBytes::zeroed(sig.private_key_len() - 1).unwrap();
        assert!(SigningKey::from_encoded(sig, short).is_err());
    }
    for sig in [Sig::Falcon512, Sig::Falcon1024, Sig::Falcon512EcdsaP256] {
        assert!(VerifyingKey::new(sig, &vec![0xff; sig.public_key_len()]).is_err());
        let zeros = SecretBytes::zeroed(sig.private_key_len()).unwrap();
        assert!(SigningKey::from_encoded(sig, zeros).is_err());
    }
}

#[test]
fn wycheproof_ml_dsa_87() {
    test_vectors::wycheproof("wycheproof_mldsa_87_verify_test.json", |group, case| {
        // Our signatures have an empty context; cases with one are another message.
        if !case.bytes("ctx").is_empty() {
            return case.is_valid().then(|| b"ok".to_vec());
        }
        let key = VerifyingKey::new(Sig::MlDsa87, &group.bytes("publicKey")).ok()?;
        key.verify(&case.bytes("msg"), &case.bytes("sig")).then(|| b"ok".to_vec())
    });
}

/// Both halves are needed, over the same message, and neither is one of anything else.
#[test]
fn the_composite_is_more_than_its_halves() {
    let sig = Sig::Falcon512EcdsaP256;
    let (key, other) = (SigningKey::generate(sig).unwrap(), SigningKey::generate(sig).unwrap());
    let public = VerifyingKey::new(sig, key.public_key()).unwrap();
    let signature = key.sign(b"message").unwrap();
    let mix = |falcon: &[u8], ecdsa: &[u8]| [&falcon[..666], &ecdsa[666..]].concat();
    let elsewhere = other.sign(b"message").unwrap();
    assert!(!public.verify(b"message", &mix(&signature, &elsewhere)));
    assert!(!public.verify(b"message", &mix(&elsewhere, &signature)));
    let another = key.sign(b"another").unwrap();
    assert!(!public.verify(b"message", &mix(&signature, &another)));
    assert!(!public.verify(b"another", &mix(&signature, &another)));
    // Both are fresh signatures of one message: mixing those is one more signature.
    assert!(public.verify(b"message", &mix(&signature, &key.sign(b"message").unwrap())));

    // Falcon's half alone is a signature of the representative, never of the message.
    let falcon = VerifyingKey::new(Sig::Falcon512, &key.public_key()[..897]).unwrap();
    assert!(!falcon.verify(b"message", &signature[..666]));
    assert!(falcon.verify(&composite_message(b"message"), &signature[..666]));
    let representative = composite_message(b"message");
    assert!(representative.starts_with(b"CompositeAlgorithmSignatures2025PQCIIOT-COMPSIG-"));
    assert_eq!(representative.len(), 32 + 43 + 1 + 64);
}

/// A key whose halves are apart: what a device with the classical half does.
#[test]
fn a_split_composite_verifies_like_any_other() {
    let sig = Sig::Falcon512EcdsaP256;
    let falcon = SigningKey::generate(Sig::Falcon512).unwrap();
    let mut scalar = SecretBytes::zeroed(32).unwrap();
    ecdsa::generate(&mut scalar).unwrap();
    let point = ecdsa::public_key(&scalar).unwrap();
    let message = composite_message(b"message");
    let mut outside = [0; 64];
    ecdsa::sign(&scalar, &point, &message, &mut outside).unwrap();
    assert!(ecdsa_verify(&point, &message, &outside));
    assert!(!ecdsa_verify(&point, b"message", &outside));
    assert!(!ecdsa_verify(&point, &message, &outside[1..]));
    assert!(!ecdsa_verify(&point[1..], &message, &outside));
    let signature = [&falcon.sign(&message).unwrap()[..], &outside].concat();
    let public = VerifyingKey::new(sig, &[falcon.public_key(), &point].concat()).unwrap();
    assert!(public.verify(b"message", &signature));
    assert!(!public.verify(b"another", &signature));
}

#[test]
fn a_point_in_another_form_is_refused() {
    let sig = Sig::Falcon512EcdsaP256;
    let key = SigningKey::generate(sig).unwrap();
    for form in [0, 2, 6, 7] {
        let mut bytes = key.public_key().to_vec();
        bytes[897] = form;
        assert!(VerifyingKey::new(sig, &bytes).is_err());
    }
}

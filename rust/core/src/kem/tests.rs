use hex::decode;

use super::*;
use crate::test_memory::{leaves_nothing, Masked};
use crate::test_vectors;

fn private(kem: Kem, seed: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_seed(kem, SecretBytes::copy_from(seed).unwrap())
}

#[test]
fn every_kem_agrees_with_itself_and_rejects_changes() {
    for kem in Kem::ALL {
        let key = PrivateKey::generate(kem).unwrap();
        assert_eq!(key.public_key().len(), kem.public_key_len());
        let public = PublicKey::new(kem, key.public_key()).unwrap();
        let (mut ciphertext, secret) = public.encapsulate().unwrap();
        assert_eq!(ciphertext.len(), kem.ciphertext_len());
        assert!(key.decapsulate(&ciphertext).unwrap() == secret);
        let (other, other_secret) = public.encapsulate().unwrap();
        assert_ne!(other, ciphertext);
        assert!(other_secret != secret);
        ciphertext[3] ^= 1;
        assert!(key.decapsulate(&ciphertext).unwrap() != secret, "{kem:?}");
        assert!(key.decapsulate(&ciphertext[1..]).is_err());
        assert!(PublicKey::new(kem, &key.public_key()[1..]).is_err());
        assert!(private(kem, &[1; 33]).is_err());
    }
}

#[test]
fn the_classical_secret_is_nowhere_after_use() {
    let hybrids = [
        (Kem::MlKem768X25519, classical::Group::X25519),
        (Kem::MlKem768P256, classical::Group::P256),
        (Kem::MlKem1024P384, classical::Group::P384),
    ];
    for (kem, group) in hybrids {
        leaves_nothing(|| {
            let key = PrivateKey::generate(kem).unwrap();
            let (ciphertext, _) =
                PublicKey::new(kem, key.public_key()).unwrap().encapsulate().unwrap();
            // The secret that both sides agreed on, in a copy that the test keeps.
            let mut copy = SecretBytes::zeroed(group.shared_len()).unwrap();
            key.expose(|part| {
                if part.len() == group.scalar_len() {
                    let public = &ciphertext[ciphertext.len() - group.public_len()..];
                    burning::<STACK, _>(|| {
                        copy.copy_from_slice(
                            &group.agree(part, public).unwrap()[..group.shared_len()],
                        )
                    });
                }
            });
            key.decapsulate(&ciphertext).unwrap();
            (vec![Masked::of(&copy)], copy)
        });
    }
}

#[test]
fn bad_public_keys_are_refused() {
    // All ones: coefficients above the modulus (FIPS 203 section 7.2).
    for kem in Kem::ALL {
        assert!(PublicKey::new(kem, &vec![0xff; kem.public_key_len()]).is_err(), "{kem:?}");
    }
    // A point off the curve.
    for kem in [Kem::MlKem768P256, Kem::MlKem1024P384] {
        let key = PrivateKey::generate(kem).unwrap();
        let mut bytes = key.public_key().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(PublicKey::new(kem, &bytes).is_err());
    }
    // An X25519 point of small order is refused when it is used.
    let key = PrivateKey::generate(Kem::MlKem768X25519).unwrap();
    let mut bytes = key.public_key().to_vec();
    bytes[1184..].fill(0);
    assert!(PublicKey::new(Kem::MlKem768X25519, &bytes).unwrap().encapsulate().is_err());
}

#[test]
fn scalars_are_drawn_by_rejection() {
    let group = classical::Group::P256;
    let mut seed = [0xff; classical::MAX_SEED];
    assert!(group.scalar(&seed).is_err(), "no candidate below the order");
    seed[..32].fill(0);
    assert!(group.scalar(&seed).is_err(), "zero is no scalar");
    seed[64..].fill(7);
    assert_eq!(group.scalar(&seed).unwrap(), [7; 32]);
    seed[32..64].fill(5);
    assert_eq!(group.scalar(&seed).unwrap(), [5; 32]);
}

#[test]
fn a_split_key_opens_with_the_share_of_its_device_only() {
    let group = classical::Group::P256;
    let (scalar, kem) = ([7; 32], Kem::MlKem768P256);
    let pq = PrivateKey::generate(Kem::MlKem768).unwrap();
    let point = group.public_key(&scalar).unwrap();
    let split = SplitPrivateKey::new(kem, &pq, &point).unwrap();
    let public = PublicKey::new(kem, split.public_key()).unwrap();
    let (ciphertext, secret) = public.encapsulate().unwrap();

    let share = group.agree(&scalar, split.classical_point(&ciphertext).unwrap()).unwrap();
    assert!(split.decapsulate(&pq, &share[..32], &ciphertext).unwrap() == secret);
    assert!(split.decapsulate(&pq, &[1; 32], &ciphertext).unwrap() != secret);
    assert!(split.decapsulate(&pq, &share[..31], &ciphertext).is_err());
    let other = PrivateKey::generate(Kem::MlKem768).unwrap();
    assert!(split.decapsulate(&other, &share[..32], &ciphertext).unwrap() != secret);

    let mut off_curve = ciphertext.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    assert!(split.classical_point(&off_curve).is_err());
    assert!(split.classical_point(&ciphertext[1..]).is_err());
    assert!(split.decapsulate(&pq, &share[..32], &off_curve).is_err());
    for kem in Kem::ALL.into_iter().filter(|&other| other != kem) {
        assert!(SplitPrivateKey::new(kem, &pq, &point).is_err());
    }
    let wrong = PrivateKey::generate(Kem::MlKem1024).unwrap();
    assert!(SplitPrivateKey::new(kem, &wrong, &point).is_err());
    assert!(SplitPrivateKey::new(kem, &pq, &point[1..]).is_err());
}

#[test]
fn wycheproof_p256() {
    test_vectors::wycheproof("wycheproof_ecdh_secp256r1_ecpoint_test.json", |_, case| {
        let group = classical::Group::P256;
        // The file's scalars have a leading zero or miss theirs; ours have 32 bytes.
        let scalar = case.bytes("private");
        let mut padded = [0; 32];
        let digits = &scalar[scalar.len().saturating_sub(32)..];
        padded[32 - digits.len()..].copy_from_slice(digits);
        let shared = group.agree(&padded, &case.bytes("public")).ok()?;
        Some(shared[..32].to_vec())
    });
}

#[test]
fn wycheproof_ml_kem_decapsulation() {
    for (kem, file) in [
        (Kem::MlKem768, "wycheproof_mlkem_768_test.json"),
        (Kem::MlKem1024, "wycheproof_mlkem_1024_test.json"),
    ] {
        test_vectors::wycheproof(file, |_, case| {
            let key = private(kem, &case.bytes("seed")).ok()?;
            let secret = key.decapsulate(&case.bytes("c")).ok()?;
            (case.bytes("ek") == key.public_key()).then(|| secret.to_vec())
        });
    }
}

#[test]
fn wycheproof_ml_kem_encapsulation_and_key_generation() {
    test_vectors::wycheproof("wycheproof_mlkem_768_encaps_test.json", |_, case| {
        let public = PublicKey::new(Kem::MlKem768, &case.bytes("ek")).ok()?;
        let (ciphertext, secret) = public.encapsulate_derand(&case.bytes("m")).ok()?;
        (ciphertext == case.bytes("c")).then(|| secret.to_vec())
    });
    test_vectors::wycheproof("wycheproof_mlkem_768_keygen_seed_test.json", |_, case| {
        let key = private(Kem::MlKem768, &case.bytes("seed")).ok()?;
        Some(key.public_key().to_vec())
    });
}

#[test]
fn wycheproof_x25519() {
    test_vectors::wycheproof("wycheproof_x25519_test.json", |_, case| {
        let group = classical::Group::X25519;
        let shared = group.agree(&case.bytes("private"), &case.bytes("public")).ok()?;
        Some(shared[..32].to_vec())
    });
}

#[test]
fn x_wing_draft() {
    let Some(vectors) = test_vectors::load("xwing.json") else { return };
    let vectors = vectors.as_array().unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let bytes = |name: &str| decode(vector[name].as_str().unwrap()).unwrap();
        let key = private(Kem::MlKem768X25519, &bytes("seed")).unwrap();
        assert_eq!(key.public_key(), bytes("pk"));
        let public = PublicKey::new(Kem::MlKem768X25519, &bytes("pk")).unwrap();
        let (ciphertext, secret) = public.encapsulate_derand(&bytes("eseed")).unwrap();
        assert_eq!(ciphertext, bytes("ct"));
        assert_eq!(secret.to_vec(), bytes("ss"));
        assert_eq!(key.decapsulate(&ciphertext).unwrap().to_vec(), bytes("ss"));
    }
}

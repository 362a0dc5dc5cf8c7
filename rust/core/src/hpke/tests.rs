use super::*;
use crate::kem::Kem;
use crate::memory::SecretBytes;
use crate::test_memory::{leaves_nothing, Masked};
use crate::test_vectors;

const SUITE: Suite = Suite { kdf: Kdf::Shake256, aead: Aead::Aes256Gcm };

#[test]
fn seals_and_opens_and_binds_everything() {
    for kem in Kem::ALL {
        let key = PrivateKey::generate(kem).unwrap();
        let public = PublicKey::new(kem, key.public_key()).unwrap();
        let (enc, ciphertext) = SUITE.seal(&public, b"info", b"aad", b"payload").unwrap();
        assert_eq!(SUITE.open(&key, &enc, b"info", b"aad", &ciphertext).unwrap(), b"payload");
        let refused = |info: &[u8], aad: &[u8], enc: &[u8], ciphertext: &[u8], suite: Suite| {
            assert_eq!(suite.open(&key, enc, info, aad, ciphertext), Err(Error::Authentication));
        };
        let mut bad = enc.clone();
        bad[0] ^= 1;
        refused(b"info", b"aad", &bad, &ciphertext, SUITE);
        let mut bad = ciphertext.clone();
        bad[0] ^= 1;
        refused(b"info", b"aad", &enc, &bad, SUITE);
        refused(b"info", b"aad", &enc, &ciphertext[..15], SUITE);
        refused(b"other", b"aad", &enc, &ciphertext, SUITE);
        refused(b"info", b"other", &enc, &ciphertext, SUITE);
        let hkdf = Suite { kdf: Kdf::Hkdf(Sha2::Sha256), ..SUITE };
        refused(b"info", b"aad", &enc, &ciphertext, hkdf);
    }
}

#[test]
fn keys_are_nowhere_after_use() {
    for kdf in [Kdf::Shake256, Kdf::Hkdf(Sha2::Sha256), Kdf::Hkdf(Sha2::Sha512)] {
        let suite = Suite { kdf, ..SUITE };
        leaves_nothing(|| {
            let kem = Kem::MlKem768;
            let key = PrivateKey::generate(kem).unwrap();
            let public = PublicKey::new(kem, key.public_key()).unwrap();
            let (enc, ciphertext) = suite.seal(&public, b"info", b"aad", b"payload").unwrap();
            suite.open(&key, &enc, b"info", b"aad", &ciphertext).unwrap();
            // The key schedule again, in copies that the test keeps.
            let copies = burning::<STACK, _>(|| {
                let secret = key.decapsulate(&enc).unwrap();
                let context = suite.key_schedule(kem.id(), &secret, b"info").unwrap();
                [&context.key[..], &context.exporter_secret[..kdf.secret_len()]]
                    .map(|secret| SecretBytes::copy_from(secret).unwrap())
            });
            (copies.iter().map(|copy| Masked::of(copy)).collect(), copies)
        });
    }
}

#[test]
fn published_hpke_pq_vectors() {
    let Some(vectors) = test_vectors::load("hpke_pq.json") else { return };
    let mut run = 0;
    for vector in vectors.as_array().unwrap() {
        let number = |name: &str| vector[name].as_u64().unwrap() as u16;
        let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
        let field = |value: &serde_json::Value, name: &str| {
            hex::decode(value[name].as_str().unwrap()).unwrap()
        };
        let Ok(kem) = Kem::from_id(number("kem_id")) else { continue };
        let key = PrivateKey::from_seed(kem, SecretBytes::copy_from(&bytes("skRm")).unwrap());
        let key = key.unwrap();
        assert_eq!(key.public_key(), bytes("pkRm"));
        let public = PublicKey::new(kem, &bytes("pkRm")).unwrap();
        let (enc, secret) = public.encapsulate_derand(&bytes("ikmE")).unwrap();
        assert_eq!(enc, bytes("enc"), "{kem:?}");
        assert_eq!(secret.to_vec(), bytes("shared_secret"), "{kem:?}");
        assert!(key.decapsulate(&enc).unwrap() == secret);
        let Ok(kdf) = Kdf::from_id(number("kdf_id")) else {
            eprintln!("SKIPPED: key schedule of KDF {:#x} (TurboSHAKE)", number("kdf_id"));
            continue;
        };
        let suite = Suite { kdf, aead: Aead::from_id(number("aead_id")).unwrap() };
        assert_eq!(suite.suite_id(kem.id()).to_vec(), bytes("suite_id"));
        let context = suite.key_schedule(kem.id(), &secret, &bytes("info")).unwrap();
        assert_eq!(context.key(), bytes("key"));
        assert_eq!(context.base_nonce.to_vec(), bytes("base_nonce"));
        assert_eq!(context.exporter_secret[..kdf.secret_len()], bytes("exporter_secret"));
        for (sequence, encryption) in vector["encryptions"].as_array().unwrap().iter().enumerate() {
            let (aad, ciphertext) = (field(encryption, "aad"), field(encryption, "ct"));
            let sequence = match encryption["nonce"].as_str() {
                Some(nonce) => sequence_of(&context, &hex::decode(nonce).unwrap()),
                None => sequence as u64,
            };
            let mut sealed = context.seal(sequence, &aad, &field(encryption, "pt")).unwrap();
            assert_eq!(sealed, ciphertext);
            let len = context.open(sequence, &aad, &mut sealed).unwrap();
            assert_eq!(sealed[..len], field(encryption, "pt"));
        }
        run += 1;
    }
    assert_eq!(run, 7, "vectors of our KEMs whose KDF we have");
}

/// Which sequence number gives this nonce (section 5.2 undone).
fn sequence_of(context: &Context, nonce: &[u8]) -> u64 {
    nonce[4..]
        .iter()
        .zip(&context.base_nonce[4..])
        .fold(0, |sequence, (a, b)| sequence << 8 | u64::from(a ^ b))
}

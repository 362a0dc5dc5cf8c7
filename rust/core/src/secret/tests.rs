use super::*;

#[test]
fn wraps_and_unwraps_keys() {
    let kek = Secret::random(32).unwrap();
    let kem = kem::PrivateKey::generate(Kem::MlKem768X25519).unwrap();
    let blob = kek.wrap_kem(b"kem", &kem).unwrap();
    assert_eq!(blob.len(), 12 + 32 + 16);
    let again = kek.unwrap_kem(b"kem", Kem::MlKem768X25519, &blob).unwrap();
    assert_eq!(again.public_key(), kem.public_key());
    let sig = sig::SigningKey::generate(Sig::Falcon512).unwrap();
    let blob = kek.wrap_sig(b"sig", &sig).unwrap();
    let again = kek.unwrap_sig(b"sig", Sig::Falcon512, &blob).unwrap();
    assert_eq!(again.public_key(), sig.public_key());

    assert!(kek.unwrap_sig(b"kem", Sig::Falcon512, &blob).is_err(), "other purpose");
    let other = Secret::random(32).unwrap();
    assert!(other.unwrap_sig(b"sig", Sig::Falcon512, &blob).is_err(), "other key");
    for at in [0, 12, blob.len() - 1] {
        let mut bad = blob.clone();
        bad[at] ^= 1;
        assert!(kek.unwrap_sig(b"sig", Sig::Falcon512, &bad).is_err());
    }
    for len in [0, 11, 27] {
        assert!(kek.unwrap(b"", &blob[..len]).is_err());
    }
    assert!(kek.unwrap(b"", &vec![0; 5000]).is_err(), "no large allocation");
}

#[test]
fn derives_and_authenticates() {
    let secret = Secret::random(32).unwrap();
    let (a, b) = (secret.derive(b"a").unwrap(), secret.derive(b"b").unwrap());
    assert_ne!(a.mac(b"x"), b.mac(b"x"));
    assert!(a.verify_mac(b"x", &secret.derive(b"a").unwrap().mac(b"x")));
    assert!(!a.verify_mac(b"y", &a.mac(b"x")));
    assert!(!a.verify_mac(b"x", &a.mac(b"x")[..31]));
    assert!(Secret::random(8).is_err());
}

#[test]
fn encrypts_data_of_any_length() {
    let (key, other) = (Secret::random(32).unwrap(), Secret::random(32).unwrap());
    for length in [0, 1, 70_000] {
        let data = vec![7; length];
        let mut blob = key.encrypt(b"a", &data).unwrap();
        assert_eq!(blob.len(), 12 + length + 16);
        assert_eq!(key.decrypt(b"a", &blob).unwrap(), data);
        assert!(key.decrypt(b"b", &blob).is_err());
        assert!(other.decrypt(b"a", &blob).is_err());
        assert!(key.decrypt(b"a", &blob[..27]).is_err());
        *blob.last_mut().unwrap() ^= 1;
        assert!(key.decrypt(b"a", &blob).is_err());
    }
    assert!(Secret::random(16).unwrap().encrypt(b"", b"").is_err());
    // What was wrapped is never decrypted: it would leave the core.
    assert!(key.decrypt(b"a", &key.wrap(b"a", &other).unwrap()).is_err());
}

#[test]
fn wycheproof_hkdf_and_aes_gcm() {
    use crate::hash::hkdf_extract;
    use crate::test_vectors::wycheproof;
    wycheproof("wycheproof_hkdf_sha256_test.json", |_, case| {
        let mut okm = vec![0; case.number("size")];
        let prk = hkdf_extract(Sha2::Sha256, &case.bytes("salt"), &[&case.bytes("ikm")]).ok()?;
        hkdf_expand(Sha2::Sha256, &prk, &[&case.bytes("info")], &mut okm).ok()?;
        Some(okm)
    });
    wycheproof("wycheproof_aes_gcm_test.json", |group, case| {
        let aead = match group.number("keySize") {
            128 => Aead::Aes128Gcm,
            256 => Aead::Aes256Gcm,
            // AES-192, other nonces and short tags are not offered: nothing to run.
            _ => return case.is_valid().then(|| case.bytes("ct")),
        };
        if group.number("ivSize") != 96 {
            return case.is_valid().then(|| case.bytes("ct"));
        }
        let nonce = case.bytes("iv").try_into().ok()?;
        let (key, aad) = (case.bytes("key"), case.bytes("aad"));
        let mut data = [case.bytes("ct"), case.bytes("tag")].concat();
        let plaintext = aead.open_in_place(&key, nonce, &aad, &mut data).ok()?.to_vec();
        let sealed = aead.seal(&key, nonce, &aad, &plaintext).ok()?;
        let matches = plaintext == case.bytes("msg")
            && sealed == [case.bytes("ct"), case.bytes("tag")].concat();
        matches.then(|| case.bytes("ct"))
    });
}

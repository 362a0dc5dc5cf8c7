use super::*;

#[test]
fn passes() {
    assert_eq!(run(&ANSWERS), Ok(()));
    assert_eq!(ready(), Ok(()));
    for sig in Sig::ALL {
        assert_eq!(check_aws_lc_signing(sig), Ok(()));
    }
}

#[test]
fn names_each_primitive_that_gives_another_answer() {
    for (at, (name, _)) in TESTS.iter().enumerate() {
        let mut answers = ANSWERS;
        answers[at][7] ^= 1;
        assert_eq!(run(&answers), Err(Error::SelfTest(name)));
    }
}

/// Writes `selftest/` anew. The answers are only as good as the primitives were when
/// they passed the published vectors; run it after those, and only when inputs change.
/// Emptied files are made in a first run and answered for in a second.
#[test]
#[ignore = "writes the known answers anew"]
fn regenerate() {
    use std::fmt::Write as _;
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/selftest");
    if FALCON_512_KEY.is_empty() {
        for (sig, name) in [(Sig::Falcon512, "falcon512"), (Sig::Falcon1024, "falcon1024")] {
            let key = sig::SigningKey::generate(sig).unwrap();
            std::fs::write(dir.join(format!("{name}.key")), key.encoded()).unwrap();
            let signature = key.sign(b"self-test").unwrap();
            std::fs::write(dir.join(format!("{name}.sig")), signature).unwrap();
        }
        let key = kem_key(Kem::MlKem768X25519).unwrap();
        let public = kem::PublicKey::new(key.kem(), key.public_key()).unwrap();
        let suite = Suite { kdf: Kdf::Shake256, aead: Aead::Aes256Gcm };
        let (enc, ciphertext) = suite.seal(&public, b"info", b"aad", b"self-test").unwrap();
        std::fs::write(dir.join("hpke.msg"), [enc, ciphertext].concat()).unwrap();
    }
    for (sig, known, name) in [
        (Sig::Falcon512EcdsaP256, COMPOSITE_SIGNATURE, "composite"),
        (Sig::MlDsa65, ML_DSA_65_SIGNATURE, "mldsa65"),
        (Sig::MlDsa87, ML_DSA_87_SIGNATURE, "mldsa87"),
    ] {
        if known.is_empty() {
            let signature = sig_key(sig).unwrap().sign(b"self-test").unwrap();
            std::fs::write(dir.join(format!("{name}.sig")), signature).unwrap();
        }
    }

    let mut rows = String::new();
    for (name, test) in TESTS {
        writeln!(rows, "    {:?}, // {name}", test().unwrap_or_default()).unwrap();
    }
    let path = dir.join("answers.rs");
    let source = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (source.find("= [\n").unwrap() + 4, source.find("];\n").unwrap());
    std::fs::write(path, format!("{}{rows}{}", &source[..start], &source[end..])).unwrap();
}

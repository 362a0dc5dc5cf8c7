//! Power-on self-tests: a known answer of every primitive before the first use of any.
//! Once one fails, or a new key does not work with itself, every operation is refused.
//! ML-DSA signing is tested before its own first use: AWS-LC's generator, which it draws
//! from, takes 20 ms to seed, and no device should pay that for another suite.

mod answers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use crate::aead::Aead;
use crate::error::{Error, Result};
use crate::hash::{hkdf_expand, hkdf_extract, hmac_sha256, sha3_256, Sha2};
use crate::hpke::{Kdf, Suite};
use crate::kem::{self, Kem};
use crate::memory::SecretBytes;
use crate::password::{argon2id, Cost};
use crate::secret::Secret;
use crate::sig::{self, Sig};

use self::answers::{
    ANSWERS, FALCON_1024_KEY, FALCON_1024_SIGNATURE, FALCON_512_KEY, FALCON_512_SIGNATURE,
    HPKE_MESSAGE, ML_DSA_87_SIGNATURE,
};

static RESULT: OnceLock<Result<()>> = OnceLock::new();
static FAILED: AtomicBool = AtomicBool::new(false);

/// Runs the self-tests on the first call; from then on only tells their result.
pub fn ready() -> Result<()> {
    if FAILED.load(Ordering::Acquire) {
        return Err(Error::SelfTest("this process"));
    }
    *RESULT.get_or_init(|| run(&ANSWERS))
}

/// Refuses every operation from now on. There is no way back but a new process.
pub fn fail() {
    FAILED.store(true, Ordering::Release);
}

/// The signing half of ML-DSA's self-test, before the first private key is used.
pub(crate) fn check_ml_dsa_signing() -> Result<()> {
    static SIGNING: OnceLock<Result<()>> = OnceLock::new();
    *SIGNING.get_or_init(|| {
        let result = sign_and_verify(&sig_key(Sig::MlDsa87)?);
        if result.is_err() {
            fail();
        }
        result
    })
}

/// Pairwise consistency of a new key pair: it must decapsulate what was encapsulated.
pub fn check_kem_pair(key: &kem::PrivateKey) -> Result<()> {
    let (ciphertext, secret) = kem::PublicKey::new(key.kem(), key.public_key())?.encapsulate()?;
    if key.decapsulate(&ciphertext)? == secret {
        return Ok(());
    }
    fail();
    Err(Error::SelfTest("a new KEM key"))
}

/// Pairwise consistency of a new key pair: it must verify what it signs.
pub fn check_sig_pair(key: &sig::SigningKey) -> Result<()> {
    sign_and_verify(key).inspect_err(|_| fail())
}

/// Known answers, each the first 8 bytes of the SHA3-256 of what is named, so that a
/// mistake in SHA-3 fails everything.
pub(crate) struct Answers {
    pub(crate) sha3: [u8; 8],
    pub(crate) hmac: [u8; 8],
    pub(crate) hkdf: [u8; 8],
    pub(crate) argon2id: [u8; 8],
    pub(crate) aes_256_gcm: [u8; 8],
    pub(crate) hpke: [u8; 8],
    pub(crate) kem: [[u8; 8]; 4],
    pub(crate) sig: [[u8; 8]; 3],
}

fn digest(parts: &[&[u8]]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&sha3_256(&parts.concat())[..8]);
    out
}

fn check(what: &'static str, got: [u8; 8], expected: [u8; 8]) -> Result<()> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::SelfTest(what))
    }
}

/// Every test against `answers`; the first that fails is named.
pub(crate) fn run(answers: &Answers) -> Result<()> {
    check("SHA-3", digest(&[b"abc"]), answers.sha3)?;
    check("HMAC-SHA-256", hmac()?, answers.hmac)?;
    check("HKDF", hkdf()?, answers.hkdf)?;
    check("Argon2id", argon2()?, answers.argon2id)?;
    check("AES-256-GCM", aes_256_gcm()?, answers.aes_256_gcm)?;
    for (kem, expected) in Kem::ALL.into_iter().zip(answers.kem) {
        check(kem_name(kem), kem_answer(kem)?, expected)?;
    }
    check("HPKE", hpke_answer()?, answers.hpke)?;
    for (sig, expected) in Sig::ALL.into_iter().zip(answers.sig) {
        check(sig_name(sig), sig_answer(sig)?, expected)?;
    }
    Ok(())
}

fn kem_name(kem: Kem) -> &'static str {
    match kem {
        Kem::MlKem768 => "ML-KEM-768",
        Kem::MlKem1024 => "ML-KEM-1024",
        Kem::MlKem1024P384 => "MLKEM1024-P384",
        Kem::MlKem768X25519 => "MLKEM768-X25519",
    }
}

fn sig_name(sig: Sig) -> &'static str {
    match sig {
        Sig::Falcon512 => "Falcon-512",
        Sig::Falcon1024 => "Falcon-1024",
        Sig::MlDsa87 => "ML-DSA-87",
    }
}

/// 0, 1, 2, …: the input of every test.
fn counting<const N: usize>() -> [u8; N] {
    core::array::from_fn(|i| i as u8)
}

fn hmac() -> Result<[u8; 8]> {
    Ok(digest(&[&hmac_sha256(&counting::<32>(), &[b"abc"])]))
}

fn hkdf() -> Result<[u8; 8]> {
    let mut out = [0; 42];
    let prk = hkdf_extract(Sha2::Sha256, b"salt", &[&counting::<32>()])?;
    hkdf_expand(Sha2::Sha256, &prk, &[b"info"], &mut out)?;
    Ok(digest(&[&out]))
}

fn argon2() -> Result<[u8; 8]> {
    let passphrase = Secret::from(SecretBytes::copy_from(b"passphrase")?);
    let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    let key = argon2id(&passphrase, &counting::<16>(), cost)?;
    Ok(digest(&[key.as_ref()]))
}

fn aes_256_gcm() -> Result<[u8; 8]> {
    let (key, nonce, mut sealed) = (counting::<32>(), counting::<12>(), Vec::new());
    Aead::Aes256Gcm.seal_to(&key, nonce, b"aad", &counting::<64>(), &mut sealed)?;
    let answer = digest(&[&sealed]);
    if Aead::Aes256Gcm.open_in_place(&key, nonce, b"aad", &mut sealed.clone())?
        != counting::<64>()
    {
        return Err(Error::SelfTest("AES-256-GCM decryption"));
    }
    sealed[0] ^= 1;
    match Aead::Aes256Gcm.open_in_place(&key, nonce, b"aad", &mut sealed) {
        Err(Error::Authentication) => Ok(answer),
        _ => Err(Error::SelfTest("AES-256-GCM authentication")),
    }
}

fn kem_key(kem: Kem) -> Result<kem::PrivateKey> {
    kem::PrivateKey::from_seed(kem, SecretBytes::copy_from(&counting::<64>()[..kem.seed_len()])?)
}

fn kem_answer(kem: Kem) -> Result<[u8; 8]> {
    let private = kem_key(kem)?;
    let public = kem::PublicKey::new(kem, private.public_key())?;
    let randomness = &counting::<96>()[..public.randomness_len()];
    let (ciphertext, secret) = public.encapsulate_derand(randomness)?;
    if private.decapsulate(&ciphertext)? != secret {
        return Err(Error::SelfTest("KEM decapsulation"));
    }
    Ok(digest(&[private.public_key(), &ciphertext, &secret[..]]))
}

/// The key schedule is in the seal: decrypting a stored message tests all of it.
fn hpke_answer() -> Result<[u8; 8]> {
    let suite = Suite { kdf: Kdf::Shake256, aead: Aead::Aes256Gcm };
    let (enc, ciphertext) = HPKE_MESSAGE.split_at(Kem::MlKem768X25519.ciphertext_len());
    let key = kem_key(Kem::MlKem768X25519)?;
    Ok(digest(&[&suite.open(&key, enc, b"info", b"aad", ciphertext)?]))
}

fn sig_key(sig: Sig) -> Result<sig::SigningKey> {
    let encoded: &[u8] = match sig {
        Sig::Falcon512 => FALCON_512_KEY,
        Sig::Falcon1024 => FALCON_1024_KEY,
        Sig::MlDsa87 => &counting::<32>(),
    };
    sig::SigningKey::for_self_test(sig, SecretBytes::copy_from(encoded)?)
}

fn sign_and_verify(key: &sig::SigningKey) -> Result<()> {
    const MESSAGE: &[u8] = b"pairwise consistency";
    let signature = key.sign(MESSAGE)?;
    let public = sig::VerifyingKey::new(key.sig(), key.public_key())?;
    if public.verify(MESSAGE, &signature) && !public.verify(b"other", &signature) {
        Ok(())
    } else {
        Err(Error::SelfTest("signing"))
    }
}

fn sig_answer(sig: Sig) -> Result<[u8; 8]> {
    const MESSAGE: &[u8] = b"self-test";
    let known = match sig {
        Sig::Falcon512 => FALCON_512_SIGNATURE,
        Sig::Falcon1024 => FALCON_1024_SIGNATURE,
        Sig::MlDsa87 => ML_DSA_87_SIGNATURE,
    };
    let private = sig_key(sig)?;
    let public = sig::VerifyingKey::new(sig, private.public_key())?;
    if !public.verify(MESSAGE, known) || public.verify(b"other", known) {
        return Err(Error::SelfTest("signature verification"));
    }
    if sig != Sig::MlDsa87 {
        sign_and_verify(&private)?;
    }
    Ok(digest(&[private.public_key(), known]))
}

#[cfg(test)]
mod tests;

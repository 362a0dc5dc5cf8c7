//! Power-on self-tests: a known answer of every primitive before the first use of any.
//! Once one fails, or a new key does not work with itself, every operation is refused.
//! Signing with ML-DSA and ECDSA is tested before its own first use: AWS-LC's generator,
//! which it draws from, takes 20 ms to seed, and no device should pay that for another
//! suite.

mod answers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use crate::aead::Aead;
use crate::error::{Error, Result};
use crate::hash::{hkdf_expand, hkdf_extract, hmac_sha256, sha3_256, shake128, shake256, Sha2};
use crate::hpke::{Kdf, Suite};
use crate::kem::{self, Kem};
use crate::memory::SecretBytes;
use crate::password::{argon2id, Cost};
use crate::secret::Secret;
use crate::sig::{self, Sig};

use self::answers::{
    ANSWERS, COMPOSITE_SIGNATURE, FALCON_1024_KEY, FALCON_1024_SIGNATURE, FALCON_512_KEY,
    FALCON_512_SIGNATURE, HPKE_MESSAGE, ML_DSA_65_SIGNATURE, ML_DSA_87_SIGNATURE,
};

/// The first 8 bytes of the SHA3-256 of what a test computes.
type Answer = [u8; 8];

/// A primitive's name and what computes its answer.
type Test = (&'static str, fn() -> Result<Answer>);

/// SHA-3 comes first: it checks all the others.
const TESTS: [Test; 22] = [
    ("SHA3-256", || Ok(digest(&[b"abc"]))),
    ("SHAKE128", || shake(shake128)),
    ("SHAKE256", || shake(shake256)),
    ("HMAC-SHA-256", || Ok(digest(&[&hmac_sha256(&counting::<32>(), b"abc")]))),
    ("HKDF-SHA-256", || hkdf(Sha2::Sha256)),
    ("HKDF-SHA-384", || hkdf(Sha2::Sha384)),
    ("HKDF-SHA-512", || hkdf(Sha2::Sha512)),
    ("Argon2id", argon2),
    ("AES-128-GCM", || aead(Aead::Aes128Gcm)),
    ("AES-256-GCM", || aead(Aead::Aes256Gcm)),
    ("ChaCha20-Poly1305", || aead(Aead::ChaCha20Poly1305)),
    ("ML-KEM-768", || kem(Kem::MlKem768)),
    ("ML-KEM-1024", || kem(Kem::MlKem1024)),
    ("MLKEM768-P256", || kem(Kem::MlKem768P256)),
    ("MLKEM1024-P384", || kem(Kem::MlKem1024P384)),
    ("MLKEM768-X25519", || kem(Kem::MlKem768X25519)),
    ("HPKE", hpke),
    ("Falcon-512", || sig(Sig::Falcon512)),
    ("Falcon-1024", || sig(Sig::Falcon1024)),
    ("Falcon-512 and ECDSA-P256", || sig(Sig::Falcon512EcdsaP256)),
    ("ML-DSA-65", || sig(Sig::MlDsa65)),
    ("ML-DSA-87", || sig(Sig::MlDsa87)),
];

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

/// Pairwise consistency of a new key pair: it must decapsulate what was encapsulated.
pub fn check_kem_pair(key: &kem::PrivateKey) -> Result<()> {
    let agree = || -> Result<bool> {
        let public = kem::PublicKey::new(key.kem(), key.public_key())?;
        let (ciphertext, secret) = public.encapsulate()?;
        Ok(key.decapsulate(&ciphertext)? == secret)
    };
    conclude("a new KEM key", agree())
}

/// Pairwise consistency of a new key pair: it must verify what it signs.
pub fn check_sig_pair(key: &sig::SigningKey) -> Result<()> {
    conclude("a new signature key", signs_and_verifies(key))
}

/// The signing half of the self-test of what draws from AWS-LC's generator, before the
/// first private key of that algorithm is used.
pub(crate) fn check_aws_lc_signing(sig: Sig) -> Result<()> {
    static SIGNING: [OnceLock<Result<()>>; Sig::ALL.len()] = [const { OnceLock::new() }; 5];
    *SIGNING[sig as usize].get_or_init(|| {
        conclude("a signature", sig_key(sig).and_then(|key| signs_and_verifies(&key)))
    })
}

/// Whatever kept a test from passing, an error too, closes the process.
fn conclude(what: &'static str, passed: Result<bool>) -> Result<()> {
    if passed == Ok(true) {
        return Ok(());
    }
    fail();
    Err(Error::SelfTest(what))
}

/// Every test against its answer; the first that fails is named.
fn run(answers: &[Answer; TESTS.len()]) -> Result<()> {
    for ((name, test), answer) in TESTS.iter().zip(answers) {
        if test() != Ok(*answer) {
            return Err(Error::SelfTest(name));
        }
    }
    Ok(())
}

fn digest(parts: &[&[u8]]) -> Answer {
    let mut out = [0; 8];
    out.copy_from_slice(&sha3_256(&parts.concat())[..8]);
    out
}

/// 0, 1, 2, …: the input of every test.
fn counting<const N: usize>() -> [u8; N] {
    core::array::from_fn(|i| i as u8)
}

fn shake(function: fn(&[u8], &mut [u8])) -> Result<Answer> {
    let mut out = [0; 200];
    function(b"abc", &mut out);
    Ok(digest(&[&out]))
}

fn hkdf(hash: Sha2) -> Result<Answer> {
    let mut out = [0; 42];
    let prk = hkdf_extract(hash, b"salt", &[&counting::<32>()])?;
    hkdf_expand(hash, &prk, &[b"info"], &mut out)?;
    Ok(digest(&[&out]))
}

fn argon2() -> Result<Answer> {
    let passphrase = Secret::from(SecretBytes::copy_from(b"passphrase")?);
    let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    let key = argon2id(&passphrase, &counting::<16>(), cost)?;
    Ok(digest(&[key.as_ref()]))
}

fn aead(aead: Aead) -> Result<Answer> {
    let (key, nonce) = (&counting::<32>()[..aead.key_len()], counting::<12>());
    let mut sealed = aead.seal(key, nonce, b"aad", &counting::<64>())?;
    let answer = digest(&[&sealed]);
    if aead.open_in_place(key, nonce, b"aad", &mut sealed.clone())? != counting::<64>() {
        return Err(Error::SelfTest("decryption"));
    }
    sealed[0] ^= 1;
    match aead.open_in_place(key, nonce, b"aad", &mut sealed) {
        Err(Error::Authentication) => Ok(answer),
        _ => Err(Error::SelfTest("authentication")),
    }
}

fn kem_key(kem: Kem) -> Result<kem::PrivateKey> {
    kem::PrivateKey::from_seed(kem, SecretBytes::copy_from(&counting::<64>()[..kem.seed_len()])?)
}

fn kem(kem: Kem) -> Result<Answer> {
    let private = kem_key(kem)?;
    let public = kem::PublicKey::new(kem, private.public_key())?;
    let randomness = &counting::<128>()[..public.randomness_len()];
    let (ciphertext, secret) = public.encapsulate_derand(randomness)?;
    if private.decapsulate(&ciphertext)? != secret {
        return Err(Error::SelfTest("decapsulation"));
    }
    Ok(digest(&[private.public_key(), &ciphertext, &secret]))
}

/// The key schedule is in the seal: decrypting a stored message tests all of it.
fn hpke() -> Result<Answer> {
    let suite = Suite { kdf: Kdf::Shake256, aead: Aead::Aes256Gcm };
    let (enc, ciphertext) = HPKE_MESSAGE
        .split_at_checked(Kem::MlKem768X25519.ciphertext_len())
        .ok_or(Error::SelfTest("the stored message"))?;
    let key = kem_key(Kem::MlKem768X25519)?;
    Ok(digest(&[&suite.open(&key, enc, b"info", b"aad", ciphertext)?]))
}

fn sig_key(sig: Sig) -> Result<sig::SigningKey> {
    let scalar = counting::<32>();
    let encoded: &[u8] = match sig {
        Sig::Falcon512 => FALCON_512_KEY,
        Sig::Falcon1024 => FALCON_1024_KEY,
        Sig::Falcon512EcdsaP256 => &[FALCON_512_KEY, &scalar].concat(),
        Sig::MlDsa65 | Sig::MlDsa87 => &scalar,
    };
    sig::SigningKey::for_self_test(sig, SecretBytes::copy_from(encoded)?)
}

fn signs_and_verifies(key: &sig::SigningKey) -> Result<bool> {
    const MESSAGE: &[u8] = b"pairwise consistency";
    let signature = key.sign(MESSAGE)?;
    let public = sig::VerifyingKey::new(key.sig(), key.public_key())?;
    Ok(public.verify(MESSAGE, &signature) && !public.verify(b"other", &signature))
}

fn sig(sig: Sig) -> Result<Answer> {
    const MESSAGE: &[u8] = b"self-test";
    let known = match sig {
        Sig::Falcon512 => FALCON_512_SIGNATURE,
        Sig::Falcon1024 => FALCON_1024_SIGNATURE,
        Sig::Falcon512EcdsaP256 => COMPOSITE_SIGNATURE,
        Sig::MlDsa65 => ML_DSA_65_SIGNATURE,
        Sig::MlDsa87 => ML_DSA_87_SIGNATURE,
    };
    let private = sig_key(sig)?;
    let public = sig::VerifyingKey::new(sig, private.public_key())?;
    let verifies = public.verify(MESSAGE, known) && !public.verify(b"other", known);
    let now = matches!(sig, Sig::Falcon512 | Sig::Falcon1024);
    if !verifies || (now && !signs_and_verifies(&private)?) {
        return Err(Error::SelfTest("signing or verification"));
    }
    Ok(digest(&[private.public_key(), known]))
}

#[cfg(test)]
mod tests;

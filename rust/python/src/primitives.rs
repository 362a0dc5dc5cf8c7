//! Low-level faces for interoperability and vectors. Keys are seeds given as bytes and
//! shared secrets come back as bytes: nothing of the product uses them.

use pqc_iiot_core::aead::Aead;
use pqc_iiot_core::hpke::{Kdf, Suite};
use pqc_iiot_core::kem::{Kem, PrivateKey, PublicKey};
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::Result;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{raised, ready, Int};

fn private_key(kem_id: u16, seed: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_seed(Kem::from_id(kem_id)?, SecretBytes::copy_from(seed)?)
}

/// KEM, KDF and AEAD.
type SuiteId = (Int<u16>, Int<u16>, Int<u16>);

fn suite(id: &SuiteId) -> Result<Suite> {
    Ok(Suite { kdf: Kdf::from_id(id.1 .0)?, aead: Aead::from_id(id.2 .0)? })
}

/// The public key of the private key that `seed` stands for.
#[pyfunction]
pub fn kem_public_key<'py>(
    py: Python<'py>,
    kem_id: Int<u16>,
    seed: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    ready()?;
    private_key(kem_id.0, seed).map(|key| PyBytes::new(py, key.public_key())).map_err(raised)
}

/// Encapsulates to `public_key`: ciphertext and shared secret.
#[pyfunction]
pub fn kem_encapsulate<'py>(
    py: Python<'py>,
    kem_id: Int<u16>,
    public_key: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    ready()?;
    Kem::from_id(kem_id.0)
        .and_then(|kem| PublicKey::new(kem, public_key))
        .and_then(|key| key.encapsulate())
        .map(|(ciphertext, secret)| (PyBytes::new(py, &ciphertext), PyBytes::new(py, &secret)))
        .map_err(raised)
}

/// The shared secret of `ciphertext` under the key that `seed` stands for.
#[pyfunction]
pub fn kem_decapsulate<'py>(
    py: Python<'py>,
    kem_id: Int<u16>,
    seed: &[u8],
    ciphertext: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    ready()?;
    private_key(kem_id.0, seed)
        .and_then(|key| key.decapsulate(ciphertext))
        .map(|secret| PyBytes::new(py, &secret))
        .map_err(raised)
}

/// HPKE single-shot seal in base mode: `enc` and ciphertext.
#[pyfunction]
pub fn hpke_seal<'py>(
    py: Python<'py>,
    suite_id: SuiteId,
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    ready()?;
    let seal = || {
        let key = PublicKey::new(Kem::from_id(suite_id.0 .0)?, public_key)?;
        suite(&suite_id)?.seal(&key, info, aad, plaintext)
    };
    seal()
        .map(|(enc, ciphertext)| (PyBytes::new(py, &enc), PyBytes::new(py, &ciphertext)))
        .map_err(raised)
}

/// HPKE single-shot open in base mode, with the key that `seed` stands for.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "HPKE's own parameters")]
pub fn hpke_open<'py>(
    py: Python<'py>,
    suite_id: SuiteId,
    seed: &[u8],
    enc: &[u8],
    info: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    ready()?;
    let open = || {
        let key = private_key(suite_id.0 .0, seed)?;
        suite(&suite_id)?.open(&key, enc, info, aad, ciphertext)
    };
    open().map(|plaintext| PyBytes::new(py, &plaintext)).map_err(raised)
}

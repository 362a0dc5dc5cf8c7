//! KEM keys, used through HPKE base mode with SHAKE256 and AES-256-GCM: what every suite
//! of this project uses.

use pqc_iiot_core::aead::Aead;
use pqc_iiot_core::hpke::{Kdf, Suite};
use pqc_iiot_core::kem::{Kem, PrivateKey, PublicKey};
use pqc_iiot_core::selftest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{not_copied, raised, ready, Int};

const SUITE: Suite = Suite { kdf: Kdf::Shake256, aead: Aead::Aes256Gcm };

/// A KEM private key in locked memory.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct KemPrivateKey(pub PrivateKey);

#[pymethods]
impl KemPrivateKey {
    /// A new key, checked against itself; `kem_id` as in HPKE.
    #[staticmethod]
    fn generate(py: Python<'_>, kem_id: Int<u16>) -> PyResult<Self> {
        ready()?;
        py.detach(|| {
            let key = PrivateKey::generate(Kem::from_id(kem_id.0)?)?;
            selftest::check_kem_pair(&key).map(|()| Self(key))
        })
        .map_err(raised)
    }

    /// The HPKE KEM identifier.
    #[getter]
    fn kem_id(&self) -> u16 {
        self.0.kem().id()
    }

    /// The encoded public key.
    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        Ok(PyBytes::new(py, self.0.public_key()))
    }

    fn __repr__(&self) -> String {
        format!("<KemPrivateKey {:?}>", self.0.kem())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// HPKE single-shot open, base mode, SHAKE256 and AES-256-GCM.
    fn hpke_open<'py>(
        &self,
        py: Python<'py>,
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        py.detach(|| SUITE.open(&self.0, enc, info, aad, ciphertext))
            .map(|plaintext| PyBytes::new(py, &plaintext))
            .map_err(raised)
    }
}

/// A KEM public key, validated once for many uses.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct KemPublicKey(PublicKey);

#[pymethods]
impl KemPublicKey {
    #[new]
    fn new(kem_id: Int<u16>, public_key: &[u8]) -> PyResult<Self> {
        ready()?;
        Kem::from_id(kem_id.0)
            .and_then(|kem| PublicKey::new(kem, public_key))
            .map(Self)
            .map_err(raised)
    }

    /// HPKE single-shot seal, base mode, SHAKE256 and AES-256-GCM: `enc`, and the
    /// ciphertext with its 16-byte tag.
    fn hpke_seal<'py>(
        &self,
        py: Python<'py>,
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        ready()?;
        py.detach(|| SUITE.seal(&self.0, info, aad, plaintext))
            .map(|(enc, ciphertext)| (PyBytes::new(py, &enc), PyBytes::new(py, &ciphertext)))
            .map_err(raised)
    }
}

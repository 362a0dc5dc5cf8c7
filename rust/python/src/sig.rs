//! Signature keys.

use pqc_iiot_core::selftest;
use pqc_iiot_core::sig::{self, Sig, SigningKey, VerifyingKey};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{not_copied, raised, ready, Int};

/// A signature private key in locked memory.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct SigPrivateKey(pub SigningKey);

#[pymethods]
impl SigPrivateKey {
    /// A new key, checked against itself; `sig_id` as in COSE.
    #[staticmethod]
    fn generate(py: Python<'_>, sig_id: Int<i64>) -> PyResult<Self> {
        ready()?;
        py.detach(|| {
            let key = SigningKey::generate(Sig::from_id(sig_id.0)?)?;
            selftest::check_sig_pair(&key).map(|()| Self(key))
        })
        .map_err(raised)
    }

    /// The COSE algorithm number.
    #[getter]
    fn sig_id(&self) -> i64 {
        self.0.sig().id()
    }

    /// The encoded public key.
    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        Ok(PyBytes::new(py, self.0.public_key()))
    }

    fn __repr__(&self) -> String {
        format!("<SigPrivateKey {:?}>", self.0.sig())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// A signature over `message`.
    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        py.detach(|| self.0.sign(message))
            .map(|signature| PyBytes::new(py, &signature))
            .map_err(raised)
    }
}

/// A signature public key, decoded once for many verifications.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct SigPublicKey(pub VerifyingKey);

#[pymethods]
impl SigPublicKey {
    #[new]
    fn new(sig_id: Int<i64>, public_key: &[u8]) -> PyResult<Self> {
        ready()?;
        Sig::from_id(sig_id.0)
            .and_then(|sig| VerifyingKey::new(sig, public_key))
            .map(Self)
            .map_err(raised)
    }

    /// Whether `signature` is one of `message` by this key. The GIL stays held: a
    /// verification costs little more than giving it away and taking it back.
    fn verify(&self, message: &[u8], signature: &[u8]) -> PyResult<bool> {
        ready()?;
        Ok(self.0.verify(message, signature))
    }
}

/// What both halves of Falcon-512 and ECDSA P-256 sign for `message`.
#[pyfunction]
pub fn composite_message<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    ready()?;
    Ok(PyBytes::new(py, &sig::composite_message(message)))
}

/// Whether `signature` (r || s) is one of `message` by the P-256 key with this point.
#[pyfunction]
pub fn ecdsa_verify(point: &[u8], message: &[u8], signature: &[u8]) -> PyResult<bool> {
    ready()?;
    Ok(sig::ecdsa_verify(point, message, signature))
}

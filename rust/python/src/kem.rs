//! KEM keys, used through HPKE base mode with SHAKE256 and AES-256-GCM: what every suite
//! of this project uses.

use pqc_iiot_core::aead::Aead;
use pqc_iiot_core::hpke::{Kdf, Suite};
use pqc_iiot_core::kem::{Kem, PrivateKey, PublicKey, SharedSecret, SplitPrivateKey};
use pqc_iiot_core::{selftest, Error};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{not_copied, raised, ready, Int};
use crate::secret::Secret;

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

/// A hybrid KEM private key whose classical half stays in a device.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct SplitKemPrivateKey {
    key: SplitPrivateKey,
    pq: Py<KemPrivateKey>,
}

#[pymethods]
impl SplitKemPrivateKey {
    #[new]
    fn new(
        kem_id: Int<u16>,
        post_quantum: &Bound<'_, KemPrivateKey>,
        classical_public_key: &[u8],
    ) -> PyResult<Self> {
        ready()?;
        Kem::from_id(kem_id.0)
            .and_then(|kem| SplitPrivateKey::new(kem, &post_quantum.get().0, classical_public_key))
            .map(|key| Self { key, pq: post_quantum.clone().unbind() })
            .map_err(raised)
    }

    /// The HPKE KEM identifier.
    #[getter]
    fn kem_id(&self) -> u16 {
        self.key.kem().id()
    }

    /// The encoded public key of both halves.
    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        Ok(PyBytes::new(py, self.key.public_key()))
    }

    fn __repr__(&self) -> String {
        format!("<SplitKemPrivateKey {:?}>", self.key.kem())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// The point in `enc` on which the device computes its half, checked to be on the curve.
    fn classical_share_point<'py>(
        &self,
        py: Python<'py>,
        enc: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        match self.key.classical_point(enc) {
            Err(Error::InvalidKey(_)) => Err(raised(Error::Authentication)),
            other => other.map(|point| PyBytes::new(py, point)).map_err(raised),
        }
    }

    /// HPKE single-shot open with the device's Diffie-Hellman secret as `share`.
    fn hpke_open_shared<'py>(
        &self,
        py: Python<'py>,
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        share: &Secret,
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        let pq = &self.pq.get().0;
        py.detach(|| {
            let secret = match self.key.decapsulate(pq, share.0.as_ref(), enc) {
                Err(Error::InvalidKey(_)) => return Err(Error::Authentication),
                other => other?,
            };
            SUITE.open_with(self.key.kem(), &secret, enc, info, aad, ciphertext)
        })
        .map(|plaintext| PyBytes::new(py, &plaintext))
        .map_err(raised)
    }
}

/// HPKE single-shot open with a shared secret that a token decapsulated from `enc`.
#[pyfunction]
pub fn hpke_open_with<'py>(
    py: Python<'py>,
    kem_id: Int<u16>,
    shared_secret: &Secret,
    enc: &[u8],
    info: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    ready()?;
    py.detach(|| {
        let secret = SharedSecret::copy_from(shared_secret.0.as_ref())?;
        SUITE.open_with(Kem::from_id(kem_id.0)?, &secret, enc, info, aad, ciphertext)
    })
    .map(|plaintext| PyBytes::new(py, &plaintext))
    .map_err(raised)
}

//! The envelope's bytes, for `pqc_iiot.envelope`.

use pqc_iiot_core::envelope::{self, Layout};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::{raised, ready, InvalidFrameError};
use crate::sig::SigPublicKey;

/// What a frame says of itself in the clear; nothing of it is verified.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct EnvelopeHeader {
    frame: Py<PyBytes>,
    layout: Layout,
    suite: Py<PyAny>,
}

impl EnvelopeHeader {
    fn part<'py>(&self, py: Python<'py>, range: &core::ops::Range<usize>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.frame.as_bytes(py)[range.clone()])
    }
}

#[pymethods]
impl EnvelopeHeader {
    /// Takes a frame apart. `suites` maps COSE algorithm numbers to suites.
    #[new]
    fn new(py: Python<'_>, frame: Py<PyBytes>, suites: &Bound<'_, PyDict>) -> PyResult<Self> {
        let layout = Layout::of(frame.as_bytes(py)).map_err(raised)?;
        let suite = suites.get_item(layout.alg)?.ok_or_else(|| {
            InvalidFrameError::new_err("the frame has a version or suite that is not known here")
        })?;
        Ok(Self { frame, layout, suite: suite.unbind() })
    }

    /// The recipient's suite.
    #[getter]
    fn suite(&self, py: Python<'_>) -> Py<PyAny> {
        self.suite.clone_ref(py)
    }

    /// The recipient's key id, 8 bytes.
    #[getter]
    fn recipient<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, &self.layout.recipient)
    }

    /// The sender's key id, 8 bytes.
    #[getter]
    fn sender<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, &self.layout.sender)
    }

    /// The sender's number for this frame, 1 to 2^62 - 1.
    #[getter]
    fn sequence(&self) -> u64 {
        self.layout.sequence
    }

    /// The protected header as an encoded byte string.
    #[getter]
    fn protected<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, &self.layout.protected)
    }

    /// Length of HPKE's encapsulated key, in bytes.
    #[getter]
    fn enc_size(&self) -> usize {
        self.layout.enc.len()
    }

    /// HPKE's encapsulated key.
    #[getter]
    fn enc<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, &self.layout.enc)
    }

    /// HPKE's ciphertext with its tag.
    #[getter]
    fn ciphertext<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, &self.layout.ciphertext)
    }

    /// HPKE's aad for this frame in a context.
    fn aad<'py>(&self, py: Python<'py>, context: &[u8]) -> Bound<'py, PyBytes> {
        let frame = self.frame.as_bytes(py);
        PyBytes::new(py, &envelope::aad(&frame[self.layout.protected.clone()], context))
    }

    /// The payload of a decrypted frame, if `key` signed it for these fingerprints (32
    /// bytes each) and this context; raises `AuthenticationError` otherwise.
    fn verify<'py>(
        &self,
        py: Python<'py>,
        key: &SigPublicKey,
        recipient: &[u8],
        sender: &[u8],
        context: &[u8],
        plaintext: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        let protected = &self.frame.as_bytes(py)[self.layout.protected.clone()];
        envelope::verify(&key.0, protected, recipient, sender, context, plaintext)
            .map(|payload| PyBytes::new(py, &plaintext[payload]))
            .map_err(raised)
    }
}

/// The protected header as an encoded byte string.
#[pyfunction]
pub fn envelope_protected<'py>(
    py: Python<'py>,
    alg: i64,
    recipient: &[u8],
    sender: &[u8],
    sequence: u64,
) -> PyResult<Bound<'py, PyBytes>> {
    envelope::protected(alg, recipient, sender, sequence)
        .map(|header| PyBytes::new(py, &header))
        .map_err(raised)
}

/// HPKE's aad for a protected header in a context.
#[pyfunction]
pub fn envelope_aad<'py>(py: Python<'py>, protected: &[u8], context: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &envelope::aad(protected, context))
}

/// What the sender signs.
#[pyfunction]
pub fn envelope_to_be_signed<'py>(
    py: Python<'py>,
    protected: &[u8],
    recipient: &[u8],
    sender: &[u8],
    context: &[u8],
    payload: &[u8],
) -> Bound<'py, PyBytes> {
    let signed = envelope::to_be_signed(protected, recipient, sender, context, payload);
    PyBytes::new(py, &signed)
}

/// The plaintext: payload and signature.
#[pyfunction]
pub fn envelope_plaintext<'py>(
    py: Python<'py>,
    payload: &[u8],
    signature: &[u8],
) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &envelope::plaintext(payload, signature))
}

/// The whole frame.
#[pyfunction]
pub fn envelope_frame<'py>(
    py: Python<'py>,
    protected: &[u8],
    enc: &[u8],
    ciphertext: &[u8],
) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &envelope::frame(protected, enc, ciphertext))
}

//! Handshakes, step by step: the core keeps the secrets, the caller signs in between.

use pqc_iiot_core::handshake::{Initiator, Party, Responder};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{not_copied, raised, ready, Int};
use crate::session::Session;
use crate::sig::SigPublicKey;

/// ID_CRED_x and CRED_x.
type Credential<'a> = (&'a [u8], &'a [u8]);

fn party((id_cred, cred): Credential<'_>) -> Party {
    Party { id_cred: id_cred.to_vec(), cred: cred.to_vec() }
}

/// The side that begins.
#[pyclass(module = "pqc_iiot._core")]
pub struct HandshakeInitiator(Initiator);

#[pymethods]
impl HandshakeInitiator {
    #[new]
    fn new(
        py: Python<'_>,
        suite: Int<i64>,
        c_i: &[u8],
        own: Credential<'_>,
        peer: Credential<'_>,
    ) -> PyResult<Self> {
        ready()?;
        let (own, peer) = (party(own), party(peer));
        py.detach(|| Initiator::new(suite.0, c_i, own, peer)).map(Self).map_err(raised)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// Message 1.
    #[getter]
    fn message_1<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.message_1())
    }

    /// C_R, once message 2 was taken.
    #[getter]
    fn c_r<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.c_r())
    }

    /// Takes message 2: what to sign.
    fn read_message_2<'py>(
        &mut self,
        py: Python<'py>,
        message_2: &[u8],
        key: &SigPublicKey,
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        py.detach(|| self.0.read_message_2(message_2, &key.0))
            .map(|message| PyBytes::new(py, &message))
            .map_err(raised)
    }

    /// Message 3 with that signature.
    fn message_3<'py>(
        &mut self,
        py: Python<'py>,
        signature: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.message_3(signature).map(|message| PyBytes::new(py, &message)).map_err(raised)
    }

    /// Takes message 4: the session.
    fn read_message_4(&mut self, message_4: &[u8], window: Int<u32>) -> PyResult<Session> {
        ready()?;
        self.0.read_message_4(message_4, window.0).map(Session::of).map_err(raised)
    }
}

/// The side that answers.
#[pyclass(module = "pqc_iiot._core")]
pub struct HandshakeResponder(Responder);

#[pymethods]
impl HandshakeResponder {
    #[new]
    fn new(
        py: Python<'_>,
        suite: Int<i64>,
        message_1: &[u8],
        c_r: &[u8],
        own: Credential<'_>,
    ) -> PyResult<Self> {
        ready()?;
        let own = party(own);
        py.detach(|| Responder::new(suite.0, message_1, c_r, own)).map(Self).map_err(raised)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// C_I.
    #[getter]
    fn c_i<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.c_i())
    }

    /// What to sign.
    #[getter]
    fn to_be_signed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.to_be_signed().map(|message| PyBytes::new(py, &message)).map_err(raised)
    }

    /// Message 2 with that signature.
    fn message_2<'py>(
        &mut self,
        py: Python<'py>,
        signature: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.message_2(signature).map(|message| PyBytes::new(py, &message)).map_err(raised)
    }

    /// Takes message 3 from `peer`: message 4 and the session.
    fn read_message_3<'py>(
        &mut self,
        py: Python<'py>,
        message_3: &[u8],
        peer: Credential<'_>,
        key: &SigPublicKey,
        window: Int<u32>,
    ) -> PyResult<(Bound<'py, PyBytes>, Session)> {
        ready()?;
        self.0
            .read_message_3(message_3, &party(peer), &key.0, window.0)
            .map(|(message_4, session)| (PyBytes::new(py, &message_4), Session::of(session)))
            .map_err(raised)
    }
}

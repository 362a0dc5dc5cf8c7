//! Packets of an established session. The GIL stays held: a packet costs less than giving
//! it away and taking it back.

use pqc_iiot_core::session::{wiping, Receiver, Session as CoreSession, OVERHEAD};
use pqc_iiot_core::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::error::{not_copied, raised, ready, Int};
use crate::secret::Secret;

/// Keys of both directions, counters, and an exporter.
#[pyclass(module = "pqc_iiot._core")]
pub struct Session(Option<CoreSession>);

impl Session {
    pub fn of(session: CoreSession) -> Self {
        Self(Some(session))
    }

    fn core(&mut self) -> PyResult<&mut CoreSession> {
        ready()?;
        self.0.as_mut().ok_or_else(|| raised(Error::Limit("the session is closed")))
    }

    fn count(&self, of: impl FnOnce(&CoreSession) -> u32) -> u32 {
        self.0.as_ref().map_or(0, of)
    }
}

/// Why there are no bytes: the core refuses, or Python has no memory.
enum Refusal {
    Core(Error),
    Python(PyErr),
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Core(error) => raised(error),
            Refusal::Python(error) => error,
        }
    }
}

/// `len` bytes that `fill` writes in place, or what it refuses.
fn filled<'py>(
    py: Python<'py>,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> pqc_iiot_core::Result<()>,
) -> Result<Bound<'py, PyBytes>, Refusal> {
    let mut refused = None;
    let bytes = PyBytes::new_with(py, len, |out| {
        refused = fill(out).err();
        Ok(())
    })
    .map_err(Refusal::Python)?;
    refused.map_or(Ok(bytes), |error| Err(Refusal::Core(error)))
}

/// The payload, or None where the packet is not genuine: a flood of forgeries raises nothing.
fn genuine<'py>(
    py: Python<'py>,
    receiver: &mut Receiver,
    topic: &[u8],
    packet: &[u8],
) -> Result<Option<Bound<'py, PyBytes>>, Refusal> {
    let len = packet.len().saturating_sub(OVERHEAD);
    match filled(py, len, |out| receiver.open(topic, packet, out)) {
        Ok(opened) => Ok(Some(opened)),
        Err(Refusal::Core(Error::Authentication)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// A result for each item, in order: bytes, None or the error. `topics` is one for all, or a
/// list of as many.
fn each<'py>(
    topics: &Bound<'py, PyAny>,
    items: &Bound<'py, PyList>,
    mut work: impl FnMut(&[u8], &[u8]) -> Result<Option<Bound<'py, PyBytes>>, Refusal>,
) -> PyResult<Bound<'py, PyList>> {
    let py = items.py();
    let mut out = Vec::with_capacity(items.len());
    // The same refusal again is the same object: a flood of replays costs little.
    let mut last: Option<(Error, Bound<'py, PyAny>)> = None;
    let mut one = |topic: &[u8], item: Bound<'py, PyAny>| -> PyResult<()> {
        out.push(match work(topic, item.cast::<PyBytes>()?.as_bytes()) {
            Ok(Some(bytes)) => bytes.into_any(),
            Ok(None) => py.None().into_bound(py),
            Err(Refusal::Core(error)) => match &last {
                Some((same, object)) if *same == error => object.clone(),
                _ => {
                    let object = raised(error).into_value(py).into_bound(py).into_any();
                    last.insert((error, object)).1.clone()
                }
            },
            Err(Refusal::Python(error)) => return Err(error),
        });
        Ok(())
    };
    if let Ok(topic) = topics.cast::<PyBytes>() {
        items.iter().try_for_each(|item| one(topic.as_bytes(), item))?;
    } else {
        let topics = topics.cast::<PyList>()?;
        if topics.len() != items.len() {
            return Err(raised(Error::Parameter("the number of topics")));
        }
        let mut pairs = topics.iter().zip(items.iter());
        pairs.try_for_each(|(topic, item)| one(topic.cast::<PyBytes>()?.as_bytes(), item))?;
    }
    PyList::new(py, out)
}

#[pymethods]
impl Session {
    fn __repr__(&self) -> &'static str {
        "<Session>"
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// One packet: 24 bytes more than `payload`.
    fn seal<'py>(
        &mut self,
        py: Python<'py>,
        topic: &[u8],
        payload: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let sender = &mut self.core()?.sender;
        let len = OVERHEAD + payload.len();
        Ok(filled(py, len, |out| wiping(|| sender.seal(topic, payload, out)))?)
    }

    /// The payload of a packet, once.
    fn open<'py>(
        &mut self,
        py: Python<'py>,
        topic: &[u8],
        packet: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let receiver = &mut self.core()?.receiver;
        let len = packet.len().saturating_sub(OVERHEAD);
        Ok(filled(py, len, |out| wiping(|| receiver.open(topic, packet, out)))?)
    }

    /// `open`, but None where it is not genuine.
    fn open_genuine<'py>(
        &mut self,
        py: Python<'py>,
        topic: &[u8],
        packet: &[u8],
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let receiver = &mut self.core()?.receiver;
        wiping(|| genuine(py, receiver, topic, packet)).map_err(PyErr::from)
    }

    /// `seal` for each: a packet or the error.
    fn seal_many<'py>(
        &mut self,
        py: Python<'py>,
        topics: &Bound<'py, PyAny>,
        payloads: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let sender = &mut self.core()?.sender;
        wiping(|| {
            each(topics, payloads, |topic, payload| {
                let len = OVERHEAD + payload.len();
                filled(py, len, |out| sender.seal(topic, payload, out)).map(Some)
            })
        })
    }

    /// `open_genuine` for each: a payload, None or the error.
    fn open_many<'py>(
        &mut self,
        py: Python<'py>,
        topics: &Bound<'py, PyAny>,
        packets: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let receiver = &mut self.core()?.receiver;
        wiping(|| each(topics, packets, |topic, packet| genuine(py, receiver, topic, packet)))
    }

    /// EDHOC_Exporter.
    fn export(&mut self, label: Int<u64>, context: &[u8], length: Int<usize>) -> PyResult<Secret> {
        if !(1..=64).contains(&length.0) {
            return Err(raised(Error::Parameter("the length of an exported secret")));
        }
        self.core()?.export(label.0, context, length.0).map(Secret).map_err(raised)
    }

    /// Packets sealed.
    #[getter]
    fn sealed(&self) -> u32 {
        self.count(|session| session.sender.sealed())
    }

    /// Packets opened.
    #[getter]
    fn opened(&self) -> u32 {
        self.count(|session| session.receiver.opened())
    }

    /// One above the highest number opened.
    #[getter]
    fn next_expected(&self) -> u32 {
        self.count(|session| session.receiver.next())
    }

    /// What the peer is told of its packets.
    fn received<'py>(&mut self, py: Python<'py>) -> PyResult<(u32, u32, Bound<'py, PyBytes>)> {
        let receiver = &self.core()?.receiver;
        let told = receiver.told();
        let used = told.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok((receiver.next(), receiver.oldest(), PyBytes::new(py, &told[..used])))
    }

    /// Openings that failed.
    #[getter]
    fn failures(&self) -> u32 {
        self.count(|session| session.receiver.failures())
    }

    /// Whether the keys were wiped.
    #[getter]
    fn closed(&self) -> bool {
        self.0.is_none()
    }

    /// Wipes the keys now.
    fn close(&mut self) {
        self.0 = None;
    }
}

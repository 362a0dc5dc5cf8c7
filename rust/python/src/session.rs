//! Packets of an established session. The GIL stays held: a packet costs less than giving
//! it away and taking it back.

use pqc_iiot_core::session::{wiping, Receiver, Session as CoreSession, OVERHEAD};
use pqc_iiot_core::Error;
use pyo3::ffi;
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
    // SAFETY: a new `bytes` object of `len` bytes that nobody else knows, or null with an
    // exception set. Its bytes are initialised before they become a slice.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(core::ptr::null(), len as isize);
        let bytes = Bound::from_owned_ptr_or_err(py, object).map_err(Refusal::Python)?;
        let data = ffi::PyBytes_AsString(object).cast::<u8>();
        data.write_bytes(0, len);
        fill(core::slice::from_raw_parts_mut(data, len)).map_err(Refusal::Core)?;
        Ok(bytes.cast_into_unchecked())
    }
}

/// The payload of a packet, once.
fn opened<'py>(
    py: Python<'py>,
    receiver: &mut Receiver,
    topic: &[u8],
    packet: &[u8],
) -> Result<Bound<'py, PyBytes>, Refusal> {
    filled(py, packet.len().saturating_sub(OVERHEAD), |out| receiver.open(topic, packet, out))
}

/// The content of the item at `index` if it is `bytes`.
///
/// # Safety
///
/// What is returned belongs to the list: no Python code may run while it is used, as that
/// could take the item out of it.
unsafe fn item<'a>(list: &Bound<'_, PyList>, index: usize) -> PyResult<&'a [u8]> {
    let (mut data, mut len) = (core::ptr::null_mut(), 0);
    // SAFETY: the list is one, the GIL is held, and an index beyond its end gives null with
    // an exception set. `PyBytes_AsStringAndSize` checks the type and sets one, too.
    let done = unsafe {
        let object = ffi::PyList_GetItem(list.as_ptr(), index as isize);
        if object.is_null() {
            -1
        } else {
            ffi::PyBytes_AsStringAndSize(object, &mut data, &mut len)
        }
    };
    if done != 0 {
        return Err(PyErr::fetch(list.py()));
    }
    // SAFETY: `len` bytes of an immutable object, alive while the list holds it (see above).
    Ok(unsafe { core::slice::from_raw_parts(data.cast(), len as usize) })
}

/// A result for each item, in order: bytes, the error, or None where it is not genuine: a flood
/// of forgeries raises nothing. `topics` is one for all, or a list of as many. Written for
/// speed: it is most of what a packet in a batch costs beside its AEAD.
fn each<'py>(
    topics: &Bound<'py, PyAny>,
    items: &Bound<'py, PyList>,
    mut work: impl FnMut(&[u8], &[u8]) -> Result<Bound<'py, PyBytes>, Refusal>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, count) = (items.py(), items.len());
    let (one, many) = match topics.cast::<PyBytes>() {
        Ok(topic) => (topic.as_bytes(), None),
        Err(_) => (&[][..], Some(topics.cast::<PyList>()?)),
    };
    if many.is_some_and(|many| many.len() != count) {
        return Err(raised(Error::Parameter("the number of topics")));
    }
    // SAFETY: a new list, or null with an exception set. Its places are empty until they are
    // filled below, which Python's own deallocation allows for.
    let out = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(count as isize))? };
    // The same refusal again is the same object: a flood of replays costs little.
    let mut last: Option<(Error, Bound<'py, PyAny>)> = None;
    for index in 0..count {
        // SAFETY: both are used by `work` alone, which makes a `bytes` object and runs no
        // Python code.
        let result = unsafe {
            let topic = many.map_or(Ok(one), |many| item(many, index))?;
            work(topic, item(items, index)?)
        };
        let object = match result {
            Ok(bytes) => bytes.into_any(),
            Err(Refusal::Core(Error::Authentication)) => py.None().into_bound(py),
            Err(Refusal::Core(error)) => match &last {
                Some((same, object)) if *same == error => object.clone(),
                _ => {
                    let object = raised(error).into_value(py).into_bound(py).into_any();
                    last.insert((error, object)).1.clone()
                }
            },
            Err(Refusal::Python(error)) => return Err(error),
        };
        // SAFETY: the list is ours alone and has this place; it takes the reference over.
        unsafe { ffi::PyList_SetItem(out.as_ptr(), index as isize, object.into_ptr()) };
    }
    Ok(out)
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
        Ok(wiping(|| opened(py, receiver, topic, packet))?)
    }

    /// `open`, but None where it is not genuine.
    fn open_genuine<'py>(
        &mut self,
        py: Python<'py>,
        topic: &[u8],
        packet: &[u8],
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let receiver = &mut self.core()?.receiver;
        match wiping(|| opened(py, receiver, topic, packet)) {
            Err(Refusal::Core(Error::Authentication)) => Ok(None),
            result => Ok(Some(result?)),
        }
    }

    /// `seal` for each: a packet or the error.
    fn seal_many<'py>(
        &mut self,
        py: Python<'py>,
        topics: &Bound<'py, PyAny>,
        payloads: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sender = &mut self.core()?.sender;
        wiping(|| {
            each(topics, payloads, |topic, payload| {
                let len = OVERHEAD + payload.len();
                filled(py, len, |out| sender.seal(topic, payload, out))
            })
        })
    }

    /// `open_genuine` for each: a payload, None or the error.
    fn open_many<'py>(
        &mut self,
        py: Python<'py>,
        topics: &Bound<'py, PyAny>,
        packets: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let receiver = &mut self.core()?.receiver;
        wiping(|| each(topics, packets, |topic, packet| opened(py, receiver, topic, packet)))
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

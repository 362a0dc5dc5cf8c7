//! Handles for symmetric secrets: usable, never readable.

use std::io::ErrorKind;

use pqc_iiot_core::kem::Kem;
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::password::{self, Cost};
use pqc_iiot_core::secret::Secret as CoreSecret;
use pqc_iiot_core::sig::Sig;
use pqc_iiot_core::Error;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice};
use zeroize::Zeroize;

use crate::error::{not_copied, raised, ready, Int, InvalidInputError, ProviderError};
use crate::kem::KemPrivateKey;
use crate::sig::SigPrivateKey;

/// A symmetric secret in locked memory, wiped when the last reference goes.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct Secret(pub CoreSecret);

#[pymethods]
impl Secret {
    /// `length` random bytes, 16 to 64.
    #[staticmethod]
    #[pyo3(signature = (length = Int(32)), text_signature = "(length=32)")]
    fn random(length: Int<usize>) -> PyResult<Self> {
        ready()?;
        CoreSecret::random(length.0).map(Self).map_err(raised)
    }

    /// Reads a secret from a file descriptor straight into locked memory, up to its end
    /// or, with `line`, to the end of the line. One line ending at the end is left out.
    #[staticmethod]
    #[pyo3(
        signature = (fd, *, line = false, limit = Int(1024)),
        text_signature = "(fd, *, line=False, limit=1024)"
    )]
    fn read_fd(py: Python<'_>, fd: Int<i32>, line: bool, limit: Int<usize>) -> PyResult<Self> {
        ready()?;
        if limit.0 > 4096 {
            return Err(raised(Error::Parameter("the limit of a secret's length")));
        }
        py.detach(|| read_secret(fd.0, line, limit.0)).map(|bytes| Self(bytes.into()))
    }

    /// Moves a secret that other code left in a buffer into locked memory and wipes the
    /// buffer in place.
    #[staticmethod]
    fn take(buffer: &Bound<'_, PyAny>) -> PyResult<Self> {
        ready()?;
        take(buffer).map(Self)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<Secret of {} bytes>", self.0.len())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    /// A 32-byte secret for the purpose `info` (HKDF-Expand, SHA-256).
    fn derive(&self, info: &[u8]) -> PyResult<Self> {
        ready()?;
        self.0.derive(info).map(Self).map_err(raised)
    }

    /// HMAC-SHA-256 over `data`, 32 bytes.
    fn mac<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        Ok(PyBytes::new(py, &self.0.mac(data)))
    }

    /// Whether `tag` is the MAC of `data`; constant time.
    fn verify_mac(&self, data: &[u8], tag: &[u8]) -> PyResult<bool> {
        ready()?;
        Ok(self.0.verify_mac(data, tag))
    }

    /// `data` encrypted under this 32-byte key: 12 + length + 16 bytes.
    fn encrypt<'py>(
        &self,
        py: Python<'py>,
        aad: &[u8],
        data: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        py.detach(|| self.0.encrypt(aad, data)).map(|blob| PyBytes::new(py, &blob)).map_err(raised)
    }

    /// Undoes `encrypt`.
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        aad: &[u8],
        blob: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        py.detach(|| self.0.decrypt(aad, blob)).map(|data| PyBytes::new(py, &data)).map_err(raised)
    }

    /// `other` encrypted under this 32-byte key: 12 + length + 16 bytes.
    fn wrap<'py>(
        &self,
        py: Python<'py>,
        aad: &[u8],
        other: &Self,
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.wrap(aad, &other.0).map(|blob| PyBytes::new(py, &blob)).map_err(raised)
    }

    /// Undoes `wrap`.
    fn unwrap(&self, aad: &[u8], blob: &[u8]) -> PyResult<Self> {
        ready()?;
        self.0.unwrap(aad, blob).map(Self).map_err(raised)
    }

    /// A KEM private key, encrypted under this 32-byte key.
    fn wrap_kem<'py>(
        &self,
        py: Python<'py>,
        aad: &[u8],
        key: &KemPrivateKey,
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.wrap_kem(aad, &key.0).map(|blob| PyBytes::new(py, &blob)).map_err(raised)
    }

    /// Undoes `wrap_kem`; `kem_id` as in HPKE.
    fn unwrap_kem(
        &self,
        py: Python<'_>,
        aad: &[u8],
        kem_id: Int<u16>,
        blob: &[u8],
    ) -> PyResult<KemPrivateKey> {
        ready()?;
        py.detach(|| self.0.unwrap_kem(aad, Kem::from_id(kem_id.0)?, blob))
            .map(KemPrivateKey)
            .map_err(raised)
    }

    /// A signature private key, encrypted under this 32-byte key.
    fn wrap_sig<'py>(
        &self,
        py: Python<'py>,
        aad: &[u8],
        key: &SigPrivateKey,
    ) -> PyResult<Bound<'py, PyBytes>> {
        ready()?;
        self.0.wrap_sig(aad, &key.0).map(|blob| PyBytes::new(py, &blob)).map_err(raised)
    }

    /// Undoes `wrap_sig`; `sig_id` as in COSE.
    fn unwrap_sig(
        &self,
        py: Python<'_>,
        aad: &[u8],
        sig_id: Int<i64>,
        blob: &[u8],
    ) -> PyResult<SigPrivateKey> {
        ready()?;
        py.detach(|| self.0.unwrap_sig(aad, Sig::from_id(sig_id.0)?, blob))
            .map(SigPrivateKey)
            .map_err(raised)
    }
}

/// Argon2id (RFC 9106): a 32-byte key from a passphrase and a salt of 16 to 64 bytes.
#[pyfunction]
pub fn argon2id(
    py: Python<'_>,
    passphrase: &Secret,
    salt: &[u8],
    memory_kib: Int<u32>,
    passes: Int<u32>,
    lanes: Int<u32>,
) -> PyResult<Secret> {
    ready()?;
    let cost = Cost { memory_kib: memory_kib.0, passes: passes.0, lanes: lanes.0 };
    py.detach(|| password::argon2id(&passphrase.0, salt, cost)).map(Secret).map_err(raised)
}

fn take(buffer: &Bound<'_, PyAny>) -> PyResult<CoreSecret> {
    if let Ok(bytes) = buffer.cast_exact::<PyBytes>() {
        return take_bytes(bytes);
    }
    if let Ok(bytes) = buffer.cast_exact::<PyByteArray>() {
        return take_array(bytes);
    }
    // By Python's own means: the limited API of Python 3.10 has no buffer protocol.
    let view = PyMemoryView::from(buffer)?;
    if view.getattr("readonly")?.extract()? {
        return Err(InvalidInputError::new_err("the buffer cannot be wiped: it is read-only"));
    }
    let view = view.call_method1("cast", ("B",))?;
    let secret = take_array(&PyByteArray::from(&view)?)?;
    view.set_item(PySlice::full(view.py()), PyBytes::new(view.py(), &vec![0; secret.len()]))?;
    Ok(secret)
}

fn take_array(bytes: &Bound<'_, PyByteArray>) -> PyResult<CoreSecret> {
    // SAFETY: the GIL is held and no Python code runs until the slice is gone, so nobody
    // else reads, writes or resizes the array meanwhile.
    let slice = unsafe { bytes.as_bytes_mut() };
    let secret = CoreSecret::copy_from(slice).map_err(raised);
    slice.zeroize();
    secret
}

/// References to an object that only our caller has: its variable, and the call itself.
const SOLE: isize = 2;

fn take_bytes(bytes: &Bound<'_, PyBytes>) -> PyResult<CoreSecret> {
    // SAFETY: `bytes` is a live object.
    let references = unsafe { pyo3::ffi::Py_REFCNT(bytes.as_ptr()) };
    // CPython shares the objects of length 0 and 1 among everybody.
    if references > SOLE || bytes.as_bytes().len() < 2 {
        return Err(InvalidInputError::new_err("others hold these bytes: they cannot be wiped"));
    }
    let secret = CoreSecret::copy_from(bytes.as_bytes()).map_err(raised);
    let len = bytes.as_bytes().len();
    // SAFETY: PyBytes_AsString gives the object's own `len` bytes of heap. The object is
    // immutable for everybody who may have seen it; by its reference count that is our
    // caller alone, who hands it over to be wiped, so nobody relies on its content. The GIL
    // is held, no Python code runs, and the shared slice above is no longer used.
    unsafe {
        let data = pyo3::ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts_mut(data, len).zeroize();
    }
    secret
}

fn read_secret(fd: i32, line: bool, limit: usize) -> PyResult<SecretBytes> {
    // One byte more than allowed tells "too long" from "just fits".
    let mut buffer = SecretBytes::zeroed(limit + 3).map_err(raised)?;
    let mut len = 0;
    while len < buffer.len() {
        let want = if line { 1 } else { buffer.len() - len };
        let target = &mut buffer[len..len + want];
        // SAFETY: `target` is a writable slice of `want` bytes that we own.
        let got = unsafe { libc::read(fd, target.as_mut_ptr().cast(), want) };
        match usize::try_from(got) {
            Ok(0) => break,
            Ok(got) => len += got,
            // Ctrl-C at a prompt arrives here.
            Err(_) if std::io::Error::last_os_error().kind() == ErrorKind::Interrupted => {
                Python::attach(|py| py.check_signals())?;
            }
            Err(_) => return Err(ProviderError::new_err("the secret cannot be read")),
        }
        if line && buffer[..len].ends_with(b"\n") {
            break;
        }
    }
    let read = &buffer[..len];
    let secret = match read.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => read,
    };
    if secret.is_empty() || secret.len() > limit {
        return Err(raised(Error::Parameter("the length of the secret that was read")));
    }
    SecretBytes::copy_from(secret).map_err(raised)
}

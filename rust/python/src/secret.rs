//! Handles for symmetric secrets: usable, never readable.

use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::password::{self, Cost};
use pqc_iiot_core::secret::Secret as CoreSecret;
use pqc_iiot_core::Error;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{raised, ready, ProviderError};
use crate::kem::KemPrivateKey;
use crate::sig::SigPrivateKey;

/// A symmetric secret in locked memory, wiped when the last reference goes.
#[pyclass(frozen, module = "pqc_iiot._core")]
pub struct Secret(pub CoreSecret);

#[pymethods]
impl Secret {
    /// `length` random bytes, 16 to 64.
    #[staticmethod]
    #[pyo3(signature = (length = 32))]
    fn random(length: usize) -> PyResult<Self> {
        ready()?;
        CoreSecret::random(length).map(Self).map_err(raised)
    }

    /// Reads a secret from a file descriptor straight into locked memory, up to its end
    /// or, with `line`, to the end of the line. One line ending at the end is left out.
    #[staticmethod]
    #[pyo3(signature = (fd, *, line = false, limit = 1024))]
    fn read_fd(py: Python<'_>, fd: i32, line: bool, limit: usize) -> PyResult<Self> {
        ready()?;
        if limit > 4096 {
            return Err(raised(Error::Parameter("the limit of a secret's length")));
        }
        py.detach(|| read_secret(fd, line, limit)).map(|bytes| Self(bytes.into()))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<Secret of {} bytes>", self.0.len())
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
    fn unwrap_kem(&self, aad: &[u8], kem_id: u16, blob: &[u8]) -> PyResult<KemPrivateKey> {
        ready()?;
        let kem = pqc_iiot_core::kem::Kem::from_id(kem_id).map_err(raised)?;
        self.0.unwrap_kem(aad, kem, blob).map(KemPrivateKey).map_err(raised)
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
    fn unwrap_sig(&self, aad: &[u8], sig_id: i64, blob: &[u8]) -> PyResult<SigPrivateKey> {
        ready()?;
        let sig = pqc_iiot_core::sig::Sig::from_id(sig_id).map_err(raised)?;
        self.0.unwrap_sig(aad, sig, blob).map(SigPrivateKey).map_err(raised)
    }
}

/// Argon2id (RFC 9106): a 32-byte key from a passphrase and a salt of 16 to 64 bytes.
#[pyfunction]
pub fn argon2id(
    py: Python<'_>,
    passphrase: &Secret,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> PyResult<Secret> {
    ready()?;
    py.detach(|| password::argon2id(&passphrase.0, salt, Cost { memory_kib, passes, lanes }))
        .map(Secret)
        .map_err(raised)
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
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {
            }
            Err(_) => return Err(ProviderError::new_err("the secret cannot be read")),
        }
        if line && buffer[len - 1] == b'\n' {
            break;
        }
    }
    for ending in [b'\n', b'\r'] {
        if len > 0 && buffer[len - 1] == ending {
            len -= 1;
        }
    }
    if len == 0 || len > limit {
        return Err(raised(Error::Parameter("the length of the secret that was read")));
    }
    SecretBytes::copy_from(&buffer[..len]).map_err(raised)
}

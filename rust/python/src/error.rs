//! The one place where the core's errors become Python exceptions.

use pqc_iiot_core::Error;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::{import_exception, PyErr};

import_exception!(pqc_iiot.errors, AuthenticationError);
import_exception!(pqc_iiot.errors, InvalidFrameError);
import_exception!(pqc_iiot.errors, InvalidInputError);
import_exception!(pqc_iiot.errors, ProviderError);
import_exception!(pqc_iiot.errors, ReplayError);
import_exception!(pqc_iiot.errors, SelfTestError);
import_exception!(pqc_iiot.errors, StateError);

/// The exception for `error`.
pub fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Authentication => AuthenticationError::new_err(text),
        Error::Frame(_) => InvalidFrameError::new_err(text),
        Error::Replay => ReplayError::new_err(text),
        Error::Limit(_) => StateError::new_err(text),
        Error::System(_) => hinted(
            ProviderError::new_err(text),
            "look at the memory that is free and at this process's limits, then try again",
        ),
        Error::SelfTest(_) => hinted(
            SelfTestError::new_err(text),
            "start a new process; if it fails again, do not trust this installation or machine",
        ),
        Error::Length { .. }
        | Error::InvalidKey(_)
        | Error::UnknownAlgorithm(_)
        | Error::Parameter(_) => InvalidInputError::new_err(text),
    }
}

fn hinted(error: PyErr, hint: &str) -> PyErr {
    Python::attach(|py| match error.value(py).setattr("hint", hint) {
        Ok(()) => error,
        Err(other) => other,
    })
}

/// Why a handle is neither copied nor pickled.
pub fn not_copied() -> PyErr {
    PyTypeError::new_err("this is a handle: it can be used, but not copied or pickled")
}

/// An integer argument: one that does not fit is bad input like any other.
pub struct Int<T>(pub T);

impl<'a, 'py, T> FromPyObject<'a, 'py> for Int<T>
where
    T: FromPyObject<'a, 'py, Error = PyErr>,
{
    type Error = PyErr;

    fn extract(obj: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        obj.extract().map(Self).map_err(|error| {
            if error.is_instance_of::<PyOverflowError>(obj.py()) {
                raised(Error::Parameter("an integer"))
            } else {
                error
            }
        })
    }
}

/// What every operation asks first: whether the self-tests passed.
pub fn ready() -> Result<(), PyErr> {
    pqc_iiot_core::selftest::ready().map_err(raised)
}

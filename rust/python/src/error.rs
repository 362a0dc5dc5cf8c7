//! The one place where the core's errors become Python exceptions.

use pqc_iiot_core::Error;
use pyo3::{import_exception, PyErr};

import_exception!(pqc_iiot.errors, AuthenticationError);
import_exception!(pqc_iiot.errors, InvalidFrameError);
import_exception!(pqc_iiot.errors, InvalidInputError);
import_exception!(pqc_iiot.errors, ProviderError);
import_exception!(pqc_iiot.errors, SelfTestError);

/// The exception for `error`.
pub fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Authentication => AuthenticationError::new_err(text),
        Error::Frame(_) => InvalidFrameError::new_err(text),
        Error::System(_) => ProviderError::new_err(text),
        Error::SelfTest(_) => SelfTestError::new_err(text),
        Error::Length { .. }
        | Error::InvalidKey(_)
        | Error::UnknownAlgorithm(_)
        | Error::Parameter(_) => InvalidInputError::new_err(text),
    }
}

/// What every operation asks first: whether the self-tests passed.
pub fn ready() -> Result<(), PyErr> {
    pqc_iiot_core::selftest::ready().map_err(raised)
}

//! One error for the whole core; the Python face maps it in one place.

use core::fmt;

/// What can go wrong in the core. No variant carries secret data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An argument has the wrong length, in bytes.
    Length {
        /// Which argument.
        what: &'static str,
        /// The length it must have (or its maximum).
        expected: usize,
        /// The length it had.
        got: usize,
    },
    /// Bytes of the right length that are no valid key or point.
    InvalidKey(&'static str),
    /// An identifier that names no algorithm here.
    UnknownAlgorithm(i64),
    /// An argument outside its range.
    Parameter(&'static str),
    /// Bytes from outside that are no frame.
    Frame(&'static str),
    /// A number that was seen before, or is too old to tell.
    Replay,
    /// A key has served as often as it may.
    Limit(&'static str),
    /// Decryption or verification failed; deliberately not said where.
    Authentication,
    /// The operating system or the library below refused.
    System(&'static str),
    /// A self-test failed; no operation is available any more.
    SelfTest(&'static str),
}

/// The core's result type.
pub type Result<T> = core::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, expected, got } => {
                write!(f, "{what} must be {expected} bytes, got {got}")
            }
            Self::InvalidKey(what) => write!(f, "{what} is not valid"),
            Self::UnknownAlgorithm(id) => write!(f, "no algorithm has the identifier {id}"),
            Self::Parameter(what) => write!(f, "{what} is out of range"),
            Self::Frame(what) => f.write_str(what),
            Self::Replay => f.write_str("a number that was seen before, or is too old"),
            Self::Limit(what) => f.write_str(what),
            Self::Authentication => f.write_str("authentication failed"),
            Self::System(what) => write!(f, "{what} failed"),
            Self::SelfTest(what) => write!(f, "the self-test of {what} failed"),
        }
    }
}

impl std::error::Error for Error {}

/// Checks a length and names the argument when it is wrong.
pub(crate) fn exact(what: &'static str, bytes: &[u8], expected: usize) -> Result<()> {
    if bytes.len() == expected {
        Ok(())
    } else {
        Err(Error::Length { what, expected, got: bytes.len() })
    }
}

/// Copies a slice into an array, or says which argument has the wrong length.
pub(crate) fn array<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::Length { what, expected: N, got: bytes.len() })
}

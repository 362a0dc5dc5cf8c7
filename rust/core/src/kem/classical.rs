//! The classical halves of the hybrids: X25519 (RFC 7748) and ECDH on P-384 (SEC 1).

use aws_lc_rs::agreement::{agree, ParsedPublicKey, PrivateKey, UnparsedPublicKey, ECDH_P384};
use zeroize::Zeroizing;

use crate::error::{array, exact, Error, Result};

const INVALID: Error = Error::InvalidKey("the Diffie-Hellman public key");

/// A Diffie-Hellman group of a hybrid KEM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    X25519,
    P384,
}

/// A shared point's encoding, in the first `shared_len` bytes; wiped on drop.
pub(super) type SharedPoint = Zeroizing<[u8; 48]>;

impl Group {
    /// Length of a private scalar, in bytes.
    pub(super) fn scalar_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P384 => 48,
        }
    }

    /// Length of a public key: a u-coordinate, or an uncompressed point.
    pub(super) fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P384 => 97,
        }
    }

    /// Length of the shared secret: a u- or x-coordinate.
    pub(super) fn shared_len(self) -> usize {
        self.scalar_len()
    }

    pub(super) fn public_key(self, scalar: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::X25519 => {
                let scalar = Zeroizing::new(array::<32>("the X25519 scalar", scalar)?);
                let mut public = [0u8; 32];
                // SAFETY: both pointers are to 32 bytes, as the function's signature asks.
                unsafe {
                    aws_lc_sys::X25519_public_from_private(public.as_mut_ptr(), scalar.as_ptr());
                }
                Ok(public.to_vec())
            }
            Self::P384 => p384(scalar)?
                .compute_public_key()
                .map(|key| key.as_ref().to_vec())
                .map_err(|_| Error::InvalidKey("the P-384 scalar")),
        }
    }

    /// Checks a public key: a P-384 point must be on the curve. X25519 takes every string;
    /// its points of small order are refused when they are used.
    pub(super) fn validate(self, public: &[u8]) -> Result<()> {
        exact("the Diffie-Hellman public key", public, self.public_len())?;
        if self == Self::P384 {
            p384_point(public)?;
        }
        Ok(())
    }

    /// The shared coordinate. A point off the curve, or one of small order (an all-zero
    /// result, RFC 7748 section 6.1), is refused.
    pub(super) fn agree(self, scalar: &[u8], public: &[u8]) -> Result<SharedPoint> {
        exact("the Diffie-Hellman public key", public, self.public_len())?;
        let mut shared = SharedPoint::new([0; 48]);
        match self {
            Self::X25519 => {
                let scalar = Zeroizing::new(array::<32>("the X25519 scalar", scalar)?);
                // SAFETY: `shared` has 48 bytes of which 32 are written; scalar and
                // public are 32 bytes each, checked above.
                let ok = unsafe {
                    aws_lc_sys::X25519(shared.as_mut_ptr(), scalar.as_ptr(), public.as_ptr())
                };
                if ok != 1 {
                    return Err(INVALID);
                }
            }
            Self::P384 => {
                agree(&p384(scalar)?, p384_point(public)?, INVALID, |x| {
                    shared.copy_from_slice(x);
                    Ok(())
                })?;
            }
        }
        Ok(shared)
    }
}

fn p384_point(public: &[u8]) -> Result<ParsedPublicKey> {
    // Uncompressed points only (SEC 1 section 2.3.3): the drafts define no other encoding.
    if public.first() != Some(&4) {
        return Err(INVALID);
    }
    UnparsedPublicKey::new(&ECDH_P384, public).try_into().map_err(|_| INVALID)
}

fn p384(scalar: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&ECDH_P384, scalar)
        .map_err(|_| Error::InvalidKey("the P-384 scalar"))
}

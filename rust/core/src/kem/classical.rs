//! The classical halves of the hybrids: X25519 (RFC 7748), and ECDH on P-256 and P-384
//! (SEC 1).

use aws_lc_rs::agreement::{
    agree, Algorithm, ParsedPublicKey, PrivateKey, UnparsedPublicKey, ECDH_P256, ECDH_P384,
};
use zeroize::Zeroizing;

use crate::error::{array, exact, Error, Result};

const INVALID: Error = Error::InvalidKey("the Diffie-Hellman public key");
const INVALID_SCALAR: Error = Error::InvalidKey("the Diffie-Hellman scalar");

/// Longest randomness that a scalar is drawn from, in bytes.
pub(super) const MAX_SEED: usize = 96;

/// A Diffie-Hellman group of a hybrid KEM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    X25519,
    P256,
    P384,
}

/// A shared point's encoding, in the first `shared_len` bytes; wiped on drop.
pub(super) type SharedPoint = Zeroizing<[u8; 48]>;

impl Group {
    /// Length of a private scalar, in bytes.
    pub(super) fn scalar_len(self) -> usize {
        match self {
            Self::X25519 | Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// Length of the randomness that a scalar is drawn from, in bytes.
    pub(super) fn seed_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => MAX_SEED,
            Self::P384 => 48,
        }
    }

    /// The scalar that `seed` stands for: the first candidate in it that is one. A P-256
    /// candidate is above the order once in 2^32 times, three in a row once in 2^96; for
    /// P-384 one candidate does (2^-190).
    pub(super) fn scalar(self, seed: &[u8]) -> Result<&[u8]> {
        let mut candidates = seed.chunks_exact(self.scalar_len());
        candidates
            .find(|scalar| self.curve().is_none_or(|curve| private(curve, scalar).is_ok()))
            .ok_or(INVALID_SCALAR)
    }

    /// AWS-LC's algorithm for a group of points.
    fn curve(self) -> Option<&'static Algorithm> {
        match self {
            Self::X25519 => None,
            Self::P256 => Some(&ECDH_P256),
            Self::P384 => Some(&ECDH_P384),
        }
    }

    /// Length of a public key: a u-coordinate, or an uncompressed point.
    pub(super) fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => 65,
            Self::P384 => 97,
        }
    }

    /// Length of the shared secret: a u- or x-coordinate.
    pub(super) fn shared_len(self) -> usize {
        self.scalar_len()
    }

    pub(super) fn public_key(self, scalar: &[u8]) -> Result<Vec<u8>> {
        if let Some(curve) = self.curve() {
            return private(curve, scalar)?
                .compute_public_key()
                .map(|key| key.as_ref().to_vec())
                .map_err(|_| INVALID_SCALAR);
        }
        let scalar = Zeroizing::new(array::<32>("the X25519 scalar", scalar)?);
        let mut public = [0u8; 32];
        // SAFETY: both pointers are to 32 bytes, as the function's signature asks.
        unsafe {
            aws_lc_sys::X25519_public_from_private(public.as_mut_ptr(), scalar.as_ptr());
        }
        Ok(public.to_vec())
    }

    /// Checks a public key: a point must be on its curve. X25519 takes every string; its
    /// points of small order are refused when they are used.
    pub(super) fn validate(self, public: &[u8]) -> Result<()> {
        exact("the Diffie-Hellman public key", public, self.public_len())?;
        self.curve().map_or(Ok(()), |curve| point(curve, public).map(drop))
    }

    /// The shared coordinate. A point off the curve, or one of small order (an all-zero
    /// result, RFC 7748 section 6.1), is refused.
    pub(super) fn agree(self, scalar: &[u8], public: &[u8]) -> Result<SharedPoint> {
        exact("the Diffie-Hellman public key", public, self.public_len())?;
        let mut shared = SharedPoint::new([0; 48]);
        if let Some(curve) = self.curve() {
            agree(&private(curve, scalar)?, point(curve, public)?, INVALID, |x| {
                shared[..x.len()].copy_from_slice(x);
                Ok(())
            })?;
            return Ok(shared);
        }
        let scalar = Zeroizing::new(array::<32>("the X25519 scalar", scalar)?);
        // SAFETY: `shared` has 48 bytes of which 32 are written; scalar and public are 32
        // bytes each, checked above.
        let ok =
            unsafe { aws_lc_sys::X25519(shared.as_mut_ptr(), scalar.as_ptr(), public.as_ptr()) };
        if ok == 1 {
            Ok(shared)
        } else {
            Err(INVALID)
        }
    }
}

fn point(curve: &'static Algorithm, public: &[u8]) -> Result<ParsedPublicKey> {
    // Uncompressed points only (SEC 1 section 2.3.3): the drafts define no other encoding.
    if public.first() != Some(&4) {
        return Err(INVALID);
    }
    UnparsedPublicKey::new(curve, public).try_into().map_err(|_| INVALID)
}

fn private(curve: &'static Algorithm, scalar: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_private_key(curve, scalar).map_err(|_| INVALID_SCALAR)
}

//! The Python face of the core: argument checks, errors mapped in one place, and the
//! GIL released around slow work only. No logic.

use pyo3::prelude::*;

mod envelope;
mod error;
mod handshake;
mod kem;
mod merkle;
mod primitives;
mod process;
mod secret;
mod session;
mod sig;

/// The core of PQC-IIoT; see `pqc_iiot` for the public face.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use crate::envelope::{
        envelope_aad, envelope_frame, envelope_plaintext, envelope_protected,
        envelope_to_be_signed, EnvelopeHeader,
    };
    #[pymodule_export]
    use crate::handshake::{HandshakeInitiator, HandshakeResponder};
    #[pymodule_export]
    use crate::kem::{hpke_open_with, KemPrivateKey, KemPublicKey, SplitKemPrivateKey};
    #[pymodule_export]
    use crate::merkle::{merkle_follow, merkle_root};
    #[pymodule_export]
    use crate::primitives::{
        hpke_open, hpke_seal, kem_decapsulate, kem_encapsulate, kem_public_key,
    };
    #[pymodule_export]
    use crate::process::{fail_closed, measure, memory_stats, operations, self_test};
    #[pymodule_export]
    use crate::secret::{argon2id, Secret};
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::sig::{composite_message, ecdsa_verify, SigPrivateKey, SigPublicKey};
}

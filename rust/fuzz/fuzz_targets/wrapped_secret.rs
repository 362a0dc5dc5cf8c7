//! Wrapped secrets and keys, as they come out of a key file: none of them unwraps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::kem::Kem;
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::secret::Secret;
use pqc_iiot_core::sig::Sig;

fuzz_target!(|blob: &[u8]| {
    let Ok(bytes) = SecretBytes::copy_from(&[7; 32]) else { return };
    let kek = Secret::from(bytes);
    assert!(kek.unwrap(b"aad", blob).is_err());
    for kem in Kem::ALL {
        assert!(kek.unwrap_kem(b"aad", kem, blob).is_err());
    }
    for sig in Sig::ALL {
        assert!(kek.unwrap_sig(b"aad", sig, blob).is_err());
    }
});

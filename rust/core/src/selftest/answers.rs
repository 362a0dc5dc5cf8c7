//! The known answers, written by the test `selftest::tests::regenerate`.

use super::{Answer, TESTS};

pub(super) const ANSWERS: [Answer; TESTS.len()] = [
    [58, 152, 93, 167, 79, 226, 37, 178],     // SHA3-256
    [41, 193, 105, 247, 60, 248, 61, 182],    // SHAKE128
    [119, 203, 255, 198, 70, 192, 146, 3],    // SHAKE256
    [157, 101, 170, 57, 88, 128, 21, 90],     // HMAC-SHA-256
    [147, 213, 242, 154, 254, 162, 21, 105],  // HKDF-SHA-256
    [167, 162, 60, 25, 104, 245, 228, 162],   // HKDF-SHA-384
    [107, 8, 5, 42, 93, 232, 17, 42],         // HKDF-SHA-512
    [230, 238, 161, 223, 109, 229, 71, 228],  // Argon2id
    [40, 198, 86, 248, 142, 60, 209, 59],     // AES-128-GCM
    [81, 44, 192, 50, 69, 97, 188, 61],       // AES-256-GCM
    [60, 126, 34, 75, 182, 57, 141, 15],      // ChaCha20-Poly1305
    [180, 121, 41, 82, 113, 49, 155, 180],    // ML-KEM-768
    [170, 140, 196, 106, 124, 66, 85, 217],   // ML-KEM-1024
    [52, 152, 34, 82, 152, 47, 68, 211],      // MLKEM768-P256
    [243, 101, 139, 199, 184, 202, 161, 178], // MLKEM1024-P384
    [209, 5, 53, 208, 127, 212, 38, 218],     // MLKEM768-X25519
    [172, 237, 181, 168, 15, 192, 254, 171],  // HPKE
    [157, 160, 111, 24, 9, 21, 88, 128],      // Falcon-512
    [154, 139, 10, 243, 160, 54, 156, 35],    // Falcon-1024
    [95, 27, 177, 99, 170, 147, 222, 154],    // Falcon-512 and ECDSA-P256
    [128, 7, 79, 52, 10, 177, 100, 24],       // ML-DSA-65
    [132, 54, 105, 127, 72, 186, 153, 221],   // ML-DSA-87
];

// Keys for tests only: they are public here.
pub(super) const FALCON_512_KEY: &[u8] = include_bytes!("falcon512.key");
pub(super) const FALCON_512_SIGNATURE: &[u8] = include_bytes!("falcon512.sig");
pub(super) const FALCON_1024_KEY: &[u8] = include_bytes!("falcon1024.key");
pub(super) const FALCON_1024_SIGNATURE: &[u8] = include_bytes!("falcon1024.sig");
pub(super) const COMPOSITE_SIGNATURE: &[u8] = include_bytes!("composite.sig");
pub(super) const ML_DSA_65_SIGNATURE: &[u8] = include_bytes!("mldsa65.sig");
pub(super) const ML_DSA_87_SIGNATURE: &[u8] = include_bytes!("mldsa87.sig");
pub(super) const HPKE_MESSAGE: &[u8] = include_bytes!("hpke.msg");

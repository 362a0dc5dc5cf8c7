//! The known answers, written by the test `selftest::tests::regenerate`.

use super::Answers;

pub(super) const ANSWERS: Answers = Answers {
    sha3: [58, 152, 93, 167, 79, 226, 37, 178],
    hmac: [157, 101, 170, 57, 88, 128, 21, 90],
    hkdf: [147, 213, 242, 154, 254, 162, 21, 105],
    argon2id: [230, 238, 161, 223, 109, 229, 71, 228],
    aes_256_gcm: [81, 44, 192, 50, 69, 97, 188, 61],
    hpke: [172, 237, 181, 168, 15, 192, 254, 171],
    kem: [[180, 121, 41, 82, 113, 49, 155, 180], [170, 140, 196, 106, 124, 66, 85, 217], [243, 101, 139, 199, 184, 202, 161, 178], [209, 5, 53, 208, 127, 212, 38, 218]],
    sig: [[157, 160, 111, 24, 9, 21, 88, 128], [154, 139, 10, 243, 160, 54, 156, 35], [132, 54, 105, 127, 72, 186, 153, 221]],
};

// Keys for tests only: they are public here.
pub(super) const FALCON_512_KEY: &[u8] = include_bytes!("falcon512.key");
pub(super) const FALCON_512_SIGNATURE: &[u8] = include_bytes!("falcon512.sig");
pub(super) const FALCON_1024_KEY: &[u8] = include_bytes!("falcon1024.key");
pub(super) const FALCON_1024_SIGNATURE: &[u8] = include_bytes!("falcon1024.sig");
pub(super) const ML_DSA_87_SIGNATURE: &[u8] = include_bytes!("mldsa87.sig");
pub(super) const HPKE_MESSAGE: &[u8] = include_bytes!("hpke.msg");

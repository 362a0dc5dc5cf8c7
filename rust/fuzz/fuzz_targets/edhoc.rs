//! EDHOC's messages and plaintexts, read by both roles: what is taken says what would be
//! written again; messages that nobody sealed are refused.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::edhoc::{own_suite, CipherSuite, Credential, Initiator, Message1, Unsigned};
use pqc_iiot_core::kem::{Kem, PrivateKey, SharedSecret};
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::Result;

const G_X: [u8; 32] = [1; 32];
const G_Y: [u8; 1088] = [2; 1088];
const C: [u8; 4] = [4; 4];
const CRED: &[u8] = &[0x60];

fn suite() -> &'static CipherSuite {
    static SUITE: OnceLock<&'static CipherSuite> = OnceLock::new();
    SUITE.get_or_init(|| &own_suite(-24).expect("the first suite").0)
}

fn initiator() -> Initiator {
    Initiator::new(suite(), &G_X, &C)
}

fn unsigned(initiator: &Initiator, c_r: &[u8]) -> Unsigned {
    let g_xy = shared(&G_Y).expect("a secret");
    Unsigned::new(suite(), initiator.message_1(), &G_Y, &g_xy, c_r).expect("key schedule")
}

/// Of a ciphertext that nobody made: the same secret each time (FIPS 203 section 6.3).
fn shared(g_y: &[u8]) -> Result<SharedSecret> {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let seed = SecretBytes::copy_from(&[7; 64]).expect("memory");
        PrivateKey::from_seed(Kem::MlKem768, seed).expect("a key")
    });
    key.decapsulate(g_y)
}

/// A map that names a key id alone has a shorter form, which is the one that is written.
fn is_short(id_cred: &[u8]) -> bool {
    id_cred.starts_with(&[0xa1, 4])
}

fn message_1(bytes: &[u8]) {
    let Ok(message) = Message1::read(bytes) else { return };
    let Ok((suite, _)) = own_suite(message.suite) else { return };
    assert_eq!(Initiator::new(suite, message.g_x, message.c_i).message_1(), bytes);
}

/// Whatever the plaintext of message 2 is: encrypted with the keystream that a message of
/// the same length was encrypted with.
fn plaintext_2(plaintext: &[u8]) {
    let initiator = initiator();
    let known = [&[0x44][..], &C, &[0xa0]].concat();
    let Some(rest) = plaintext.len().checked_sub(known.len() + 1) else { return };
    let Some(len) = [0, 1, 2].into_iter().find_map(|head| {
        let len = rest.checked_sub(head)?;
        (head == usize::from(len > 23) + usize::from(len > 255)).then_some(len)
    }) else {
        return;
    };
    let own = Credential { id: &[0xa0], cred: CRED };
    let sent = unsigned(&initiator, &C).message_2(own, &vec![0; len]).expect("message 2").0;
    let head = match len {
        0..24 => vec![0x40 | len as u8],
        24..256 => vec![0x58, len as u8],
        _ => vec![0x59, (len >> 8) as u8, len as u8],
    };
    let known = [&known[..], &head, &vec![0; len]].concat();
    let mut message = sent.clone();
    let at = message.len() - plaintext.len();
    for (byte, (one, other)) in message[at..].iter_mut().zip(known.iter().zip(plaintext)) {
        *byte ^= one ^ other;
    }
    let Ok(claimed) = initiator.read_message_2(&message, G_Y.len(), shared) else { return };
    let mut signature = Vec::new();
    let verified = claimed.verify_responder(CRED, &mut |_, given| {
        signature = given.to_vec();
        true
    });
    let c_r = verified.expect("a signature that verifies").c_r().to_vec();
    let id = claimed.id_cred();
    let again = unsigned(&initiator, &c_r).message_2(Credential { id, cred: CRED }, &signature);
    assert!(again.expect("message 2").0 == message || is_short(id));
}

/// The same of message 3: its plaintext begins as it likes, and ends with an empty string.
fn plaintext_3(id: &[u8]) {
    let initiator = initiator();
    let own = Credential { id: &[0xa0], cred: CRED };
    let (message_2, responder) = unsigned(&initiator, &C).message_2(own, b"").expect("message 2");
    let claimed = initiator.read_message_2(&message_2, G_Y.len(), shared).expect("genuine");
    let verified = claimed.verify_responder(CRED, &mut |_, _| true).expect("verified");
    let (message_3, unconfirmed) =
        verified.message_3(Credential { id, cred: CRED }, b"").expect("message 3");
    let Ok(claimed) = responder.read_message_3(&message_3) else { return };
    let (message_4, _) = claimed.verify_initiator(CRED, &mut |_, _| true).expect("verified");
    // The same transcript on both sides, or no session.
    assert!(unconfirmed.read_message_4(&message_4).is_ok());
}

/// Messages 3 and 4 are authenticated encryption: nothing that was made up opens.
fn sealed(bytes: &[u8]) {
    let initiator = initiator();
    let own = Credential { id: &[0xa0], cred: CRED };
    let (message_2, responder) = unsigned(&initiator, &C).message_2(own, b"").expect("message 2");
    assert!(responder.read_message_3(bytes).is_err());
    let claimed = initiator.read_message_2(&message_2, G_Y.len(), shared).expect("genuine");
    let verified = claimed.verify_responder(CRED, &mut |_, _| true).expect("verified");
    let (_, unconfirmed) = verified.message_3(own, b"").expect("message 3");
    assert!(unconfirmed.read_message_4(bytes).is_err());
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    match choice % 5 {
        0 => message_1(bytes),
        1 => {
            let _ = initiator().read_message_2(bytes, G_Y.len(), shared);
        }
        2 => plaintext_2(bytes),
        3 => plaintext_3(bytes),
        _ => sealed(bytes),
    }
});

//! A handshake between two real devices, and somebody who bends messages on the way: what
//! was bent is refused, tears nothing down, and the genuine one still goes through.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::handshake::{Initiator, Party, Responder};
use pqc_iiot_core::session::OVERHEAD;
use pqc_iiot_core::sig::{Sig, SigningKey, VerifyingKey};

const SUITE: i64 = -26;
const C_I: [u8; 4] = [1; 4];
const C_R: [u8; 4] = [2; 4];

struct Device {
    signing: SigningKey,
    verifying: VerifyingKey,
    id: u8,
}

impl Device {
    fn new(id: u8) -> Self {
        let signing = SigningKey::generate(Sig::Falcon512).expect("a key");
        let verifying = VerifyingKey::new(Sig::Falcon512, signing.public_key()).expect("its half");
        Self { signing, verifying, id }
    }

    fn party(&self) -> Party {
        Party { id_cred: vec![0xa1, 4, 0x42, self.id, self.id], cred: vec![0x41, self.id] }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).expect("a signature")
    }
}

/// The next message with some bytes changed, or cut, or one of another step; or the input
/// itself. None where it came out as it was.
fn bent(genuine: &[u8], others: &[&[u8]], input: &mut &[u8]) -> Option<Vec<u8>> {
    let (&how, rest) = input.split_first()?;
    *input = rest;
    let mut message = match how & 7 {
        0 => core::mem::take(input).to_vec(),
        1 => others.get(usize::from(how >> 3) % others.len().max(1))?.to_vec(),
        _ => genuine.to_vec(),
    };
    let edits = usize::from(how >> 3 & 3);
    for edit in input.chunks_exact(3).take(edits) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % (message.len() + 1);
        match message.get_mut(at) {
            Some(byte) => *byte = edit[2],
            None => message.push(edit[2]),
        }
    }
    *input = input.get(3 * edits..).unwrap_or_default();
    if how & 7 == 2 {
        message.truncate(message.len() * usize::from(how >> 3) / 32);
    }
    (message != genuine).then_some(message)
}

fuzz_target!(|input: &[u8]| {
    static DEVICES: OnceLock<[Device; 2]> = OnceLock::new();
    let [a, b] = DEVICES.get_or_init(|| [Device::new(1), Device::new(2)]);
    let input = &mut &*input;

    let mut initiator = Initiator::new(SUITE, &C_I, a.party(), b.party()).expect("message 1");
    let message_1 = initiator.message_1().to_vec();
    // Whoever can change message 1 gets an answer, and an initiator that does not take it.
    if let Some(message) = bent(&message_1, &[], input) {
        if let Ok(mut other) = Responder::new(SUITE, &message, &C_R, b.party()) {
            let signature = b.sign(&other.to_be_signed().expect("an answer"));
            let answer = other.message_2(&signature).expect("message 2");
            assert!(initiator.read_message_2(&answer, &b.verifying).is_err());
        }
    }
    let mut responder = Responder::new(SUITE, &message_1, &C_R, b.party()).expect("genuine");
    let signature = b.sign(&responder.to_be_signed().expect("a step"));
    let message_2 = responder.message_2(&signature).expect("message 2");
    if let Some(message) = bent(&message_2, &[&message_1], input) {
        assert!(initiator.read_message_2(&message, &b.verifying).is_err());
        assert!(initiator.message_3(&signature).is_err());
    }
    let to_be_signed = initiator.read_message_2(&message_2, &b.verifying).expect("genuine");
    let message_3 = initiator.message_3(&a.sign(&to_be_signed)).expect("message 3");
    if let Some(message) = bent(&message_3, &[&message_1, &message_2], input) {
        assert!(responder.read_message_3(&message, &a.party(), &a.verifying, 0).is_err());
    }
    let (message_4, mut theirs) =
        responder.read_message_3(&message_3, &a.party(), &a.verifying, 0).expect("genuine");
    if let Some(message) = bent(&message_4, &[&message_1, &message_2, &message_3], input) {
        assert!(initiator.read_message_4(&message, 0).is_err());
    }
    let mut ours = initiator.read_message_4(&message_4, 0).expect("genuine");
    let (mut packet, mut payload) = ([0; OVERHEAD + 1], [0]);
    ours.sender.seal(b"t", &[7], &mut packet).expect("a packet");
    theirs.receiver.open(b"t", &packet, &mut payload).expect("the same keys");
    assert_eq!(payload, [7]);
});

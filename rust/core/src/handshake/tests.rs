use super::*;
use crate::session::OVERHEAD;
use crate::sig::{Sig, SigningKey};

struct Device {
    signing: SigningKey,
    verifying: VerifyingKey,
    kid: [u8; 2],
    cred: Vec<u8>,
}

impl Device {
    fn new(sig: Sig, kid: [u8; 2]) -> Self {
        let signing = SigningKey::generate(sig).unwrap();
        let verifying = VerifyingKey::new(sig, signing.public_key()).unwrap();
        let mut cred = Vec::new();
        crate::cbor::byte_string(signing.public_key(), &mut cred);
        Self { signing, verifying, kid, cred }
    }

    fn party(&self) -> Party {
        Party { id_cred: [&[0xa1, 4, 0x42][..], &self.kid].concat(), cred: self.cred.clone() }
    }
}

const SUITES: [(i64, Sig); 7] = [
    (-24, Sig::Falcon512),
    (-25, Sig::Falcon1024),
    (-26, Sig::Falcon512),
    (-27, Sig::Falcon512),
    (-28, Sig::MlDsa87),
    (-29, Sig::Falcon512EcdsaP256),
    (-30, Sig::MlDsa65),
];

const C_I: [u8; ID_LEN] = [1, 2, 3, 4];
const C_R: [u8; ID_LEN] = [5, 6, 7, 8];

fn pass(from: &mut Session, to: &mut Session) {
    let mut packet = vec![0; OVERHEAD + 5];
    from.sender.seal(b"topic", b"hello", &mut packet).unwrap();
    let mut payload = [0; 5];
    to.receiver.open(b"topic", &packet, &mut payload).unwrap();
    assert_eq!(&payload, b"hello");
}

#[test]
fn every_suite_ends_in_one_session_over_forgeries_that_change_nothing() {
    for (suite, sig) in SUITES {
        let (a, b) = (Device::new(sig, [1, 2]), Device::new(sig, [3, 4]));
        let forged = |message: &[u8]| {
            let mut forged = message.to_vec();
            let at = forged.len() - 1;
            forged[at] ^= 1;
            forged
        };
        let mut initiator = Initiator::new(suite, &C_I, a.party(), b.party()).unwrap();
        assert_eq!(initiator.suite(), suite);
        let message_1 = initiator.message_1().to_vec();
        let mut responder = Responder::new(suite, &message_1, &C_R, b.party()).unwrap();
        assert_eq!(responder.c_i(), C_I);
        let signature = b.signing.sign(&responder.to_be_signed().unwrap()).unwrap();
        let message_2 = responder.message_2(&signature).unwrap();

        assert!(initiator.read_message_2(&forged(&message_2), &b.verifying).is_err());
        assert!(initiator.read_message_2(&message_2, &a.verifying).is_err());
        assert!(initiator.message_3(&[]).is_err());
        let to_be_signed = initiator.read_message_2(&message_2, &b.verifying).unwrap();
        assert_eq!(initiator.c_r(), C_R);
        let message_3 = initiator.message_3(&a.signing.sign(&to_be_signed).unwrap()).unwrap();

        let (p, v) = (a.party(), &a.verifying);
        assert!(responder.read_message_3(&forged(&message_3), &p, v, 0).is_err());
        assert!(responder.read_message_3(&message_3, &b.party(), v, 0).is_err());
        assert!(responder.read_message_3(&message_3, &p, &b.verifying, 0).is_err());
        let (message_4, mut theirs) = responder.read_message_3(&message_3, &p, v, 0).unwrap();
        assert!(responder.read_message_3(&message_3, &p, v, 0).is_err(), "once");

        assert!(initiator.read_message_4(&forged(&message_4), 0).is_err());
        let mut ours = initiator.read_message_4(&message_4, 0).unwrap();
        pass(&mut ours, &mut theirs);
        pass(&mut theirs, &mut ours);
        let tag = |session: &Session, label| session.export(label, b"c", 32).unwrap().mac(b"");
        assert_eq!(tag(&ours, 0), tag(&theirs, 0));
        assert_ne!(tag(&ours, 0), tag(&ours, 1));
        if suite == -24 {
            let all = [&message_1, &message_2, &message_3, &message_4];
            assert_eq!(all.map(Vec::len).into_iter().sum::<usize>(), 3734);
        }
    }
}

/// Everything else is right, the signature too: the hint alone is another one.
#[test]
fn a_credential_under_another_id_than_the_expected_is_refused_by_both_sides() {
    let (a, b) = (Device::new(Sig::Falcon512, [1, 2]), Device::new(Sig::Falcon512, [3, 4]));
    let renamed = |device: &Device| Party { id_cred: vec![0xa1, 4, 0x42, 9, 9], ..device.party() };
    let mut initiator = Initiator::new(-24, &C_I, renamed(&a), b.party()).unwrap();
    let mut answers = [renamed(&b), b.party()].map(|party| {
        let mut responder = Responder::new(-24, initiator.message_1(), &C_R, party).unwrap();
        let signature = b.signing.sign(&responder.to_be_signed().unwrap()).unwrap();
        (responder.message_2(&signature).unwrap(), responder)
    });
    let refused = initiator.read_message_2(&answers[0].0, &b.verifying).err();
    assert_eq!(refused, Some(Error::Authentication));
    let to_be_signed = initiator.read_message_2(&answers[1].0, &b.verifying).unwrap();
    let message_3 = initiator.message_3(&a.signing.sign(&to_be_signed).unwrap()).unwrap();
    let responder = &mut answers[1].1;
    let refused = responder.read_message_3(&message_3, &a.party(), &a.verifying, 0).err();
    assert_eq!(refused, Some(Error::Authentication));
    assert!(responder.read_message_3(&message_3, &renamed(&a), &a.verifying, 0).is_ok());
}

#[test]
fn message_1_of_another_suite_or_with_a_bad_key_is_refused() {
    let (a, b) = (Device::new(Sig::Falcon512, [1, 2]), Device::new(Sig::Falcon512, [3, 4]));
    let initiator = Initiator::new(-24, &[1; 4], a.party(), b.party()).unwrap();
    let message_1 = initiator.message_1();
    assert!(Responder::new(-26, message_1, &[2; 4], b.party()).is_err());
    assert!(Responder::new(-23, message_1, &[2; 4], b.party()).is_err());
    let mut bad = message_1.to_vec();
    bad[10..1000].fill(0xff);
    assert!(Responder::new(-24, &bad, &[2; 4], b.party()).is_err());
    for len in 0..message_1.len() {
        assert!(Responder::new(-24, &message_1[..len], &[2; 4], b.party()).is_err());
    }
}

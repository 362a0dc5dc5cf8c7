use proptest::prelude::*;

use super::*;
use crate::sig::{Sig, SigningKey};

fn example(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let header = protected(-65793, &[1; 8], &[2; 8], sequence).unwrap();
    frame(&header, &[3; 1120], payload)
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(
        sequence in 1u64..1 << 62,
        alg in -0xffff_ffffi64..-0x1_0000,
        recipient: [u8; 8],
        sender: [u8; 8],
        enc in proptest::collection::vec(any::<u8>(), 0..2000),
        ciphertext in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let header = protected(alg, &recipient, &sender, sequence).unwrap();
        let bytes = frame(&header, &enc, &ciphertext);
        let layout = Layout::of(&bytes).unwrap();
        prop_assert_eq!((layout.alg, layout.sequence), (alg, sequence));
        prop_assert_eq!(&bytes[layout.recipient], &recipient);
        prop_assert_eq!(&bytes[layout.sender], &sender);
        prop_assert_eq!(&bytes[layout.protected], &header[..]);
        prop_assert_eq!(&bytes[layout.enc], &enc[..]);
        prop_assert_eq!(&bytes[layout.ciphertext], &ciphertext[..]);
    }

    #[test]
    fn what_can_be_read_is_written_in_one_way(
        at in 0usize..1200,
        flip in 1u8..=255,
        cut in 0usize..1300,
    ) {
        let mut bytes = example(77, &[4; 90]);
        let len = bytes.len();
        bytes[at % len] ^= flip;
        bytes.truncate(cut.max(1));
        if let Ok(layout) = Layout::of(&bytes) {
            let part = |range: &Range<usize>| bytes[range.clone()].to_vec();
            let header = protected(
                layout.alg, &part(&layout.recipient), &part(&layout.sender), layout.sequence,
            );
            let again = frame(&header.unwrap(), &part(&layout.enc), &part(&layout.ciphertext));
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Layout::of(&bytes).is_err());
    }
}

#[test]
fn numbers_have_one_form_and_a_range() {
    for sequence in [1, 23, 24, 255, 256, 65535, 65536, u64::from(u32::MAX), 1 << 32, (1 << 62) - 1]
    {
        assert_eq!(Layout::of(&example(sequence, b"")).unwrap().sequence, sequence);
    }
    for sequence in [0, 1 << 62, u64::MAX] {
        assert!(Layout::of(&example(sequence, b"")).is_err());
    }
    let longer = |number: &[u8]| {
        let mut fields = protected(-65793, &[1; 8], &[2; 8], 1).unwrap()[2..].to_vec();
        fields.pop();
        fields.extend_from_slice(number);
        let mut header = Vec::new();
        byte_string(&fields, &mut header);
        frame(&header, &[3; 1120], b"")
    };
    assert!(Layout::of(&longer(b"\x01")).is_ok());
    for number in
        [&b"\x18\x01"[..], b"\x19\x00\x01", b"\x1a\0\0\0\x01", b"\x1b\0\0\0\0\0\0\0\x01", b"\x1f"]
    {
        assert!(Layout::of(&longer(number)).is_err(), "{number:02x?}");
    }
    assert!(Layout::of(&[&example(1, b"")[..], b"x"].concat()).is_err(), "nothing after it");
}

#[test]
fn verifies_only_what_was_signed() {
    let key = SigningKey::generate(Sig::Falcon512).unwrap();
    let public = VerifyingKey::new(Sig::Falcon512, key.public_key()).unwrap();
    let header = protected(-65793, &[1; 8], &[2; 8], 9).unwrap();
    let (recipient, sender, context) = ([5; 32], [6; 32], *b"\x45topic");
    let signed = to_be_signed(&header, &recipient, &sender, &context, b"payload");
    let good = plaintext(b"payload", &key.sign(&signed).unwrap());
    let check = |header: &[u8], recipient: &[u8], sender: &[u8], context: &[u8], text: &[u8]| {
        verify(&public, header, recipient, sender, context, text).map(|range| text[range].to_vec())
    };
    assert_eq!(check(&header, &recipient, &sender, &context, &good).unwrap(), b"payload");
    let other = protected(-65793, &[1; 8], &[2; 8], 10).unwrap();
    let refused = Err(Error::Authentication);
    assert_eq!(check(&other, &recipient, &sender, &context, &good), refused);
    assert_eq!(check(&header, &[7; 32], &sender, &context, &good), refused);
    assert_eq!(check(&header, &recipient, &[7; 32], &context, &good), refused);
    assert_eq!(check(&header, &recipient, &sender, b"\x45other", &good), refused);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(check(&header, &recipient, &sender, &context, &bad), refused, "byte {at}");
    }
    for len in 0..good.len() {
        assert_eq!(check(&header, &recipient, &sender, &context, &good[..len]), refused);
    }
}

use std::collections::HashSet;

use proptest::prelude::*;

use super::ratchet::STEP_BITS;
use super::*;
use crate::secret::Secret;
use crate::test_memory::{leaves_nothing, Masked};

impl Sender {
    fn packet(&mut self, topic: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; OVERHEAD + payload.len()];
        self.seal(topic, payload, &mut out).map(|()| out)
    }
}

impl Receiver {
    fn payload(&mut self, topic: &[u8], packet: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; packet.len().saturating_sub(OVERHEAD)];
        self.open(topic, packet, &mut out).map(|()| out)
    }
}

const SECRET: [u8; SECRET_LEN] = [7; SECRET_LEN];
const ID: [u8; 4] = [1, 2, 3, 4];

fn pair(window: u32) -> (Sender, Receiver) {
    (Sender::new(ID, &SECRET).unwrap(), Receiver::new(ID, &SECRET, window).unwrap())
}

#[test]
fn packets_arrive_once_and_bind_topic_session_and_number() {
    let (mut sender, mut receiver) = pair(0);
    let packet = sender.packet(b"topic", b"payload").unwrap();
    assert_eq!(packet.len(), b"payload".len() + 24);
    assert_eq!(receiver.payload(b"other", &packet), Err(Error::Authentication));
    assert_eq!(receiver.failures(), 1);
    for at in 0..packet.len() {
        let mut bad = packet.clone();
        bad[at] ^= 1;
        assert!(receiver.payload(b"topic", &bad).is_err(), "byte {at}");
    }
    for len in 0..packet.len() {
        assert!(receiver.payload(b"topic", &packet[..len]).is_err());
    }
    assert_eq!(receiver.payload(b"topic", &packet).unwrap(), b"payload");
    assert_eq!(receiver.payload(b"topic", &packet), Err(Error::Replay));
    let mut elsewhere = Receiver::new([9; 4], &SECRET, 0).unwrap();
    let next = sender.packet(b"topic", b"").unwrap();
    assert!(elsewhere.payload(b"topic", &next).is_err());
    assert_eq!(receiver.payload(b"topic", &next).unwrap(), b"");
}

#[test]
fn both_ends_count_and_the_sender_is_told_what_arrived() {
    let (mut sender, mut receiver) = pair(8);
    let packets = [b"0", b"1", b"2"].map(|payload| sender.packet(b"t", payload).unwrap());
    assert_eq!(sender.sealed(), 3);
    for number in [0, 2] {
        receiver.payload(b"t", &packets[number]).unwrap();
    }
    assert_eq!((receiver.opened(), receiver.next(), receiver.oldest()), (2, 3, 0));
    let mut told = [0; TOLD as usize / 8];
    told[0] = 0b101;
    assert_eq!(receiver.told(), told);
}

/// The form in the head of this module, computed another way: other vectors are in
/// `vectors/session.json`.
#[test]
fn a_packet_is_header_and_aead_under_the_mask_with_its_number() {
    use crate::hash::{hkdf_expand, Sha2};
    use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_256_GCM};

    let (mut sender, _) = pair(0);
    let (mut key, mut chain_and_mask) = ([0; 32], [0; SECRET_LEN + 12]);
    hkdf_expand(Sha2::Sha384, &SECRET, &[b"pqc-iiot packet key"], &mut key).unwrap();
    hkdf_expand(Sha2::Sha384, &SECRET, &[b"pqc-iiot packet ratchet"], &mut chain_and_mask).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    for number in [0u32, 1, 0x2ff] {
        sender.next = number;
        let packet = sender.packet(b"topic", b"payload").unwrap();
        let (header, sealed) = packet.split_at(HEADER_LEN);
        assert_eq!(header, [&[PACKET][..], &ID, &number.to_be_bytes()[1..]].concat());
        let mut nonce: [u8; 12] = chain_and_mask[SECRET_LEN..].try_into().unwrap();
        let last = u32::from_be_bytes(nonce[8..].try_into().unwrap()) ^ number;
        nonce[8..].copy_from_slice(&last.to_be_bytes());
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let payload = key.open_in_place(nonce, Aad::from(b"topic"), &mut opened).unwrap();
        assert_eq!(payload, b"payload");
    }
}

#[test]
fn strict_order_drops_what_comes_late_and_a_window_takes_it_once() {
    for (window, late) in [(0, Err(Error::Replay)), (8, Ok(b"0".to_vec()))] {
        let (mut sender, mut receiver) = pair(window);
        let first = sender.packet(b"t", b"0").unwrap();
        let second = sender.packet(b"t", b"1").unwrap();
        receiver.payload(b"t", &second).unwrap();
        assert_eq!(receiver.payload(b"t", &first), late);
        assert_eq!(receiver.payload(b"t", &first), Err(Error::Replay));
    }
}

#[test]
fn control_overtakes_and_is_overtaken_without_harm_and_once() {
    let (mut sender, mut receiver) = pair(0);
    let packets = [b"t", b"".as_slice(), b"t", b""].map(|t| sender.packet(t, b"x").unwrap());
    receiver.payload(b"", &packets[3]).unwrap();
    receiver.payload(b"t", &packets[0]).unwrap();
    receiver.payload(b"t", &packets[2]).unwrap();
    receiver.payload(b"", &packets[1]).unwrap();
    assert_eq!((receiver.next(), receiver.oldest()), (4, 3));
    for (packet, topic) in packets.iter().zip([b"t".as_slice(), b"", b"t", b""]) {
        assert_eq!(receiver.payload(topic, packet), Err(Error::Replay));
    }
}

#[test]
fn the_ratchet_steps_on_both_sides_also_over_gaps_and_wipes_what_was() {
    for window in [0, 64] {
        let (mut sender, mut receiver) = pair(window);
        let mut kept = Vec::new();
        for number in 0..3u32 << STEP_BITS {
            let packet = sender.packet(b"t", &number.to_be_bytes()).unwrap();
            let near_step = number % (1 << STEP_BITS) >= (1 << STEP_BITS) - 3;
            if near_step {
                kept.push((number, packet));
            } else if number % 4096 == 5 {
                assert_eq!(receiver.payload(b"t", &packet).unwrap(), number.to_be_bytes());
                for (late, packet) in kept.drain(..) {
                    let inside = window > 0 && late + window > number;
                    assert_eq!(receiver.payload(b"t", &packet).is_ok(), inside);
                }
            }
        }
        assert!(receiver.before.is_none(), "the step before is wiped");
    }
}

#[test]
fn a_packet_too_far_ahead_costs_nothing_and_changes_nothing() {
    let (mut sender, mut receiver) = pair(0);
    sender.next = (AHEAD + 1) << STEP_BITS;
    for _ in 0..=AHEAD {
        sender.ratchet = sender.ratchet.next().unwrap();
    }
    let far = sender.packet(b"t", b"").unwrap();
    assert!(matches!(receiver.payload(b"t", &far), Err(Error::Frame(_))));
    assert_eq!((receiver.failures(), receiver.current.step), (0, 0));
}

#[test]
fn forged_steps_are_computed_once_and_do_not_become_true() {
    let (mut sender, mut receiver) = pair(0);
    let mut forged = [0; OVERHEAD];
    forged[0] = PACKET;
    forged[1..5].copy_from_slice(&ID);
    for (step, kept) in [(2u32, 2), (2, 2), (1, 1), (2, 2)] {
        forged[5..8].copy_from_slice(&(step << STEP_BITS).to_be_bytes()[1..]);
        assert_eq!(receiver.payload(b"t", &forged), Err(Error::Authentication));
        assert_eq!(receiver.ahead.as_ref().map(|ahead| ahead.step), Some(kept));
        assert_eq!(receiver.current.step, 0);
    }
    let genuine = sender.packet(b"t", b"x").unwrap();
    assert_eq!(receiver.payload(b"t", &genuine).unwrap(), b"x");
    sender.next = 1 << STEP_BITS;
    let next = sender.packet(b"t", b"y").unwrap();
    assert_eq!(receiver.payload(b"t", &next).unwrap(), b"y");
    assert_eq!((receiver.current.step, receiver.failures()), (1, 4));
    assert!(receiver.ahead.is_none());
}

#[test]
fn limits_are_counted() {
    let (mut sender, mut receiver) = pair(0);
    let mut forged = sender.packet(b"t", b"").unwrap();
    forged[OVERHEAD - 1] ^= 1;
    receiver.failures = LIMIT - 1;
    assert_eq!(receiver.payload(b"t", &forged), Err(Error::Authentication));
    let genuine = sender.packet(b"t", b"").unwrap();
    assert!(matches!(receiver.payload(b"t", &genuine), Err(Error::Limit(_))));
    sender.next = LIMIT - 1;
    while sender.ratchet.step < step_of(LIMIT - 1) {
        sender.ratchet = sender.ratchet.next().unwrap();
    }
    let last = sender.packet(b"t", b"").unwrap();
    assert!(matches!(sender.packet(b"t", b""), Err(Error::Limit(_))));

    let (_, mut receiver) = pair(0);
    while receiver.current.step < step_of(LIMIT - 1) {
        receiver.current = receiver.current.next().unwrap();
    }
    receiver.payload(b"t", &last).unwrap();
    let mut beyond = last.clone();
    beyond[5..8].copy_from_slice(&LIMIT.to_be_bytes()[1..]);
    assert!(matches!(receiver.payload(b"t", &beyond), Err(Error::Frame(_))));
    assert_eq!(receiver.failures(), 0, "no number of a packet at all");
}

#[test]
fn a_dropped_session_is_nowhere_in_memory_nor_are_its_steps_and_packets() {
    leaves_nothing(|| {
        let secret = Secret::random(SECRET_LEN).unwrap();
        let mut sender = Sender::new(ID, secret.as_ref()).unwrap();
        let mut receiver = Receiver::new(ID, secret.as_ref(), 0).unwrap();
        for number in [0, 1 << STEP_BITS] {
            sender.next = number;
            let (mut packet, mut payload) = ([0; OVERHEAD + 64], [0; 64]);
            wiping(|| sender.seal(b"topic", &[1; 64], &mut packet)).unwrap();
            wiping(|| receiver.open(b"topic", &packet, &mut payload)).unwrap();
        }
        let exposed = [sender.ratchet.expose(), receiver.current.expose()].concat();
        let masked = exposed.into_iter().map(Masked::of).collect();
        (masked, (sender, receiver))
    });
}

proptest! {
    /// The window against a set of all numbers that were ever accepted.
    #[test]
    fn the_window_is_a_set_with_a_moving_edge(
        size in 0u32..200,
        numbers in proptest::collection::vec((0u32..12, -300i64..80), 0..400),
    ) {
        let mut window = Window::new(size).unwrap();
        let (mut accepted, mut highest) = (HashSet::new(), -1i64);
        for (jump, offset) in numbers {
            // Mostly near the edge, now and then far beyond it.
            let far = if jump == 0 { 5000 } else { 0 };
            let number = (highest + offset + far).clamp(0, i64::from(LIMIT) - 1);
            let new = !accepted.contains(&number)
                && (number > highest || number > highest - i64::from(size));
            prop_assert_eq!(window.check(number as u32).is_ok(), new, "number {}", number);
            if new {
                window.accept(number as u32);
                accepted.insert(number);
                highest = highest.max(number);
            }
        }
        let told = window.told();
        for i in 0..i64::from(TOLD) {
            let bit = told[i as usize / 8] >> (i % 8) & 1 == 1;
            prop_assert_eq!(bit, accepted.contains(&(highest - i)), "{} below", i);
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let (_, mut receiver) = pair(16);
        prop_assert!(receiver.payload(b"t", &bytes).is_err());
    }
}

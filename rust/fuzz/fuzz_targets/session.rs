//! Packets of one session, in whatever order the input says: sealed, opened, bent, opened
//! under another topic, replayed, after gaps. Against a set of all numbers that were taken.
#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use pqc_iiot_core::session::{Receiver, Sender, LIMIT, OVERHEAD, SECRET_LEN};
use pqc_iiot_core::Error;

const SECRET: [u8; SECRET_LEN] = [7; SECRET_LEN];
const ID: [u8; 4] = [1; 4];
const STEP: u32 = 1 << 14;
/// Numbers that one input may pass over: enough for three steps of the ratchet.
const PASSED: u32 = 4 * STEP;

/// What must come out of opening a genuine packet.
struct Model {
    window: u32,
    taken: HashSet<u32>,
    next: u32,
    /// Steps whose keys are still there: the highest, and the one before it if that was in
    /// use and has numbers in the window.
    steps: Vec<u32>,
}

impl Model {
    fn takes(&self, number: u32) -> bool {
        let step = number / STEP;
        if number >= self.next {
            return step <= self.next.saturating_sub(1) / STEP + 2;
        }
        let new = number + self.window >= self.next && !self.taken.contains(&number);
        new && self.steps.contains(&step)
    }

    fn take(&mut self, number: u32) {
        self.taken.insert(number);
        self.next = self.next.max(number + 1);
        let (oldest, newest) = (self.next.saturating_sub(self.window), (self.next - 1) / STEP);
        self.steps.push(number / STEP);
        self.steps.retain(|&step| step == newest || (step + 1 == newest && oldest / STEP < newest));
    }
}

fuzz_target!(|input: &[u8]| {
    let [a, b, input @ ..] = input else { return };
    let window = u32::from(u16::from_be_bytes([*a, *b])) % 4097;
    let window = if window % 4 == 0 { 0 } else { window };
    let mut sender = Sender::new(ID, &SECRET).expect("a sender");
    let mut receiver = Receiver::new(ID, &SECRET, window).expect("a receiver");
    let mut model = Model { window, taken: HashSet::new(), next: 0, steps: vec![0] };
    let mut sent: HashMap<u32, [u8; OVERHEAD + 2]> = HashMap::new();
    let mut numbers = Vec::new();
    let (mut failures, mut passed) = (0, 0);
    for op in input.chunks_exact(3) {
        let argument = u16::from_be_bytes([op[1], op[2]]);
        let which = usize::from(argument);
        match op[0] % 6 {
            0 | 1 => {
                // Now and then a gap, up to a whole step.
                let gap = if op[0] % 6 == 0 { 0 } else { u32::from(argument) % (STEP + 1) };
                if passed + gap > PASSED {
                    continue;
                }
                passed += gap;
                let mut packet = [0; OVERHEAD + 2];
                for _ in 0..=gap {
                    sender.seal(b"t", &argument.to_be_bytes(), &mut packet).expect("numbers");
                }
                sent.insert(sender.sealed() - 1, packet);
                numbers.push((sender.sealed() - 1, argument));
            }
            2 | 3 if !numbers.is_empty() => {
                let near = numbers.len().min(1 + usize::from(op[0] / 6));
                let (number, payload) = numbers[numbers.len() - 1 - which % near];
                let mut out = [0; 2];
                let opened = receiver.open(b"t", &sent[&number], &mut out);
                assert_eq!(opened.is_ok(), model.takes(number), "{number}: {opened:?}");
                if opened.is_ok() {
                    assert_eq!(out, payload.to_be_bytes());
                    model.take(number);
                } else {
                    assert!(matches!(opened, Err(Error::Replay | Error::Frame(_))));
                }
            }
            4 | 5 if !numbers.is_empty() => {
                let (number, _) = numbers[which % numbers.len()];
                let mut packet = sent[&number];
                let at = which % (packet.len() + 1);
                match packet.get_mut(at) {
                    Some(byte) => *byte ^= 1 << (op[0] / 6 % 8),
                    None => packet.rotate_left(1 + usize::from(op[0]) % 20),
                }
                let topic: &[u8] = if packet == sent[&number] { b"u" } else { b"t" };
                let mut out = [9; 2];
                match receiver.open(topic, &packet, &mut out) {
                    Err(Error::Authentication) => {
                        failures += 1;
                        assert_eq!(out, [0; 2], "nothing unauthenticated is left there");
                    }
                    Err(Error::Replay | Error::Frame(_)) => assert_eq!(out, [9; 2]),
                    other => panic!("{other:?}"),
                }
            }
            _ => {
                let mut out = vec![0; input.len().saturating_sub(OVERHEAD)];
                assert!(receiver.open(b"t", input, &mut out).is_err() || input.len() < OVERHEAD);
                failures = receiver.failures();
            }
        }
        assert_eq!(receiver.failures(), failures);
        assert_eq!(receiver.opened() as usize, model.taken.len());
        assert_eq!(receiver.next(), model.next);
    }
    assert!(sender.sealed() < LIMIT);
    assert_eq!(receiver.oldest(), model.next.saturating_sub(window));
    for (i, byte) in (0..).step_by(8).zip(receiver.told()) {
        for bit in 0..8 {
            let seen =
                model.next.checked_sub(1 + i + bit).is_some_and(|n| model.taken.contains(&n));
            assert_eq!(byte >> bit & 1 == 1, seen, "{} below", i + bit);
        }
    }
});

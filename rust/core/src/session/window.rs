//! The replay window (as in RFC 4303 section 3.4.3): checked before a packet is opened,
//! moved only after it was found genuine. It also remembers what to tell the sender.

use crate::error::{Error, Result};

/// Largest window, in numbers.
const MOST: u32 = 4096;

/// How many of the last numbers the sender is told about.
pub const TOLD: u32 = 512;

/// Which of the last numbers were seen. A size of 0 is strict order: only a number above
/// the highest one is new.
pub struct Window {
    size: u32,
    /// One above the highest number seen; 0 at the start.
    next: u32,
    /// A power of two of words: bit `n % (64 * len)` for each number in the window, and for those that are told.
    seen: Vec<u64>,
}

impl Window {
    /// `size` is 0 to 4096.
    pub fn new(size: u32) -> Result<Self> {
        if size > MOST {
            return Err(Error::Parameter("the size of the replay window"));
        }
        // One word more than needed: the highest word is cleared while it is entered.
        let words = (size.max(TOLD) as usize / 64 + 2).next_power_of_two();
        Ok(Self { size, next: 0, seen: vec![0; words] })
    }

    fn place(&self, number: u32) -> (usize, u64) {
        ((number as usize / 64) & (self.seen.len() - 1), 1 << (number % 64))
    }

    /// One above the highest number seen.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The lowest number that can still be new.
    pub fn oldest(&self) -> u32 {
        self.next.saturating_sub(self.size)
    }

    /// [`Error::Replay`] unless `number` is new.
    pub fn check(&self, number: u32) -> Result<()> {
        if number >= self.next {
            return Ok(());
        }
        if number >= self.oldest() && !self.has(number) {
            Ok(())
        } else {
            Err(Error::Replay)
        }
    }

    fn has(&self, number: u32) -> bool {
        let (word, bit) = self.place(number);
        self.seen[word] & bit != 0
    }

    /// Marks a number that was checked and is genuine.
    #[inline]
    pub fn accept(&mut self, number: u32) {
        if number >= self.next {
            // Words entered for the first time hold numbers of a former round.
            let (first, last, words) = (self.next.div_ceil(64), number / 64, self.seen.len());
            if first <= last {
                let entered = (first..=last).take(words);
                entered.for_each(|word| self.seen[word as usize & (words - 1)] = 0);
            }
            self.next = number + 1;
        }
        let (word, bit) = self.place(number);
        self.seen[word] |= bit;
    }

    /// Bit `i` (little endian) tells whether the number `next - 1 - i` was seen.
    pub fn told(&self) -> [u8; TOLD as usize / 8] {
        let mut bits = [0; TOLD as usize / 8];
        for i in 0..TOLD.min(self.next) {
            bits[i as usize / 8] |= u8::from(self.has(self.next - 1 - i)) << (i % 8);
        }
        bits
    }
}

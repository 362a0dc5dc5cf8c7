//! The replay window (as in RFC 4303 section 3.4.3): checked before a packet is opened,
//! moved only after it was found genuine.

use crate::error::{Error, Result};

/// Largest window, in numbers.
const MOST: u32 = 4096;

/// Which of the last numbers were seen. A size of 0 is strict order: only a number above
/// the highest one is new.
pub struct Window {
    size: u32,
    /// One above the highest number seen; 0 at the start.
    next: u32,
    /// Bit `n % (64 * len)` for each number in the window.
    seen: Vec<u64>,
}

impl Window {
    /// `size` is 0 to 4096.
    pub fn new(size: u32) -> Result<Self> {
        if size > MOST {
            return Err(Error::Parameter("the size of the replay window"));
        }
        // One word more than needed: the highest word is cleared while it is entered.
        let words = if size == 0 { 0 } else { size as usize / 64 + 2 };
        Ok(Self { size, next: 0, seen: vec![0; words] })
    }

    fn place(&self, number: u32) -> (usize, u64) {
        (number as usize / 64 % self.seen.len().max(1), 1 << (number % 64))
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
        let (word, bit) = self.place(number);
        if number >= self.oldest() && self.size > 0 && self.seen[word] & bit == 0 {
            Ok(())
        } else {
            Err(Error::Replay)
        }
    }

    /// Marks a number that was checked and is genuine.
    pub fn accept(&mut self, number: u32) {
        if number >= self.next {
            if self.size > 0 {
                // Words entered for the first time hold numbers of a former round.
                let entered = (self.next.div_ceil(64)..=number / 64).take(self.seen.len());
                let words = self.seen.len();
                entered.for_each(|word| self.seen[word as usize % words] = 0);
            }
            self.next = number + 1;
        }
        if self.size > 0 {
            let (word, bit) = self.place(number);
            self.seen[word] |= bit;
        }
    }
}

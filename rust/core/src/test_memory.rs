//! Searches the memory of this process for what was a secret, through `/proc/self/mem`.

use std::fs;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc::channel;
use std::thread;

use crate::memory::SecretBytes;

const MASK: u8 = 0xa5;
const WINDOW: usize = 24;

/// Readable mappings of this process: start, end and the smaps flags.
pub(crate) fn mappings() -> Vec<(usize, usize, String)> {
    let mut out = Vec::new();
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some((start, end)) = words[0].split_once('-') {
            let parse = |text| usize::from_str_radix(text, 16).ok();
            if let (Some(start), Some(end)) = (parse(start), parse(end)) {
                out.push((start, end, String::new()));
            }
        } else if words[0] == "VmFlags:" {
            out.last_mut().unwrap().2 = words[1..].join(" ");
        }
    }
    out.retain(|(_, _, flags)| flags.split(' ').any(|flag| flag == "rd"));
    out
}

/// What a secret was, kept so that it is not itself a copy of the secret.
pub(crate) struct Masked(Vec<[u8; WINDOW]>);

impl Masked {
    pub(crate) fn of(secret: &[u8]) -> Self {
        Self::of_but(secret, &[])
    }

    /// Leaves out what is public.
    pub(crate) fn of_but(secret: &[u8], public: &[u8]) -> Self {
        let windows = secret.chunks_exact(WINDOW).step_by(1 + secret.len() / 4096);
        let windows = windows.filter(|window| {
            if public.windows(WINDOW).any(|candidate| candidate == *window) {
                return false;
            }
            let mut seen = [false; 256];
            window.iter().for_each(|&byte| seen[usize::from(byte)] = true);
            seen.iter().filter(|&&seen| seen).count() >= 16
        });
        Self(windows.map(|window| core::array::from_fn(|i| window[i] ^ MASK)).collect())
    }

    /// In how many places of the process's memory any window of the secret stands.
    pub(crate) fn count_in_memory(&self) -> usize {
        assert!(!self.0.is_empty());
        // The buffer is a mapping of its own that the search leaves out.
        let mut bytes = SecretBytes::zeroed(1 << 20).unwrap();
        let mut memory = fs::File::open("/proc/self/mem").unwrap();
        let mut first = [false; 256];
        self.0.iter().for_each(|window| first[usize::from(window[0] ^ MASK)] = true);
        let mut found = 0;
        for (start, end, _) in mappings() {
            if (start..end).contains(&(bytes.as_ptr() as usize)) {
                continue;
            }
            let mut at = start;
            while at < end {
                let want = bytes.len().min(end - at);
                memory.seek(SeekFrom::Start(at as u64)).unwrap();
                let Ok(got) = memory.read(&mut bytes[..want]) else { break };
                if got < WINDOW {
                    break;
                }
                for candidate in bytes[..got].windows(WINDOW) {
                    if first[usize::from(candidate[0])] {
                        let same = |window: &[u8; WINDOW]| {
                            window.iter().zip(candidate).all(|(a, b)| a ^ MASK == *b)
                        };
                        found += usize::from(self.0.iter().any(same));
                    }
                }
                // Windows that straddle two reads are seen in the next one.
                at += if got == want && at + got < end { got - WINDOW } else { got.max(want) };
            }
        }
        found
    }
}

/// Asserts that what `work` masked is in memory while its handles live and nowhere once
/// they are dropped. All of it happens on a stack of its own, which idles during the
/// search: a search on the same stack would overwrite what it looks for.
pub(crate) fn leaves_nothing<H>(work: impl FnOnce() -> (Vec<Masked>, H) + Send) {
    /// Keeps the stack of `work` out of the channels' reach.
    #[inline(never)]
    fn deeper<R>(work: impl FnOnce() -> R) -> R {
        let padding = [0u8; 8192];
        black_box(&padding);
        let result = work();
        black_box(&padding);
        result
    }

    let ((masked, masks), (proceed, wait)) = (channel(), channel());
    thread::scope(|scope| {
        scope.spawn(move || {
            let (list, handles) = deeper(work);
            masked.send(list).unwrap();
            wait.recv().unwrap();
            drop(handles);
            masked.send(Vec::new()).unwrap();
            wait.recv().unwrap();
        });
        let list = masks.recv().unwrap();
        let counts: Vec<_> = list.iter().map(Masked::count_in_memory).collect();
        assert!(counts.iter().all(|&count| count > 0), "found while in use: {counts:?}");
        proceed.send(()).unwrap();
        masks.recv().unwrap();
        let counts: Vec<_> = list.iter().map(Masked::count_in_memory).collect();
        proceed.send(()).unwrap();
        assert!(counts.iter().all(|&count| count == 0), "found after the drop: {counts:?}");
    });
}

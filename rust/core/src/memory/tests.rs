use std::fs;
use std::io::{Read, Seek, SeekFrom};

use super::*;
use crate::kem::{self, Kem};
use crate::password::{argon2id, Cost};
use crate::secret::Secret;
use crate::sig::{self, Sig};

const MASK: u8 = 0xa5;
const WINDOW: usize = 24;

/// Readable mappings of this process: start, end and the smaps flags.
fn mappings() -> Vec<(usize, usize, String)> {
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
struct Masked(Vec<[u8; WINDOW]>);

impl Masked {
    fn of(secret: &[u8]) -> Self {
        Self::of_but(secret, &[])
    }

    /// Leaves out what is public.
    fn of_but(secret: &[u8], public: &[u8]) -> Self {
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
    fn count_in_memory(&self) -> usize {
        assert!(!self.0.is_empty());
        let len = 1 << 20;
        // The buffer is a mapping of its own that the search leaves out.
        let mut stats = MemoryStats::default();
        let buffer = map(len, &mut stats).unwrap().0;
        // SAFETY: `map` gave `len` bytes that nobody else has.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
        let mut memory = fs::File::open("/proc/self/mem").unwrap();
        let mut first = [false; 256];
        self.0.iter().for_each(|window| first[usize::from(window[0] ^ MASK)] = true);
        let mut found = 0;
        for (start, end, _) in mappings() {
            if (start..end).contains(&(buffer as usize)) {
                continue;
            }
            let mut at = start;
            while at < end {
                let want = len.min(end - at);
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
        bytes.zeroize();
        // SAFETY: `map` put a guard page on each side.
        unsafe { libc::munmap(buffer.sub(page()).cast(), len + 2 * page()) };
        found
    }
}

fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: only used on types without padding that matters; read-only.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

#[test]
fn the_search_finds_what_is_there() {
    let mut secret = vec![0u8; 64];
    crate::rng::fill(&mut secret).unwrap();
    let masked = Masked::of(&secret);
    assert!(masked.count_in_memory() >= 1);
    secret.zeroize();
    assert_eq!(masked.count_in_memory(), 0);
}

#[test]
fn dropped_secrets_are_nowhere() {
    let secret = Secret::random(64).unwrap();
    let derived = secret.derive(b"purpose").unwrap();
    let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
    let from_passphrase = argon2id(&secret, &[1; 16], cost).unwrap();
    let masked: Vec<_> =
        [&secret, &derived, &from_passphrase].map(|s| Masked::of(s.as_ref())).into();
    secret.mac(b"used");
    let blob = derived.wrap(b"", &secret).unwrap();
    derived.unwrap(b"", &blob).unwrap();
    masked.iter().for_each(|m| assert!(m.count_in_memory() >= 1));
    drop((secret, derived, from_passphrase));
    masked.iter().for_each(|m| assert_eq!(m.count_in_memory(), 0));
}

#[test]
fn dropped_kem_keys_and_shared_secrets_are_nowhere() {
    for kem in Kem::ALL {
        let key = kem::PrivateKey::generate(kem).unwrap();
        let mut masked = vec![Masked::of(key.seed())];
        key.expose(|part| masked.push(Masked::of(part)));
        assert!(masked.len() >= 2);
        let public = kem::PublicKey::new(kem, key.public_key()).unwrap();
        let (ciphertext, secret) = public.encapsulate().unwrap();
        assert!(key.decapsulate(&ciphertext).unwrap() == secret);
        masked.push(Masked::of(&secret[..]));
        let kek = Secret::random(32).unwrap();
        kek.unwrap_kem(b"", kem, &kek.wrap_kem(b"", &key).unwrap()).unwrap();
        for m in &masked {
            assert!(m.count_in_memory() >= 1, "{kem:?}");
        }
        drop((key, secret));
        for (i, m) in masked.iter().enumerate() {
            assert_eq!(m.count_in_memory(), 0, "{kem:?}, part {i}");
        }
    }
}

#[test]
fn dropped_signing_keys_are_nowhere() {
    for sig in Sig::ALL {
        let key = sig::SigningKey::generate(sig).unwrap();
        let mut masked = vec![Masked::of(key.encoded())];
        key.sign(b"message").unwrap();
        key.expose(|part| masked.push(Masked::of_but(part, key.public_key())));
        let kek = Secret::random(32).unwrap();
        kek.unwrap_sig(b"", sig, &kek.wrap_sig(b"", &key).unwrap()).unwrap();
        for m in &masked {
            assert!(m.count_in_memory() >= 1, "{sig:?}");
        }
        drop(key);
        for (i, m) in masked.iter().enumerate() {
            assert_eq!(m.count_in_memory(), 0, "{sig:?}, part {i}");
        }
    }
}

#[test]
fn mappings_are_locked_and_left_out_of_core_dumps() {
    let small = SecretBytes::zeroed(40).unwrap();
    let large = SecretBytes::zeroed(100_000).unwrap();
    for address in [small.data.as_ptr() as usize, large.data.as_ptr() as usize] {
        let all = mappings();
        let (start, end, flags) =
            all.iter().find(|(start, end, _)| (*start..*end).contains(&address)).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "dd"), "not in core dumps: {flags}");
        assert!(flags.split(' ').any(|flag| flag == "lo") || stats().lock_failures > 0);
        // Guard pages: nothing readable ends or starts right beside it.
        assert!(all.iter().all(|(s, e, _)| e != start && s != end));
    }
}

#[test]
fn small_and_large_memory_is_reused_and_counted() {
    let before = stats();
    let large = SecretBytes::zeroed(3 * REGION).unwrap();
    let during = stats();
    assert!(during.locked + during.unlocked >= before.locked + before.unlocked + 3 * REGION);
    assert!(large.iter().all(|&byte| byte == 0));
    drop(large);
    for round in 0..10_000u32 {
        let mut small = SecretBytes::zeroed(1 + round as usize % 4096).unwrap();
        assert!(small.iter().all(|&byte| byte == 0), "wiped before reuse");
        small.fill(0xff);
    }
}

#[test]
fn locked_values_are_aligned() {
    #[repr(align(32))]
    struct Aligned([u8; 32]);
    for _ in 0..100 {
        let value = Locked::new(Aligned([7; 32])).unwrap();
        assert_eq!(bytes_of(&*value).as_ptr() as usize % 32, 0);
        assert_eq!(value.0, [7; 32]);
    }
}

use zeroize::Zeroize;

use super::*;
use crate::kem::{self, Kem};
use crate::password::{argon2id, Cost};
use crate::secret::Secret;
use crate::sig::{self, Sig};
use crate::test_memory::{leaves_nothing, mappings, Masked};

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
    leaves_nothing(|| {
        let secret = Secret::random(64).unwrap();
        let derived = secret.derive(b"purpose").unwrap();
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let from_passphrase = argon2id(&secret, &[1; 16], cost).unwrap();
        secret.mac(b"used");
        let blob = derived.wrap(b"", &secret).unwrap();
        let unwrapped = derived.unwrap(b"", &blob).unwrap();
        assert!(Secret::random(16).unwrap().wrap(b"", &secret).is_err());
        let secrets = [secret, derived, from_passphrase];
        (secrets.iter().map(|secret| Masked::of(secret.as_ref())).collect(), (secrets, unwrapped))
    });
}

#[test]
fn dropped_kem_keys_and_shared_secrets_are_nowhere() {
    for kem in Kem::ALL {
        leaves_nothing(|| {
            let key = kem::PrivateKey::generate(kem).unwrap();
            let public = kem::PublicKey::new(kem, key.public_key()).unwrap();
            let (ciphertext, secret) = public.encapsulate().unwrap();
            assert!(key.decapsulate(&ciphertext).unwrap() == secret);
            let kek = Secret::random(32).unwrap();
            let again = kek.unwrap_kem(b"", kem, &kek.wrap_kem(b"", &key).unwrap()).unwrap();
            let mut masked = vec![Masked::of(key.seed()), Masked::of(&secret)];
            key.expose(|part| masked.push(Masked::of(part)));
            assert!(masked.len() >= 3);
            (masked, (key, again, secret))
        });
    }
}

#[test]
fn dropped_signing_keys_are_nowhere() {
    for sig in Sig::ALL {
        leaves_nothing(|| {
            let key = sig::SigningKey::generate(sig).unwrap();
            key.sign(b"message").unwrap();
            let kek = Secret::random(32).unwrap();
            let again = kek.unwrap_sig(b"", sig, &kek.wrap_sig(b"", &key).unwrap()).unwrap();
            let mut masked = vec![Masked::of(key.encoded())];
            let mut copies = Vec::new();
            key.expose(|part| {
                masked.push(Masked::of_but(part, key.public_key()));
                copies.push(SecretBytes::copy_from(part).unwrap());
            });
            (masked, (key, again, copies))
        });
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
fn memory_is_counted_and_used_again() {
    let mut arena = Arena::new();
    let total = |arena: &Arena| arena.stats.locked + arena.stats.unlocked;
    for size in [0, 1, 32, 33, 4096] {
        let data = arena.allocate(size).unwrap();
        let before = total(&arena);
        // SAFETY: allocated above, never written.
        unsafe { arena.release(data, size) };
        assert_eq!(arena.allocate(size).unwrap(), data);
        assert_eq!(total(&arena), before, "small memory is kept");
    }
    assert_eq!(total(&arena), 3 * REGION, "classes of 32, 64 and 4096 bytes");
    for size in [4097, 3 * REGION] {
        let before = total(&arena);
        let data = arena.allocate(size).unwrap();
        assert_eq!(total(&arena), before + size.next_multiple_of(page()));
        // SAFETY: allocated above, never written.
        unsafe { arena.release(data, size) };
        assert_eq!(total(&arena), before, "large memory goes back");
    }
    for size in [MOST + 1, usize::MAX - 1, usize::MAX] {
        assert!(arena.allocate(size).is_err());
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

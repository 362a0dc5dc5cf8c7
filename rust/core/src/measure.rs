//! Timings of primitives inside the core, for benchmarks that compare what Python sees
//! with what the primitive costs. Keys and inputs are made here; nothing comes out but
//! nanoseconds.

use std::hint::black_box;
use std::time::Instant;

use crate::aead::Aead;
use crate::error::{Error, Result};
use crate::hash::shake256;
use crate::kem::{Kem, PrivateKey, PublicKey};
use crate::session::key::PacketKey;
use crate::sig::{Sig, SigningKey, VerifyingKey};

type Operation = Box<dyn FnMut() -> Result<()>>;

/// The operations that [`measure`] knows.
pub const OPERATIONS: [&str; 11] = [
    "AES-256-GCM seal 64",
    "AES-256-GCM open 64",
    "AES-256-GCM seal 64, key expanded",
    "AES-256-GCM open 64, key expanded",
    "MLKEM768-X25519 generate",
    "MLKEM768-X25519 encapsulate",
    "MLKEM768-X25519 decapsulate",
    "Falcon-512 sign",
    "Falcon-512 verify",
    "ML-KEM-768 encapsulate",
    "SHAKE256 128",
];

/// Packets in a batch.
const BATCH: usize = 256;

/// Nanoseconds per call of `operation`: `samples` figures, each the mean of `calls`.
pub fn measure(operation: &str, samples: usize, calls: u32) -> Result<Vec<f64>> {
    let mut run = prepare(operation)?;
    for _ in 0..calls {
        run()?;
    }
    (0..samples)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                run()?;
            }
            Ok(start.elapsed().as_nanos() as f64 / f64::from(calls.max(1)))
        })
        .collect()
}

fn x_wing_key() -> Result<PrivateKey> {
    PrivateKey::generate(Kem::MlKem768X25519)
}

fn prepare(operation: &str) -> Result<Operation> {
    let message = [0x5a; 64];
    let x_wing = || -> Result<(PrivateKey, PublicKey)> {
        let private = x_wing_key()?;
        let public = PublicKey::new(Kem::MlKem768X25519, private.public_key())?;
        Ok((private, public))
    };
    Ok(match operation {
        "AES-256-GCM seal 64" => Box::new(move || {
            black_box(Aead::Aes256Gcm.seal(&[7; 32], [1; 12], &[2; 64], black_box(&message))?);
            Ok(())
        }),
        "AES-256-GCM open 64" => {
            let sealed = Aead::Aes256Gcm.seal(&[7; 32], [1; 12], &[2; 64], &message)?;
            Box::new(move || {
                let mut data = sealed.clone();
                black_box(Aead::Aes256Gcm.open_in_place(&[7; 32], [1; 12], &[2; 64], &mut data)?);
                Ok(())
            })
        }
        // As many packets as a batch has, each in memory of its own, and associated data as
        // long as a topic.
        "AES-256-GCM seal 64, key expanded" => {
            let key = PacketKey::new(&[7; 32])?;
            let (messages, mut out) = (vec![message; BATCH], vec![[0; 80]; BATCH]);
            let mut at = 0;
            Box::new(move || {
                at = (at + 1) % BATCH;
                key.seal_into(&[1; 12], &[2; 24], black_box(&messages[at]), &mut out[at])?;
                black_box(&out[at]);
                Ok(())
            })
        }
        "AES-256-GCM open 64, key expanded" => {
            let key = PacketKey::new(&[7; 32])?;
            let (mut sealed, mut out) = (vec![[0; 80]; BATCH], vec![[0; 64]; BATCH]);
            for packet in &mut sealed {
                key.seal_into(&[1; 12], &[2; 24], &message, packet)?;
            }
            let mut at = 0;
            Box::new(move || {
                at = (at + 1) % BATCH;
                key.open_into(&[1; 12], &[2; 24], black_box(&sealed[at]), &mut out[at])?;
                black_box(&out[at]);
                Ok(())
            })
        }
        "MLKEM768-X25519 generate" => Box::new(|| x_wing_key().map(|key| drop(black_box(key)))),
        "MLKEM768-X25519 encapsulate" => {
            let (_, public) = x_wing()?;
            Box::new(move || public.encapsulate().map(|out| drop(black_box(out))))
        }
        "MLKEM768-X25519 decapsulate" => {
            let (private, public) = x_wing()?;
            let (ciphertext, _) = public.encapsulate()?;
            Box::new(move || private.decapsulate(&ciphertext).map(|out| drop(black_box(out))))
        }
        "ML-KEM-768 encapsulate" => {
            let private = PrivateKey::generate(Kem::MlKem768)?;
            let public = PublicKey::new(Kem::MlKem768, private.public_key())?;
            Box::new(move || public.encapsulate().map(|out| drop(black_box(out))))
        }
        "Falcon-512 sign" => {
            let key = SigningKey::generate(Sig::Falcon512)?;
            Box::new(move || key.sign(black_box(&message)).map(|out| drop(black_box(out))))
        }
        "Falcon-512 verify" => {
            let private = SigningKey::generate(Sig::Falcon512)?;
            let public = VerifyingKey::new(Sig::Falcon512, private.public_key())?;
            let signature = private.sign(&message)?;
            Box::new(move || {
                if public.verify(black_box(&message), &signature) {
                    Ok(())
                } else {
                    Err(Error::Authentication)
                }
            })
        }
        "SHAKE256 128" => Box::new(move || {
            let mut out = [0; 108];
            shake256(black_box(&[3; 128]), &mut out);
            black_box(out);
            Ok(())
        }),
        _ => return Err(Error::Parameter("the operation to measure")),
    })
}

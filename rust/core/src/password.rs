//! Argon2id (RFC 9106): a key-encryption key from a passphrase.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::memory::{burning, SecretBytes};
use crate::secret::Secret;

/// Argon2id's costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB, 8 to 1,048,576 (1 GiB): a hostile key file cannot ask for more.
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 64.
    pub passes: u32,
    /// Lanes, 1 to 16.
    pub lanes: u32,
}

/// A 32-byte key from `passphrase` and `salt` (16 bytes or more).
pub fn argon2id(passphrase: &Secret, salt: &[u8], cost: Cost) -> Result<Secret> {
    const RANGE: Error = Error::Parameter("an Argon2id cost");
    let in_range = (8..=1_048_576).contains(&cost.memory_kib)
        && (1..=64).contains(&cost.passes)
        && (1..=16).contains(&cost.lanes);
    if !in_range {
        return Err(RANGE);
    }
    if !(16..=64).contains(&salt.len()) {
        return Err(Error::Parameter("the Argon2id salt's length"));
    }
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| RANGE)?;
    // The default allocation aborts the process where memory runs out.
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|_| Error::System("allocating Argon2id's memory"))?;
    memory.resize(params.block_count(), Block::default());
    let mut key = SecretBytes::zeroed(32)?;
    let result = burning::<{ 16 * 1024 }, _>(|| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase.as_ref(), salt, &mut key, &mut memory)
            .map_err(|_| Error::Parameter("the passphrase's length"))
    });
    memory.iter_mut().for_each(Zeroize::zeroize);
    result.map(|()| Secret::from(key))
}

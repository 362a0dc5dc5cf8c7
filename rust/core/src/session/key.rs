//! An AES-256-GCM key, expanded once for many packets, in secret memory.
//!
//! `aws_lc_rs` keeps expanded keys on the heap, where they are wiped but not locked; setting
//! one up for every packet takes longer than the packet. So the library's context lives in
//! memory of ours.

use core::ptr;

use aws_lc_sys::{
    EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather, EVP_AEAD_CTX_seal_scatter,
    EVP_AEAD_CTX_zero, EVP_aead_aes_256_gcm, EVP_AEAD_CTX,
};

use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::error::{exact, Error, Result};
use crate::memory::Locked;

const KEY_LEN: usize = 32;

/// The library's context. It must not move once it is set up: its state is found by its
/// address.
struct Context(EVP_AEAD_CTX);

// SAFETY: the library's contexts have no thread affinity; sealing and opening take them as
// const and are safe from many threads at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: set up or zeroed by the library, and not used afterwards.
        unsafe { EVP_AEAD_CTX_cleanup(&mut self.0) };
    }
}

/// A key ready for use.
pub(crate) struct PacketKey(Locked<Context>);

impl PacketKey {
    /// `key` has 32 bytes. Leaves traces on the stack; see [`crate::memory::burning`].
    pub(crate) fn new(key: &[u8]) -> Result<Self> {
        exact("the AEAD key", key, KEY_LEN)?;
        let mut zeroed = core::mem::MaybeUninit::<EVP_AEAD_CTX>::zeroed();
        // SAFETY: the library writes a whole, unset context: plain bytes and null pointers,
        // which may still move.
        let unset = unsafe {
            EVP_AEAD_CTX_zero(zeroed.as_mut_ptr());
            zeroed.assume_init()
        };
        let mut context = Locked::new(Context(unset))?;
        // SAFETY: an unset context at its final place, and a key of the length given; the
        // tag length is this AEAD's own.
        let done = unsafe {
            EVP_AEAD_CTX_init(
                &mut context.0,
                EVP_aead_aes_256_gcm(),
                key.as_ptr(),
                KEY_LEN,
                TAG_LEN,
                ptr::null_mut(),
            )
        };
        if done == 1 {
            Ok(Self(context))
        } else {
            Err(Error::System("setting up a packet key"))
        }
    }

    /// The expanded key, for the test that searches memory for it.
    #[cfg(test)]
    pub(super) fn expose(&self) -> &[u8] {
        // SAFETY: the context is plain bytes, all of them set when it was zeroed.
        unsafe {
            core::slice::from_raw_parts(
                (&raw const *self.0).cast::<u8>(),
                core::mem::size_of::<Context>(),
            )
        }
    }

    /// Encrypts `plaintext` into `out`: ciphertext and tag.
    pub(crate) fn seal_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        exact("the ciphertext", out, plaintext.len() + TAG_LEN)?;
        let (text, tag) = out.split_at_mut(plaintext.len());
        let mut tag_len = 0;
        // SAFETY: every pointer comes with its slice's length; `text` is as long as the
        // plaintext, which it does not overlap, and `tag` has room for the tag.
        let done = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                &self.0 .0,
                text.as_mut_ptr(),
                tag.as_mut_ptr(),
                &mut tag_len,
                tag.len(),
                nonce.as_ptr(),
                NONCE_LEN,
                plaintext.as_ptr(),
                plaintext.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done == 1 && tag_len == TAG_LEN {
            Ok(())
        } else {
            Err(Error::Parameter("the plaintext's length"))
        }
    }

    /// Decrypts `sealed`, ciphertext and tag, into `out`, which is zeroed where it fails.
    pub(crate) fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        exact("the ciphertext", sealed, out.len() + TAG_LEN)?;
        let (text, tag) = sealed.split_at(out.len());
        // SAFETY: every pointer comes with its slice's length; `out` is as long as the
        // ciphertext, which it does not overlap.
        let done = unsafe {
            EVP_AEAD_CTX_open_gather(
                &self.0 .0,
                out.as_mut_ptr(),
                nonce.as_ptr(),
                NONCE_LEN,
                text.as_ptr(),
                text.len(),
                tag.as_ptr(),
                TAG_LEN,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done == 1 {
            Ok(())
        } else {
            out.fill(0);
            Err(Error::Authentication)
        }
    }
}

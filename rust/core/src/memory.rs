//! Memory for secrets: locked in RAM, left out of core dumps, between guard pages,
//! wiped before it is given back.
//!
//! Small secrets share locked regions (size classes of 32 to 4096 bytes, two for each
//! power of two), larger ones
//! get a mapping of their own. Where the kernel refuses to lock (`RLIMIT_MEMLOCK`),
//! the memory is used all the same and counted in [`stats`]: a device must not stop
//! because of a limit, but its operator must see it.

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::{optimization_barrier, zeroize_stack};

use crate::error::{Error, Result};

const REGION: usize = 64 * 1024;
const SMALLEST: usize = 32;
const LARGEST: usize = 4096;
/// Far more than any secret; a bound that no arithmetic here can overflow.
const MOST: usize = 1 << 30;
/// Multiples of [`SMALLEST`], which every secret is aligned to.
const CLASSES: [usize; 14] =
    [SMALLEST, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, LARGEST];

/// What the secret memory of this process looks like now, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Mapped and locked in RAM.
    pub locked: usize,
    /// Mapped, but the kernel refused to lock it (see `RLIMIT_MEMLOCK`).
    pub unlocked: usize,
    /// How often locking was refused since the process started.
    pub lock_failures: u64,
}

struct Arena {
    free: [Vec<NonNull<u8>>; CLASSES.len()],
    /// Mappings of their own that the kernel refused to lock.
    unlocked: Vec<NonNull<u8>>,
    stats: MemoryStats,
}

// SAFETY: the pointers are to memory that the arena alone owns and never reads through.
unsafe impl Send for Arena {}

static ARENA: Mutex<Arena> = Mutex::new(Arena::new());

fn arena() -> MutexGuard<'static, Arena> {
    // Nothing under the lock can leave the arena half-changed, so poison means nothing.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes locked, not locked, and how often locking failed.
pub fn stats() -> MemoryStats {
    arena().stats
}

impl Arena {
    const fn new() -> Self {
        Self {
            free: [const { Vec::new() }; CLASSES.len()],
            unlocked: Vec::new(),
            stats: MemoryStats { locked: 0, unlocked: 0, lock_failures: 0 },
        }
    }

    fn allocate(&mut self, size: usize) -> Result<NonNull<u8>> {
        let Some(class) = class_of(size) else {
            let len = own_mapping_len(size)?;
            let (data, locked) = map(len)?;
            if !locked {
                self.unlocked.push(data);
            }
            self.count(len, locked);
            return Ok(data);
        };
        if let Some(data) = self.free[class].pop() {
            return Ok(data);
        }
        let (region, locked) = map(REGION)?;
        self.count(REGION, locked);
        let step = CLASSES[class];
        // SAFETY: `step` bytes from every offset lie inside the REGION bytes just mapped.
        let rest = (step..=REGION - step).step_by(step).map(|at| unsafe { region.add(at) });
        self.free[class].extend(rest);
        Ok(region)
    }

    fn count(&mut self, len: usize, locked: bool) {
        if locked {
            self.stats.locked += len;
        } else {
            self.stats.unlocked += len;
            self.stats.lock_failures += 1;
        }
    }

    /// # Safety
    /// `data` must come from `allocate(size)` of this arena, be wiped and not be used
    /// afterwards.
    unsafe fn release(&mut self, data: NonNull<u8>, size: usize) {
        if let Some(class) = class_of(size) {
            return self.free[class].push(data);
        }
        let Ok(len) = own_mapping_len(size) else { return };
        // SAFETY: `map` made this mapping, and its guard pages, for `allocate(size)`.
        unsafe { libc::munmap(data.as_ptr().sub(page()).cast(), len + 2 * page()) };
        match self.unlocked.iter().position(|&other| other == data) {
            Some(at) => {
                self.unlocked.swap_remove(at);
                self.stats.unlocked -= len;
            }
            None => self.stats.locked -= len,
        }
    }
}

fn page() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn class_of(size: usize) -> Option<usize> {
    CLASSES.iter().position(|&class| size <= class)
}

fn own_mapping_len(size: usize) -> Result<usize> {
    if size > MOST {
        return Err(Error::Parameter("the size of a secret"));
    }
    Ok(size.next_multiple_of(page()))
}

/// A mapping of `len` usable bytes (a multiple of the page) between two guard pages, and
/// whether it is locked in RAM.
fn map(len: usize) -> Result<(NonNull<u8>, bool)> {
    const FAILED: Error = Error::System("mapping memory for secrets");
    let whole = len + 2 * page();
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no
    // existing memory; the result is checked before use.
    let base = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0)
    };
    if base == libc::MAP_FAILED {
        return Err(FAILED);
    }
    // SAFETY: the usable bytes start one guard page into the mapping made above and are
    // page-aligned; after munmap nothing of it is used.
    unsafe {
        let data = base.cast::<u8>().add(page());
        if libc::mprotect(data.cast(), len, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            libc::munmap(base, whole);
            return Err(FAILED);
        }
        // Advice only: a kernel without it still runs, and the test reads smaps.
        libc::madvise(data.cast(), len, libc::MADV_DONTDUMP);
        let locked = libc::mlock(data.cast(), len) == 0;
        NonNull::new(data).map(|data| (data, locked)).ok_or(FAILED)
    }
}

fn allocate(size: usize) -> Result<NonNull<u8>> {
    arena().allocate(size)
}

/// # Safety
/// `data` must come from `allocate(size)` and not be used afterwards.
unsafe fn release(data: NonNull<u8>, size: usize) {
    // SAFETY: the caller owns `size` bytes at `data`; after the wipe nobody uses them.
    unsafe {
        ptr::write_bytes(data.as_ptr(), 0, size);
        optimization_barrier(slice::from_raw_parts(data.as_ptr(), size));
        arena().release(data, size);
    }
}

/// A value that lives in secret memory from its construction to its drop.
pub struct Locked<T> {
    data: NonNull<T>,
}

// SAFETY: Locked owns its value exactly as a Box does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above; shared access gives only &T.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Moves `value` into secret memory. The caller wipes what the move left behind
    /// (see [`burning`]).
    pub fn new(value: T) -> Result<Self> {
        const { assert!(align_of::<T>() <= SMALLEST && size_of::<T>() > 0) };
        let data = allocate(size_of::<T>())?.cast::<T>();
        // SAFETY: `allocate` gave at least size_of::<T>() bytes that nobody else uses,
        // aligned to 32 bytes or more (size classes and pages both are).
        unsafe { data.as_ptr().write(value) };
        Ok(Self { data })
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: written in `new`, valid until drop, borrowed as self is.
        unsafe { self.data.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in deref, and &mut self makes the access unique.
        unsafe { self.data.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value was written in `new` and is dropped once; the memory came
        // from `allocate(size_of::<T>())` and is not used afterwards.
        unsafe {
            ptr::drop_in_place(self.data.as_ptr());
            release(self.data.cast(), size_of::<T>());
        }
    }
}

/// Secret bytes of a length known at run time, in secret memory.
pub struct SecretBytes {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: SecretBytes owns its bytes exactly as a Box<[u8]> does.
unsafe impl Send for SecretBytes {}
// SAFETY: as above; shared access gives only &[u8].
unsafe impl Sync for SecretBytes {}

impl SecretBytes {
    /// `len` zero bytes, to be filled in place so that no other copy ever exists.
    pub fn zeroed(len: usize) -> Result<Self> {
        let data = allocate(len)?;
        // SAFETY: `allocate` gave at least `len` writable bytes.
        unsafe { ptr::write_bytes(data.as_ptr(), 0, len) };
        Ok(Self { data, len })
    }

    /// A copy of `bytes`; wiping the original is the caller's job.
    pub fn copy_from(bytes: &[u8]) -> Result<Self> {
        let mut secret = Self::zeroed(bytes.len())?;
        secret.copy_from_slice(bytes);
        Ok(secret)
    }
}

impl Deref for SecretBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes were initialised in `zeroed`.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and &mut self makes the access unique.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this length and not used afterwards.
        unsafe { release(self.data, self.len) };
    }
}

/// Runs `work` in a frame of its own and then overwrites the `N` bytes of stack that it
/// had below this one: libraries that do not wipe their locals, and every value that was
/// moved, leave secrets there.
#[inline(never)]
pub fn burning<const N: usize, R>(work: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn call<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    let result = call(work);
    zeroize_stack::<N>();
    result
}

#[cfg(test)]
mod tests;

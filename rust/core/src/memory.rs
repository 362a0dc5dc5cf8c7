//! Memory for secrets: locked in RAM, left out of core dumps, between guard pages,
//! wiped before it is given back.
//!
//! Small secrets share locked regions (size classes of 32 to 4096 bytes), larger ones
//! get a mapping of their own. Where the kernel refuses to lock (`RLIMIT_MEMLOCK`),
//! the memory is used all the same and counted in [`stats`]: a device must not stop
//! because of a limit, but its operator must see it.

use std::alloc::Layout;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use crate::error::{Error, Result};

const REGION: usize = 64 * 1024;
const SMALLEST: usize = 32;
const LARGEST: usize = 4096;
const CLASSES: usize = (LARGEST / SMALLEST).trailing_zeros() as usize + 1;

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
    free: [Vec<usize>; CLASSES],
    /// Mappings of their own that the kernel refused to lock, by address.
    unlocked: Vec<usize>,
    stats: MemoryStats,
}

static ARENA: Mutex<Arena> = Mutex::new(Arena {
    free: [const { Vec::new() }; CLASSES],
    unlocked: Vec::new(),
    stats: MemoryStats { locked: 0, unlocked: 0, lock_failures: 0 },
});

fn arena() -> MutexGuard<'static, Arena> {
    // Nothing under the lock can leave the arena half-changed, so poison means nothing.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes locked, not locked, and how often locking failed.
pub fn stats() -> MemoryStats {
    arena().stats
}

fn page() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A mapping of `len` usable bytes (a multiple of the page) between two guard pages.
fn map(len: usize, stats: &mut MemoryStats) -> Result<(*mut u8, bool)> {
    let guard = page();
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no
    // existing memory; the result is checked before use.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len + 2 * guard,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(Error::System("mapping memory for secrets"));
    }
    // SAFETY: base..base+len+2*guard was mapped above, so base+guard is inside it.
    let data = unsafe { base.cast::<u8>().add(guard) };
    // SAFETY: data..data+len lies inside the mapping made above and is page-aligned.
    let locked = unsafe {
        if libc::mprotect(data.cast(), len, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            libc::munmap(base, len + 2 * guard);
            return Err(Error::System("making memory for secrets usable"));
        }
        // Advice only: a kernel without it still runs, and the test reads smaps.
        libc::madvise(data.cast(), len, libc::MADV_DONTDUMP);
        libc::mlock(data.cast(), len) == 0
    };
    if locked {
        stats.locked += len;
    } else {
        stats.unlocked += len;
        stats.lock_failures += 1;
    }
    Ok((data, locked))
}

fn class_of(size: usize) -> Option<usize> {
    let size = size.max(SMALLEST).next_power_of_two();
    (size <= LARGEST).then(|| (size / SMALLEST).trailing_zeros() as usize)
}

fn own_mapping_len(size: usize) -> usize {
    size.div_ceil(page()) * page()
}

fn allocate(size: usize) -> Result<NonNull<u8>> {
    let mut arena = arena();
    let address = match class_of(size) {
        Some(class) => {
            if arena.free[class].is_empty() {
                let region = map(REGION, &mut arena.stats)?.0 as usize;
                let step = SMALLEST << class;
                arena.free[class].extend((region..region + REGION).step_by(step));
            }
            arena.free[class].pop().unwrap_or(0) as *mut u8
        }
        None => {
            let (data, locked) = map(own_mapping_len(size), &mut arena.stats)?;
            if !locked {
                arena.unlocked.push(data as usize);
            }
            data
        }
    };
    NonNull::new(address).ok_or(Error::System("allocating memory for secrets"))
}

/// # Safety
/// `data` must come from `allocate(size)` and not be used afterwards.
unsafe fn release(data: NonNull<u8>, size: usize) {
    // SAFETY: the caller owns `size` bytes at `data`; a volatile wipe stays inside them.
    unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), size).zeroize() };
    let mut arena = arena();
    match class_of(size) {
        Some(class) => arena.free[class].push(data.as_ptr() as usize),
        None => {
            let (len, guard) = (own_mapping_len(size), page());
            // SAFETY: `map` made this mapping with `guard` bytes on each side.
            unsafe { libc::munmap(data.as_ptr().sub(guard).cast(), len + 2 * guard) };
            let address = data.as_ptr() as usize;
            match arena.unlocked.iter().position(|&other| other == address) {
                Some(at) => {
                    arena.unlocked.swap_remove(at);
                    arena.stats.unlocked -= len;
                }
                None => arena.stats.locked -= len,
            }
        }
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
        let layout = Layout::new::<T>();
        debug_assert!(layout.align() <= SMALLEST && layout.size() > 0);
        let data = allocate(layout.size())?.cast::<T>();
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
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
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
    #[inline(never)]
    fn burn<const N: usize>() {
        let mut dead = [0u8; N];
        dead.zeroize();
        std::hint::black_box(&mut dead);
    }
    let result = call(work);
    burn::<N>();
    result
}

#[cfg(test)]
mod tests;

//! Buffers that direct I/O accepts, and a pool that keeps a bounded number of them.
//!
//! Fresh pages are the dearest thing on some machines, so read and staging buffers are reused. The pool bounds what
//! it *keeps*, not what is lent out: callers bound that with their own byte budgets. Bytes of a buffer from the pool
//! are whatever its last user left there, never uninitialised memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// What direct I/O wants: offsets, lengths and addresses are multiples of this.
pub const ALIGNMENT: usize = 4096;

/// Capacities the pool keeps: payload sizes in use plus room for a chunk's head in front (16 KiB).
const CLASSES: [usize; 8] = [
    16 << 10,
    (64 << 10) + (16 << 10),
    (128 << 10) + (16 << 10),
    (256 << 10) + (16 << 10),
    (1 << 20) + (16 << 10),
    (2 << 20) + (16 << 10),
    (4 << 20) + (16 << 10),
    (8 << 20) + (16 << 10),
];

/// Owned, zero-initialised memory aligned to [`ALIGNMENT`].
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: `Memory` owns its allocation exclusively, like a `Box<[u8]>`; nothing in it is tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(ALIGNMENT);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        // Only a capacity near `isize::MAX` fails, for which there is no memory either.
        Layout::from_size_align(capacity, ALIGNMENT).unwrap_or_else(|_| handle_alloc_error(Layout::new::<u8>()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// A buffer whose start is aligned to [`ALIGNMENT`] and whose capacity is a multiple of it. Returns to its pool, if
/// it came from one, when dropped.
pub struct AlignedBuf {
    memory: Option<Memory>,
    len: usize,
    pool: Option<Arc<Shelves>>,
}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes that belongs to no pool.
    pub fn zeroed(len: usize) -> Self {
        Self { memory: Some(Memory::new(len)), len, pool: None }
    }

    /// Shortens the buffer to `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The buffer as shared bytes, without copying. The memory goes back to its pool when the last of them is gone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: `len` never exceeds the capacity, all of which was initialised by `alloc_zeroed`.
            Some(memory) => unsafe { std::slice::from_raw_parts(memory.start.as_ptr(), self.len) },
            None => &[],
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as above, and `&mut self` makes the access exclusive.
            Some(memory) => unsafe { std::slice::from_raw_parts_mut(memory.start.as_ptr(), self.len) },
            None => &mut [],
        }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let (Some(memory), Some(pool)) = (self.memory.take(), &self.pool) {
            pool.put(memory);
        }
    }
}

struct Shelves {
    kept: Mutex<Kept>,
    kept_bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    by_class: [Vec<Memory>; CLASSES.len()],
    bytes: usize,
}

impl Shelves {
    fn put(&self, memory: Memory) {
        let Some(class) = CLASSES.iter().position(|capacity| *capacity == memory.capacity) else {
            return;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + memory.capacity <= self.kept_bytes_max {
            kept.bytes += memory.capacity;
            kept.by_class[class].push(memory);
        }
    }
}

/// Lends aligned buffers of up to 8 MiB and keeps a bounded number of returned ones. A handle: cloning shares it.
#[derive(Clone)]
pub struct BufferPool {
    shelves: Arc<Shelves>,
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BufferPool({} bytes kept)", self.kept_bytes())
    }
}

impl BufferPool {
    /// A pool that keeps at most `kept_bytes_max` bytes of returned buffers; 0 keeps nothing.
    pub fn new(kept_bytes_max: usize) -> Self {
        Self { shelves: Arc::new(Shelves { kept: Mutex::default(), kept_bytes_max }) }
    }

    /// A buffer of `len` bytes with unspecified content: a returned one if there is one of a fitting size, else a
    /// new one. More than 8 MiB + 16 KiB is never kept.
    pub fn take(&self, len: usize) -> AlignedBuf {
        let class = CLASSES.iter().position(|capacity| *capacity >= len);
        let reused = class.and_then(|class| {
            let mut kept = self.shelves.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = kept.by_class[class].pop()?;
            kept.bytes -= memory.capacity;
            Some(memory)
        });
        let memory = reused.unwrap_or_else(|| Memory::new(class.map_or(len, |class| CLASSES[class])));
        AlignedBuf { memory: Some(memory), len, pool: Some(self.shelves.clone()) }
    }

    /// Bytes of returned buffers kept for reuse.
    pub fn kept_bytes(&self) -> usize {
        self.shelves.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_returns_when_its_last_slice_is_dropped() {
        let pool = BufferPool::new(1 << 20);
        let mut buf = pool.take(70_000);
        assert_eq!(buf.as_ptr() as usize % ALIGNMENT, 0);
        buf[..5].copy_from_slice(b"stone");
        let bytes = buf.freeze();
        let slice = bytes.slice(1..5);
        drop(bytes);
        assert_eq!((&slice[..], pool.kept_bytes()), (&b"tone"[..], 0));
        drop(slice);
        assert_eq!(pool.kept_bytes(), 80 << 10);
        let again = pool.take(66_000);
        assert_eq!((again.len(), pool.kept_bytes(), &again[..5]), (66_000, 0, &b"stone"[..]));
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let pool = BufferPool::new(40 << 10);
        let lent: Vec<_> = (0..5).map(|_| pool.take(1000)).collect();
        drop(lent);
        assert_eq!(pool.kept_bytes(), 32 << 10);
        drop(pool.take(9 << 20));
        assert_eq!(pool.kept_bytes(), 32 << 10);
    }
}

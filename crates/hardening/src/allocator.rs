#![expect(unsafe_code, reason = "an allocator deals in raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr, slice,
};

use zeroize::optimization_barrier;

/// The system's allocator, but memory is zero before it is given back: on freeing, and when a block
/// moves or shrinks. Libraries that know nothing of secrets then leave none in free memory.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: hardening::WipingAllocator = hardening::WipingAllocator::new();
/// ```
#[derive(Debug, Default)]
pub struct WipingAllocator<A = System>(A);

impl WipingAllocator {
    /// The allocator over the system's.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl<A> WipingAllocator<A> {
    /// The allocator over another.
    pub const fn over(inner: A) -> Self {
        Self(inner)
    }
}

// SAFETY: blocks come from and go to the inner allocator with the layout that this one was given, so
// its guarantees hold here; in between, only live blocks are written to, within their size.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are those the inner allocator needs.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises a live block of this layout that nobody uses any more.
        unsafe {
            wipe(block, layout.size());
            self.0.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The inner allocator may move the block and free the old one unwiped, so it is never asked
        // to: the move is made here. That costs the chance of growing in place.
        //
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, is a valid size,
        // and that `block` is live with `layout`. Old and new block do not overlap, and the shorter
        // of both sizes is copied. `dealloc` wipes.
        unsafe {
            let new = self.0.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Writes zeros that the optimizer must not leave out, although nobody reads them.
///
/// # Safety
/// `block` must be valid for writing `size` bytes, and nobody else may use them.
unsafe fn wipe(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise; the slice is made when all its bytes have been written.
    let wiped = unsafe {
        ptr::write_bytes(block, 0, size);
        slice::from_raw_parts(block, size)
    };
    // To the optimizer this reads the zeros. A volatile write of each byte would do as well, but a
    // plain `memset` is many times faster.
    optimization_barrier(wiped);
}

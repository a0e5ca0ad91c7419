//! What is left in freed memory, with and without wiping.
#![expect(unsafe_code, reason = "an allocator is called directly")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    slice,
    sync::Mutex,
};

use hardening::WipingAllocator;

/// Keeps freed blocks instead of freeing them, so that what is left in them can be looked at.
#[derive(Default)]
struct Keeping(Mutex<Vec<(usize, usize)>>);

// SAFETY: blocks are the system's and are never given back, so each stays valid for good.
unsafe impl GlobalAlloc for &Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system's needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.0.lock().unwrap().push((block.expose_provenance(), layout.size()));
    }
}

impl Keeping {
    /// Whether a freed block still holds a piece of the secret; and how many blocks were freed.
    fn search(&self) -> (bool, usize) {
        let freed = self.0.lock().unwrap();
        let holds = freed.iter().any(|&(address, size)| {
            let block = std::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the block was never given back to the system and was written in full.
            let bytes = unsafe { slice::from_raw_parts(block, size) };
            bytes.windows(8).any(|window| window == &SECRET[..8])
        });
        (holds, freed.len())
    }
}

const SECRET: &[u8; 32] = b"sk-a-secret-of-thirty-two-bytes!";

/// Puts the secret into a block, resizes it to each size, and frees it.
fn use_block(allocator: &impl GlobalAlloc, sizes: &[usize]) {
    let mut layout = Layout::from_size_align(SECRET.len(), 16).unwrap();
    // SAFETY: each block is used within its size, with the layout that it has, until it is freed.
    unsafe {
        let mut block = allocator.alloc(layout);
        block.copy_from_nonoverlapping(SECRET.as_ptr(), SECRET.len());
        for &size in sizes {
            block = allocator.realloc(block, layout, size);
            block.add(SECRET.len().min(size)).write_bytes(0, size.saturating_sub(SECRET.len()));
            layout = Layout::from_size_align(size, 16).unwrap();
            let kept = slice::from_raw_parts(block, SECRET.len().min(size));
            assert_eq!(kept, SECRET.get(..kept.len()).unwrap());
        }
        allocator.dealloc(block, layout);
    }
}

#[track_caller]
fn check(sizes: &[usize]) {
    let plain = Keeping::default();
    use_block(&&plain, sizes);
    assert_eq!(plain.search(), (true, sizes.len() + 1), "the control leaves nothing to find");

    let wiped = Keeping::default();
    use_block(&WipingAllocator::over(&wiped), sizes);
    assert_eq!(wiped.search(), (false, sizes.len() + 1));
}

#[test]
fn a_freed_block_is_wiped() {
    check(&[]);
}

#[test]
fn a_block_that_moves_leaves_nothing_behind() {
    check(&[64]);
    check(&[64, 4096, 1 << 20]);
}

#[test]
fn a_block_that_shrinks_leaves_nothing_behind() {
    check(&[16]);
    check(&[1 << 16, 24]);
}

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

#[test]
fn a_process_works_on_it() {
    let mut texts: Vec<String> = (0..10_000).map(|number| number.to_string().repeat(9)).collect();
    texts.retain(|text| text.len() > 9);
    texts.shrink_to_fit();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let texts = texts.clone();
            std::thread::spawn(move || texts.concat().len())
        })
        .collect();
    let expected: usize = texts.iter().map(String::len).sum();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap() == expected));
    assert!(vec![0_u8; 1 << 16].iter().all(|byte| *byte == 0));
}

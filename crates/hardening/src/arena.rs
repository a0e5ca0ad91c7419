#![expect(unsafe_code, reason = "an arena deals in raw memory")]

use std::{
    fmt, fs, io,
    os::fd::{FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use zeroize::Zeroize as _;

/// A place for 32 bytes that are secret for as long as the process runs: apart from all other memory,
/// never swapped out, in no core dump and, where the kernel can, out of reach of root's debuggers too.
/// It is wiped when dropped.
///
/// A place is taken and given back under a lock, so this is for keys that last, not for one call's.
pub struct Place(NonNull<[u8; SIZE]>);

/// How the memory that places are in is protected. The weakest that had to be used so far.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protection {
    /// `memfd_secret(2)`: the kernel itself has no other mapping of it.
    #[default]
    Secret,
    /// Locked into memory, and left out of core dumps.
    Locked,
    /// Left out of core dumps only: the limit on locked memory (`RLIMIT_MEMLOCK`) is too low.
    Undumped,
}

/// The size of a key.
const SIZE: usize = 32;

/// Memory is taken in pieces of this size, 2048 places each.
const PIECE: usize = 64 << 10;

static ARENA: Mutex<Arena> = Mutex::new(Arena { free: Vec::new(), weakest: Protection::Secret });

struct Arena {
    free: Vec<Free>,
    weakest: Protection,
}

struct Free(NonNull<[u8; SIZE]>);

// SAFETY: a free place belongs to the list that it is in; nothing else refers to it.
unsafe impl Send for Free {}

// SAFETY: a place is its owner's alone, as a `Box` is, and never moves.
unsafe impl Send for Place {}
// SAFETY: a shared reference to a place only reads it.
unsafe impl Sync for Place {}

impl Place {
    /// A place that holds zeros.
    ///
    /// # Panics
    /// When the system has no more memory, as any allocation does.
    pub fn zeroed() -> Self {
        let mut arena = arena();
        if arena.free.is_empty() {
            arena.grow();
        }
        match arena.free.pop() {
            Some(Free(place)) => Self(place),
            None => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; SIZE]>()),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; SIZE] {
        // SAFETY: the place is mapped for as long as the process runs, holds initialized bytes, and is
        // this value's alone.
        unsafe { self.0.as_ref() }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8; SIZE] {
        // SAFETY: as above, and `self` is borrowed for writing.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        arena().free.push(Free(self.0));
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place(…)")
    }
}

/// How well the places that were taken so far are protected.
pub fn protection() -> Protection {
    arena().weakest
}

/// What an operator should do so that no key of this process can reach a disk; none when there is
/// nothing to be done. To be asked when the first keys are there.
pub fn memory_advice() -> Option<&'static str> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    match (protection(), has_swap(&swaps)) {
        (Protection::Undumped, _) => Some(
            "long-lived keys are not locked into memory: raise RLIMIT_MEMLOCK to 64 MiB \
             (LimitMEMLOCK= in systemd)",
        ),
        // A secret is in ordinary memory while a call needs it, however well keys are kept.
        (Protection::Secret | Protection::Locked, true) => {
            Some("this machine swaps: turn swap off or encrypt it (MemorySwapMax=0 in systemd)")
        }
        (Protection::Secret | Protection::Locked, false) => None,
    }
}

/// The first line is a heading.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    /// Adds a piece of the best memory that is to be had; none when there is no memory at all.
    fn grow(&mut self) {
        let piece = secret().map(|piece| (piece, Protection::Secret)).or_else(|_| anonymous());
        let Ok((piece, protection)) = piece else { return };
        self.weakest = self.weakest.max(protection);
        let places: NonNull<[u8; SIZE]> = piece.cast();
        self.free.extend((0..PIECE / SIZE).rev().map(|at| {
            // SAFETY: the piece holds so many places.
            Free(unsafe { places.add(at) })
        }));
    }
}

/// Memory that the kernel maps nowhere else.
fn secret() -> io::Result<NonNull<u8>> {
    // SAFETY: the call takes one number and gives a descriptor or an error.
    let descriptor = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us.
    let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
    rustix::fs::ftruncate(&file, PIECE as u64)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // The limit on locked memory counts here, not when a page is first written.
    // SAFETY: a new mapping at a place that the kernel chooses overlaps nothing.
    let piece = unsafe { mmap(ptr::null_mut(), PIECE, access, MapFlags::SHARED, &file, 0)? };
    let piece = NonNull::new(piece.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    // A child that is forked must not share it.
    // SAFETY: it is the mapping that was just made.
    let unforked = unsafe { madvise(piece.as_ptr().cast(), PIECE, Advice::LinuxDontFork) };
    if let Err(error) = unforked {
        // SAFETY: the mapping that was just made, to which nothing refers.
        unsafe { munmap(piece.as_ptr().cast(), PIECE)? };
        return Err(error.into());
    }
    Ok(piece)
}

fn anonymous() -> io::Result<(NonNull<u8>, Protection)> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: as above.
    let piece = unsafe { mmap_anonymous(ptr::null_mut(), PIECE, access, MapFlags::PRIVATE)? };
    let piece = NonNull::new(piece.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
        // SAFETY: the mapping that was just made, which begins at a page.
        unsafe { madvise(piece.as_ptr().cast(), PIECE, advice)? };
    }
    // SAFETY: the same.
    let locked = unsafe { mlock(piece.as_ptr().cast(), PIECE) };
    Ok((piece, if locked.is_ok() { Protection::Locked } else { Protection::Undumped }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags_of(piece: NonNull<u8>) -> String {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let address = format!("{:x}-", piece.as_ptr().addr());
        let (_, after) = smaps.split_once(&address).unwrap();
        after.lines().find(|line| line.starts_with("VmFlags:")).unwrap().to_owned()
    }

    #[test]
    fn a_machine_that_swaps_is_known_by_its_list() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap("") && !has_swap(heading));
        assert!(has_swap(&format!("{heading}/dev/dm-1 partition\t1048572\t\t0\t\t-2\n")));
    }

    #[test]
    fn where_the_kernel_has_no_secret_memory_it_is_locked_and_left_out_of_dumps() {
        let (piece, protection) = anonymous().unwrap();
        let flags = flags_of(piece);
        assert!(flags.contains(" dd") && flags.contains(" wf"), "{flags}");
        assert_eq!(flags.contains(" lo"), protection == Protection::Locked, "{flags}");
        // SAFETY: the mapping is this test's own, and nothing refers to it any more.
        unsafe { munmap(piece.as_ptr().cast(), PIECE).unwrap() };
    }
}

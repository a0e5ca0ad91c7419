//! Process hardening and the wiping allocator: the one crate with unsafe code.
//!
//! What a secret leaves behind is wiped when its memory is freed, whoever freed it, and what is in
//! memory is kept from core dumps, debuggers and panic messages. Registers, the hypervisor and root
//! with a kernel module are out of reach.

mod allocator;
mod panic;
mod process;

pub use allocator::WipingAllocator;
pub use panic::silence_panics;
pub use process::{HardeningError, harden_process};

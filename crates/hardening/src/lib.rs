//! Process hardening, the wiping allocator and the arena of long-lived keys: the one crate with
//! unsafe code.
//!
//! What a secret leaves behind is wiped when its memory is freed, whoever freed it, and what is in
//! memory is kept from core dumps, debuggers and panic messages. Registers, the hypervisor and root
//! with a kernel module are out of reach.

mod allocator;
mod arena;
mod panic;
mod process;

pub use allocator::WipingAllocator;
pub use arena::{Place, Protection, memory_advice, protection};
pub use panic::silence_panics;
pub use process::{HardeningError, harden_process};

use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};
use thiserror::Error;

/// A protection that the system refused. The process must not go on to hold secrets.
#[derive(Debug, Error)]
#[error("the system refused to {protection}")]
pub struct HardeningError {
    protection: &'static str,
    #[source]
    source: Errno,
}

/// Keeps this process's memory to itself: no core dumps, no attaching by other processes of its user,
/// no new privileges for what it starts. To be called first thing in `main`, before there are threads:
/// threads inherit the last of these from the one that starts them, so a runtime comes after it.
pub fn harden_process() -> Result<(), HardeningError> {
    let refused = |protection| move |source| HardeningError { protection, source };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(refused("rule out core dumps"))?;
    // The limit alone does not stop a core that is piped to a program; this does, and it closes
    // /proc/self/mem to other processes of the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(refused("make the process undumpable"))?;
    set_no_new_privs(true).map_err(refused("rule out new privileges"))
}

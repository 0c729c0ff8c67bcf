//! Makes a process go on under memory pressure: the one that memory is written back through, and the one that replaces it.

use crate::limits::PRIORITY;
use rustix::mm::{MlockAllFlags, mlockall};

/// To be called before the first thread is started: threads inherit all of it. What is not permitted is told and done without.
pub(crate) fn harden() {
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        tracing::warn!(%error, "the priority given by its starter stays: CAP_SYS_NICE is missing");
    }
    // On fault: pages of the program that never ran need not be resident; its image is not on the mirror.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(all) {
        tracing::warn!(%error, "memory is not locked: CAP_IPC_LOCK is missing");
    }
    match os::memory_limit::leave_memory_limit(std::process::id()) {
        Ok(None) => {}
        Ok(Some(bytes)) => tracing::info!(bytes, "left a memory limit: writing back could wait for itself"),
        Err(error) => {
            tracing::warn!(%error, "stays under a memory limit: keep what is written to the mirror out of it")
        }
    }
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::warn!(%error, "not marked as I/O flusher (CAP_SYS_RESOURCE is missing): keep enough memory free");
    }
}

//! Open file limits: each connection needs one descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a program needs in addition to those of its connections.
const OWN_FILES: u64 = 256;

/// Raises the process's limit of open files to the maximum, and warns if that is not enough for its
/// connections.
pub(crate) fn allow(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < connections_max as u64 + OWN_FILES {
        tracing::info!(files, connections_max, "fewer open files are allowed than connections (ulimit -n)");
    }
}

//! Open files: each connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a program needs besides those of its connections.
const OWN_FILES: u64 = 256;

/// Lets the process have as many files as it may, and warns when that is not enough for its
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

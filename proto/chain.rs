//! The text of an error with its causes.

use std::error::Error;

/// An error and its causes, separated by colons.
pub fn chain(error: &dyn Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", chain(cause))).unwrap_or_default();
    format!("{error}{cause}")
}

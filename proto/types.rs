//! The catalogs' events and calls as types for others: TypeScript, JSON Schema and AsyncAPI.
//!
//! All three describe the browser JSON of [`crate::json`] and are read off the very plans by which it is written, so that
//! they cannot say anything else. The output depends on the catalogs alone: sorted, without times or paths. Knows nothing of
//! files and processes.

mod asyncapi;
mod comments;
mod json_schema;
mod model;
#[cfg(test)]
mod tests;
mod typescript;

use crate::{catalog::Catalogs, json::closest};

pub use asyncapi::asyncapi;
pub use json_schema::{json_schema, json_schemas};
pub use typescript::typescript;

/// Refuses packages that are no catalogs, naming the one that was probably meant.
pub fn check_packages(catalogs: &Catalogs, packages: &[String]) -> Result<(), String> {
    for package in packages {
        if catalogs.packages().contains(package) {
            continue;
        }
        let known = catalogs.packages().iter().map(String::as_str);
        let near =
            closest(package, known).map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
        return Err(format!(
            "package {package:?} is no catalog{near}; there are {}",
            catalogs.packages().join(", ")
        ));
    }
    Ok(())
}

/// A code of `fanfare.v1.Reason` as browsers see it, and what it means.
fn codes(catalogs: &Catalogs, comments: &comments::Comments) -> Vec<(String, String)> {
    let Some(reasons) = catalogs.pool().get_enum_by_name("fanfare.v1.Reason") else { return Vec::new() };
    let said = reasons.values().filter_map(|value| {
        let reason = crate::v1::Reason::try_from(value.number()).ok()?;
        let file = reasons.parent_file();
        (value.number() != 0).then(|| (reason.code(), comments.of(&file, value.path())))
    });
    said.collect()
}

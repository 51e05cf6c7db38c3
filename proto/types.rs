//! The catalogs' events and calls as types for other tools: TypeScript, JSON Schema and AsyncAPI.
//!
//! All three describe the browser JSON of [`crate::json`] and are derived from the same plans that
//! write it, so that they cannot differ from it. The output depends only on the catalogs: it is
//! sorted and contains no times or paths. Knows nothing of files and processes.

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

/// Refuses packages that are not catalogs, with a suggestion for the probable name, and packages
/// that cannot be described together because they declare the same names.
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
    let events = catalogs.events().map(|e| ("event", e.name.as_str(), e.transport(), e.package.as_str()));
    let calls = catalogs.calls().map(|c| ("call", c.on.as_str(), c.transport, c.package.as_str()));
    let is_wanted = |package: &str| packages.is_empty() || packages.iter().any(|one| one == package);
    let mut names: Vec<_> = events.chain(calls).filter(|(.., package)| is_wanted(package)).collect();
    names.sort_unstable();
    names.dedup();
    let same = |a: &(_, _, _, _), b: &(_, _, _, _)| (a.0, a.1, a.2) == (b.0, b.1, b.2);
    match names.windows(2).find(|pair| same(&pair[0], &pair[1])) {
        Some([(kind, name, _, one), (.., other)]) => {
            let which = if packages.is_empty() { "give --package" } else { "write a file for each" };
            Err(format!(
                "{one} and {other} both have the {kind} {name:?}, so that no namespace serves both; {which}, e.g. --package {one}"
            ))
        }
        _ => Ok(()),
    }
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

//! How many items of a list a caller asks for.

use crate::error::Refusal;

/// The number of items in a page. `asked` is the field `name` of the request; 0 means the default.
pub(crate) fn page_size(name: &str, asked: i128, default: usize, max: usize) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) if size <= max => Ok(size),
        _ => Err(Refusal::Invalid(format!("{name} is {asked}: want 1 to {max}"))),
    }
}

//! The scripts. Each begins with `#!lua`, so that Redis refuses it before it starts if writes are
//! impossible, and no script stops halfway.

use std::sync::LazyLock;

/// A script that Redis runs.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: String,
    /// Its SHA-1, by which Redis calls it.
    pub(super) hash: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));)*
    };
}

scripts! {
    ADMIT = "scripts/admit.lua";
    APPEND = "scripts/append.lua";
    EXPIRE = "scripts/expire.lua";
    MAKE = "scripts/make.lua";
    NEWEST = "scripts/newest.lua";
    READ = "scripts/read.lua";
    RECORD = "scripts/record.lua";
    REPLACE = "scripts/replace.lua";
    STATE = "scripts/state.lua";
    TRIM = "scripts/trim.lua";
}

/// REPLACE without a value. It frees memory, so it may run when the memory is full.
pub(super) static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&include_str!("scripts/replace.lua").replacen("#!lua", "#!lua flags=allow-oom", 1))
});

impl Script {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

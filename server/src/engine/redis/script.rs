//! The scripts. Each begins with `#!lua`, so that Redis refuses it before it runs when it cannot
//! be written, and nothing is half done.

use std::sync::LazyLock;

/// A script that Redis runs.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: &'static str,
    /// Its name at Redis.
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
    HEAD = "scripts/head.lua";
    READ = "scripts/read.lua";
    RECORD = "scripts/record.lua";
    REPLACE = "scripts/replace.lua";
    TRIM = "scripts/trim.lua";
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

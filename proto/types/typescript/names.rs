//! The names of the generated types.
//!
//! A message or enum has its own name; one that is nested in a message is `Outer_Inner`. A name
//! that two packages share, or that the file or TypeScript uses itself, is prefixed with its
//! package wherever it occurs: `ChatV1NewMessage`. A message that browsers send with fewer fields
//! than the server is named `NewMessageInput`, and one with attachments `NewMessageBinary`.

use std::collections::{HashMap, HashSet};

use super::super::model::{Key, Model, Side, is_input};

/// Reserved names: those that the file declares or uses, and words of the language.
const TAKEN: [&str; 72] = [
    "Acknowledged",
    "Answer",
    "ArrayBuffer",
    "Binary",
    "ClientToServerEvents",
    "Code",
    "Failure",
    "JsonObject",
    "JsonValue",
    "Omit",
    "Refused",
    "Required",
    "ServerToClientEvents",
    "Uint8Array",
    "WebSocketCalls",
    "WebSocketEvents",
    "any",
    "await",
    "bigint",
    "boolean",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "never",
    "new",
    "null",
    "number",
    "object",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "string",
    "super",
    "switch",
    "symbol",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "undefined",
    "unknown",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// An item that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    Message(Key),
    Enum(usize),
}

/// All names of a file.
#[derive(Debug)]
pub(super) struct Names {
    by_item: HashMap<Item, String>,
}

impl Names {
    pub(super) fn new(model: &Model<'_>) -> Self {
        // Ordered by package, name and origin, so that the result depends on nothing else.
        let mut items: Vec<(String, String, String, Item)> = Vec::new();
        for key @ (index, side) in &model.messages {
            let Some(message) = model.message(*index) else { continue };
            let (package, full_name) = (message.package_name(), message.full_name());
            let suffix = match side {
                Side::Attached => "Binary",
                _ if is_input(model, *index, *side) => "Input",
                _ => "",
            };
            let name = format!("{}{suffix}", base(package, full_name));
            items.push((package.to_owned(), name, full_name.to_owned(), Item::Message(*key)));
        }
        for index in &model.enums {
            let Some(enumeration) = model.enumeration(*index) else { continue };
            let (package, full_name) = (enumeration.package_name(), enumeration.full_name());
            items.push((
                package.to_owned(),
                base(package, full_name),
                full_name.to_owned(),
                Item::Enum(*index),
            ));
        }
        items.sort();
        let mut taken: HashMap<&str, usize> = TAKEN.iter().map(|name| (*name, 1)).collect();
        for (_, name, _, _) in &items {
            *taken.entry(name).or_default() += 1;
        }
        let mut used: HashSet<String> = HashSet::new();
        let mut by_item = HashMap::new();
        for (package, name, _, item) in &items {
            let is_shared = taken[name.as_str()] > 1;
            let mut chosen = if is_shared { format!("{}{name}", pascal(package)) } else { name.clone() };
            // Another declaration may have exactly that name.
            while used.contains(&chosen) || (is_shared && taken.contains_key(chosen.as_str())) {
                chosen.push('_');
            }
            used.insert(chosen.clone());
            by_item.insert(*item, chosen);
        }
        Self { by_item }
    }

    pub(super) fn of_message(&self, key: Key) -> &str {
        self.by_item.get(&Item::Message(key)).map_or("never", String::as_str)
    }

    pub(super) fn of_enum(&self, index: usize) -> &str {
        self.by_item.get(&Item::Enum(index)).map_or("never", String::as_str)
    }

    /// All, by name.
    pub(super) fn sorted(&self) -> Vec<(&str, Item)> {
        let mut all: Vec<_> = self.by_item.iter().map(|(item, name)| (name.as_str(), *item)).collect();
        all.sort_unstable();
        all
    }
}

/// `shop.v1.Order.Line` in `shop.v1` is `Order_Line`.
fn base(package: &str, full_name: &str) -> String {
    let own = full_name.strip_prefix(package).unwrap_or(full_name).trim_start_matches('.');
    own.replace('.', "_")
}

/// `messenger.v1` is `MessengerV1`.
fn pascal(package: &str) -> String {
    let words = package.split(['.', '_']).filter(|word| !word.is_empty());
    words.map(|word| format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..])).collect()
}

//! `google.protobuf.Any`: an object with the type's URL as `@type` and the fields of that type.

use std::collections::BTreeMap;

use serde::de::{DeserializeSeed as _, Error as _, MapAccess};
use serde_json::value::RawValue;

use super::{MessageSeed, put_bytes, shown};

/// The key of the type's URL.
const TYPE: &str = "@type";

impl MessageSeed<'_, '_> {
    /// Reads an Any. `@type` may come last, so the fields are stored as text until all of them were
    /// read.
    pub(super) fn any<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        let (context, depth) = (self.context, self.depth + 1);
        let mut fields: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if fields.contains_key(&key) {
                return Err(context.refuse(format!("the field {:?} is there twice", shown(&key))));
            }
            fields.insert(key, value);
        }
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let url = fields.remove(TYPE).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let wanted = "want \"@type\", e.g. \"type.googleapis.com/messenger.v1.NewMessage\"";
        let url = url.ok_or_else(|| context.refuse::<A::Error>(wanted))?;
        let name = url.rsplit('/').next().unwrap_or_default();
        let index = context.table.by_name.get(name).copied();
        let index = index.ok_or_else(|| {
            context.refuse::<A::Error>(format!("no catalog has the type {:?}", shown(name)))
        })?;
        let text = serde_json::to_string(&fields).map_err(A::Error::custom)?;
        // A nested one would be copied once per level.
        context.takes_any.set(false);
        let seed = MessageSeed { context, index, depth };
        let read = seed.deserialize(&mut serde_json::Deserializer::from_str(&text));
        let value = read.map_err(|error| {
            if context.refusal.borrow().is_some() {
                A::Error::custom(error)
            } else {
                context.refuse(format!("not valid JSON: {error}"))
            }
        })?;
        context.takes_any.set(true);
        let mut out = Vec::new();
        put_bytes(1, url.as_bytes(), &mut out);
        put_bytes(2, &value.unwrap_or_default(), &mut out);
        Ok(out)
    }
}

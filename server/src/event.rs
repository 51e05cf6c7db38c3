//! Events as the server stores them: once, shared, with encoded forms that all recipients share.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fanfare_proto::{
    catalog::EventType,
    cursor::Cursor,
    json::{Attached, PayloadError, Shape},
    room::{Room, Tenant},
    v1,
};
use prost::Message as _;
use prost_types::{Any, Timestamp};

use crate::engine::{Receipt, StateChange};

/// The size of an event's envelope in a bounded store, in bytes.
const ENVELOPE: usize = 256;
/// Approximate size of all encoded forms together, relative to payload and envelope.
const ENCODED_SHARE: usize = 2;

/// The id of an event that is in no log.
pub(crate) fn ephemeral_id() -> String {
    format!("~{:016x}", rand::random::<u64>())
}

impl Event {
    /// When a server accepted the event; `None` if the time cannot be represented.
    pub(crate) fn accepted_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_micros(micros(self.draft.time)))
    }
}

/// A time in microseconds since 1970.
fn micros(time: Timestamp) -> u64 {
    let (seconds, nanos) = (u64::try_from(time.seconds), u64::try_from(time.nanos));
    seconds.unwrap_or_default() * 1_000_000 + nanos.unwrap_or_default() / 1000
}

/// Encodes a message as browser JSON.
pub(crate) fn browser_json(shape: &Shape, bytes: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let mut json = Vec::with_capacity(bytes.len() * 2 + 64);
    shape.write_json(bytes, &mut json)?;
    Ok(json)
}

/// Encodes a message as browser JSON and, if it is declared `binary`, also with attachments.
pub(crate) fn browser_forms(
    shape: &Shape,
    binary: bool,
    bytes: &[u8],
) -> Result<(Bytes, Option<v1::BinaryPayload>), PayloadError> {
    if !binary {
        return Ok((browser_json(shape, bytes)?.into(), None));
    }
    let mut json = Vec::with_capacity(bytes.len() * 2 + 64);
    let Attached { json: attached, attachments } = shape.write_both(bytes, &mut json)?;
    Ok((json.into(), Some(v1::BinaryPayload { json: attached.into(), attachments })))
}

/// What ingest passes to the engine: everything except the place in the log.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) tenant: Tenant,
    pub(crate) rooms: Vec<Room>,
    pub(crate) time: Timestamp,
    pub(crate) sender: String,
    pub(crate) kind: Arc<EventType>,
    pub(crate) payload: Bytes,
    pub(crate) except_sessions: Vec<String>,
    /// Empty if there is none.
    pub(crate) idempotency_key: String,
    /// The number of the string field in the payload that receives the event's id once it is
    /// assigned.
    pub(crate) id_field: Option<u32>,
    /// What the event changes in the current state of its rooms.
    pub(crate) state: Option<StateChange>,
}

/// An encoded form, created when it is first needed.
#[derive(Debug, Default)]
struct Encoding(RwLock<Option<Bytes>>);

/// An accepted event. Its encoded forms are created when first needed, once for all recipients, and
/// stored while the event is recent.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    /// 0 for ephemeral events.
    pub(crate) seq: u64,
    /// The tag of its frame in the log; 0 if there is none.
    pub(crate) tag: u64,
    pub(crate) draft: Draft,
    is_recent: AtomicBool,
    generic: Encoding,
    meta: Encoding,
    delivery: Encoding,
}

impl Encoding {
    fn get(&self, is_recent: &AtomicBool, encode: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(bytes) = &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            return bytes.clone();
        }
        let bytes = encode();
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if is_recent.load(Ordering::Acquire) {
            *kept = Some(bytes.clone());
        }
        bytes
    }

    fn release(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Event {
    /// An event with a place in the log.
    pub(crate) fn stored(cursor: Cursor, draft: Draft) -> Self {
        Self::new(cursor.to_string(), cursor.seq, cursor.tag, draft)
    }

    /// An event that is not in the log.
    pub(crate) fn ephemeral(draft: Draft) -> Self {
        Self::new(ephemeral_id(), 0, 0, draft)
    }

    /// An event with a known id, for example from another server. Adds the id to the payload if the
    /// draft has an `id_field`.
    pub(crate) fn new(id: String, seq: u64, tag: u64, mut draft: Draft) -> Self {
        if let Some(field) = draft.id_field {
            let mut payload = Vec::with_capacity(draft.payload.len() + id.len() + 8);
            payload.extend_from_slice(&draft.payload);
            prost::encoding::string::encode(field, &id, &mut payload);
            draft.payload = payload.into();
        }
        let (generic, meta, delivery) = Default::default();
        Self { id, seq, tag, draft, is_recent: AtomicBool::new(false), generic, meta, delivery }
    }

    /// Marks the event as recent: encoded forms are stored from now on.
    pub(crate) fn retain(&self) {
        self.is_recent.store(true, Ordering::Release);
    }

    /// Marks the event as no longer recent and releases its encoded forms.
    pub(crate) fn release(&self) {
        self.is_recent.store(false, Ordering::Release);
        self.generic.release();
        self.meta.release();
        self.delivery.release();
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt { id: self.id.clone(), seq: self.seq, time: self.draft.time }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.seq == 0
    }

    pub(crate) fn rooms(&self) -> &[Room] {
        &self.draft.rooms
    }

    /// The size of the event in a bounded store, in bytes: payload, names and envelope.
    pub(crate) fn cost_bytes(&self) -> usize {
        let draft = &self.draft;
        let rooms: usize = draft.rooms.iter().map(|r| r.as_str().len() + 16).sum();
        ENVELOPE + draft.payload.len() + rooms + draft.sender.len() + draft.idempotency_key.len()
    }

    /// The maximum size of the event and its encoded forms while it is recent, in bytes.
    pub(crate) fn recent_cost_bytes(&self) -> usize {
        self.cost_bytes() + ENCODED_SHARE * (self.draft.payload.len() + ENVELOPE)
    }

    /// The event as a complete `fanfare.v1.SubscribeResponse`.
    pub(crate) fn generic(&self) -> Bytes {
        self.generic.get(&self.is_recent, || {
            let kind = Some(v1::subscribe_response::Kind::Event(self.whole()));
            v1::SubscribeResponse { kind }.encode_to_vec().into()
        })
    }

    /// The event as a `fanfare.v1.Event`.
    pub(crate) fn whole(&self) -> v1::Event {
        let payload = Any { type_url: self.draft.kind.type_url.clone(), value: self.draft.payload.to_vec() };
        v1::Event { payload: Some(payload), ..self.metadata() }
    }

    /// The event as a `fanfare.v1.Event` without its payload.
    pub(crate) fn meta(&self) -> Bytes {
        self.meta.get(&self.is_recent, || self.metadata().encode_to_vec().into())
    }

    /// The event as a `fanfare.v1.Delivery`. Empty if it cannot be encoded as browser JSON, which
    /// validation excludes.
    pub(crate) fn delivery(&self) -> Bytes {
        self.delivery.get(&self.is_recent, || {
            let draft = &self.draft;
            let forms = browser_forms(&draft.kind.shape, draft.kind.binary, &draft.payload);
            let (json, binary) = match forms {
                Ok(forms) => forms,
                Err(error) => {
                    tracing::error!(event = %self.id, type_name = draft.kind.full_name, %error, "a validated event has no browser JSON");
                    return Bytes::new();
                }
            };
            let delivery = v1::Delivery {
                id: self.id.clone(),
                name: draft.kind.name.clone(),
                json,
                rooms: draft.rooms.iter().map(|r| r.as_str().to_owned()).collect(),
                except_sessions: draft.except_sessions.clone(),
                ephemeral: self.is_ephemeral(),
                time_micros: micros(draft.time),
                catalog: draft.kind.package.clone(),
                binary,
            };
            delivery.encode_to_vec().into()
        })
    }

    fn metadata(&self) -> v1::Event {
        let draft = &self.draft;
        v1::Event {
            id: self.id.clone(),
            seq: self.seq,
            tenant: draft.tenant.as_str().to_owned(),
            rooms: draft.rooms.iter().map(|r| r.as_str().to_owned()).collect(),
            time: Some(draft.time),
            sender: draft.sender.clone(),
            payload: None,
        }
    }
}

/// The built-in catalogs, for tests. Compiled once, because that takes longer than many appends.
#[cfg(test)]
pub(crate) fn builtin_catalogs() -> &'static Arc<fanfare_proto::catalog::Catalogs> {
    use std::sync::LazyLock;

    use fanfare_proto::catalog::Catalogs;
    static CATALOGS: LazyLock<Arc<Catalogs>> = LazyLock::new(|| Arc::new(Catalogs::builtin().unwrap()));
    &CATALOGS
}

/// An event type of the built-in catalogs, for tests.
#[cfg(test)]
pub(crate) fn builtin_kind(name: &str) -> Arc<EventType> {
    builtin_catalogs().event(name).unwrap().clone()
}

/// A catalog that only a newer server has, with the event `newer.v1.Thing`, for tests. It is
/// written to a file.
#[cfg(test)]
pub(crate) fn newer_catalogs(file: std::path::PathBuf) -> Arc<fanfare_proto::catalog::Catalogs> {
    use fanfare_proto::catalog::{Builtin, Catalogs};

    const NEWER: &str = r#"
        syntax = "proto3";
        package newer.v1;
        import "fanfare/v1/catalog.proto";
        message Thing {
          option (fanfare.v1.event) = { name: "thing" rooms: "org" };
          string name = 1;
        }
    "#;
    std::fs::write(&file, NEWER).unwrap();
    Arc::new(Catalogs::load(Builtin::All, &[file]).unwrap())
}

/// A draft for tests: an event for all users of the tenant, with a payload of `payload` bytes.
#[cfg(test)]
pub(crate) fn draft(tenant: &str, key: &str, payload: usize) -> Draft {
    Draft {
        tenant: Tenant::new(tenant).unwrap(),
        rooms: vec![Room::org()],
        time: Timestamp::default(),
        sender: String::new(),
        kind: builtin_kind("messenger.v1.NewMessage"),
        payload: Bytes::from(vec![0; payload]),
        except_sessions: Vec::new(),
        idempotency_key: key.to_owned(),
        id_field: None,
        state: None,
    }
}

#[cfg(test)]
mod tests {
    use fanfare_proto::catalog::{Builtin, Catalogs};

    use super::*;

    /// An event from its browser JSON.
    fn event(catalogs: &Catalogs, type_name: &str, json: &str) -> Event {
        let kind = catalogs.event(type_name).unwrap().clone();
        let payload = kind.shape.read_json(json.as_bytes()).unwrap().into();
        let draft = Draft {
            tenant: Tenant::new("1").unwrap(),
            rooms: vec![Room::org()],
            time: Timestamp::default(),
            sender: String::new(),
            kind,
            payload,
            except_sessions: Vec::new(),
            idempotency_key: String::new(),
            id_field: None,
            state: None,
        };
        Event::new("1-1".into(), 1, 0, draft)
    }

    #[test]
    fn a_delivery_names_the_catalog_that_declares_the_event() {
        let catalogs = Catalogs::builtin().unwrap();
        let event = event(&catalogs, "messenger.v1.UserOnline", r#"{"userId":"42"}"#);
        let delivery = v1::Delivery::decode(event.delivery().clone()).unwrap();
        assert_eq!((delivery.name.as_str(), delivery.catalog.as_str()), ("user:online", "messenger.v1"));
        assert_eq!(delivery.binary, None);
    }

    #[test]
    fn a_binary_event_has_its_bytes_as_attachments_beside_the_base64() {
        const CATALOG: &str = r#"
            syntax = "proto3";
            package files.v1;
            import "fanfare/v1/catalog.proto";
            message Chunk {
              option (fanfare.v1.event) = { name: "chunk" rooms: "org" binary: true };
              string name = 1;
              repeated bytes parts = 2;
            }
        "#;
        let file = std::env::temp_dir().join(format!("fanfare-files-{}.proto", std::process::id()));
        std::fs::write(&file, CATALOG).unwrap();
        let catalogs = Catalogs::load(Builtin::All, &[file]).unwrap();
        let json = r#"{"name":"a","parts":["AQI=","Aw=="]}"#;
        let event = event(&catalogs, "files.v1.Chunk", json);
        let delivery = v1::Delivery::decode(event.delivery().clone()).unwrap();
        assert_eq!(delivery.json, json);
        let binary = delivery.binary.unwrap();
        let attached =
            r#"{"name":"a","parts":[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]}"#;
        assert_eq!(binary.json, attached);
        assert_eq!(binary.attachments, [&[1, 2][..], &[3]]);
    }
}

//! The streams that the engine needs: missing ones are created, existing ones are checked.

use std::time::Duration;

use async_nats::jetstream::{
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{
    config::NatsConfig,
    shared::{Attempts, now_micros},
    store::Store,
};

/// Streams that are set up concurrently.
const AT_ONCE: usize = 4;
/// How long a cluster that has just started may take to elect its leaders.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the removal of a record stays visible to followers of records.
pub(super) const REMOVAL_SECONDS: u64 = 3600;
/// Maximum size of the idempotency keys of ephemeral events of all tenants, in bytes.
const KEYS_BYTES_MAX: i64 = 64 << 20;
/// The metadata key for the number of partitions over which tenants are spread.
const PARTITIONS: &str = "fanfare-partitions";
/// The metadata key for the format of a stream's entries.
const FORMAT: &str = "fanfare-format";
const FORMAT_NOW: &str = "1";

/// Creates or checks all streams.
pub(super) async fn run(store: &Store, config: &NatsConfig) -> Result<(), String> {
    let set_up = |stream| ensure(store, stream, Attempts::within(START_MAX));
    let streams = futures_util::stream::iter(streams(store, config));
    streams.map(set_up).buffer_unordered(AT_ONCE).try_collect().await
}

fn streams(store: &Store, config: &NatsConfig) -> Vec<Config> {
    let mut streams = vec![records(store, config), leases(store, config), keys(store, config)];
    streams.extend(store.names.partitions().map(|partition| log(store, config, partition)));
    streams
}

/// Creates the stream of this name if it no longer exists.
pub(super) async fn restore(
    store: &Store,
    config: &NatsConfig,
    name: &str,
    attempts: Attempts,
) -> Result<(), String> {
    match streams(store, config).into_iter().find(|stream| stream.name == name) {
        Some(stream) => ensure(store, stream, attempts).await,
        None => Ok(()),
    }
}

fn base(config: &NatsConfig, name: String, subjects: String) -> Config {
    let mut stream = Config {
        name,
        subjects: vec![subjects],
        retention: RetentionPolicy::Limits,
        num_replicas: config.replicas,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        allow_direct: true,
        // A stream that is deleted and created again must not assign a place twice. So a server
        // that knows a place of the old stream never mistakes it for one of the new stream.
        first_sequence: Some(now_micros()),
        ..Config::default()
    };
    stream.metadata.insert(FORMAT.into(), FORMAT_NOW.into());
    stream
}

/// One partition of the logs. The stream never removes messages by itself: a quiet tenant would
/// lose its last entry, and with it the epoch, seq and tag.
fn log(store: &Store, config: &NatsConfig, partition: u32) -> Config {
    let subjects = store.names.log_subjects(partition);
    let mut stream = base(config, store.names.log_stream(partition), subjects.clone());
    stream.metadata.insert(PARTITIONS.into(), config.partitions.to_string());
    stream.storage = StorageType::File;
    stream.discard = DiscardPolicy::New;
    stream.max_bytes = config.partition_bytes_max.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
    let destination = store.names.feed_template(partition);
    stream.republish = Some(Republish { source: subjects, destination, headers_only: false });
    stream
}

fn records(store: &Store, config: &NatsConfig) -> Config {
    let mut stream = base(config, store.names.records_stream(), store.names.records_subjects());
    stream.storage = StorageType::File;
    of_records(stream)
}

fn leases(store: &Store, config: &NatsConfig) -> Config {
    let mut stream = base(config, store.names.leases_stream(), store.names.leases_subjects());
    stream.storage = StorageType::Memory;
    of_records(stream)
}

/// Idempotency keys of ephemeral events, which are in no log. If there are too many, the oldest are
/// removed first.
fn keys(store: &Store, config: &NatsConfig) -> Config {
    Config {
        storage: StorageType::Memory,
        max_bytes: KEYS_BYTES_MAX,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        allow_message_ttl: true,
        ..base(config, store.names.keys_stream(), store.names.keys_subjects())
    }
}

/// One message per subject, which may expire; a mark then replaces it for a while.
fn of_records(stream: Config) -> Config {
    Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(Duration::from_secs(REMOVAL_SECONDS)),
        ..stream
    }
}

/// Creates a stream, or checks the existing one, until time is up.
async fn ensure(store: &Store, want: Config, mut attempts: Attempts) -> Result<(), String> {
    let mut is_first = true;
    loop {
        let Err(problem) = ensure_once(store, &want).await? else { return Ok(()) };
        if std::mem::take(&mut is_first) {
            tracing::info!(stream = want.name, problem, "a stream cannot be set up yet");
        }
        if !attempts.pause().await {
            let name = want.name;
            return Err(format!("stream {name} cannot be set up: JetStream does not answer: {problem}"));
        }
    }
}

/// The inner error may be temporary.
async fn ensure_once(store: &Store, want: &Config) -> Result<Result<(), String>, String> {
    match store.context.get_stream(&want.name).await {
        Ok(stream) => return check(want, &stream.cached_info().config).map(Ok),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code().0 == 10_059 => {}
            _ => return Ok(Err(error.to_string())),
        },
    }
    match store.context.create_stream(want).await {
        Ok(_) => {
            tracing::info!(stream = want.name, "a stream is created");
            Ok(Ok(()))
        }
        Err(error) => match error.kind() {
            // If another server has created the stream meanwhile, that one is checked next.
            CreateStreamErrorKind::JetStream(error)
                if error.error_code().0 != 10_058 && error.code() != 503 =>
            {
                Err(format!("stream {} cannot be created: {error}", want.name))
            }
            _ => Ok(Err(error.to_string())),
        },
    }
}

/// Compares the important settings of a stream.
fn check(want: &Config, found: &Config) -> Result<(), String> {
    let name = &want.name;
    let aspects = || fixed(want).into_iter().map(|aspect| (aspect, None)).chain(editable(want));
    let found_ones = fixed(found).into_iter().chain(editable(found).into_iter().map(|(aspect, _)| aspect));
    let differs = |(((_, should), _), (_, is)): &((Aspect, Option<String>), Aspect)| should != is;
    let Some((((what, should), flag), (_, is))) = aspects().zip(found_ones).find(differs) else {
        return Ok(());
    };
    let fix = flag.map_or_else(
        || format!("start with the settings it was made with, or delete it with all its data: nats stream rm {name}"),
        |flag| format!("run: nats stream edit {name} {flag}"),
    );
    Err(format!("stream {name} is not as configured: {what}: {is:?}, want {should:?}; {fix}"))
}

/// The subject of a setting, and its value.
type Aspect = (&'static str, String);

/// The settings that cannot be changed later.
fn fixed(config: &Config) -> [Aspect; 9] {
    let metadata = |key: &str| config.metadata.get(key).cloned().unwrap_or_default();
    let republish = config.republish.as_ref();
    let marker = config.subject_delete_marker_ttl;
    [
        ("partitions", metadata(PARTITIONS)),
        ("form of entries", metadata(FORMAT)),
        ("subjects", config.subjects.join(",")),
        ("storage", format!("{:?}", config.storage).to_lowercase()),
        ("retention", format!("{:?}", config.retention).to_lowercase()),
        ("republish", republish.map_or("off".into(), |to| format!("{} to {}", to.source, to.destination))),
        ("marks of removals", marker.map_or("off".into(), |ttl| format!("{} s", ttl.as_secs()))),
        ("purging denied", config.deny_purge.to_string()),
        ("sealed", config.sealed.to_string()),
    ]
}

/// The settings that can be changed, with the flag that sets this value.
fn editable(config: &Config) -> [(Aspect, Option<String>); 8] {
    let number = |size: i64| if size <= 0 { "unlimited".to_owned() } else { size.to_string() };
    let aspect = |what, value, flag| ((what, value), Some(flag));
    let per_subject = config.max_messages_per_subject;
    let discard = format!("{:?}", config.discard).to_lowercase();
    [
        aspect("replicas", config.num_replicas.to_string(), format!("--replicas={}", config.num_replicas)),
        aspect("discard policy", discard.clone(), format!("--discard={discard}")),
        aspect(
            "largest size in bytes",
            number(config.max_bytes),
            format!("--max-bytes={}", config.max_bytes),
        ),
        aspect("largest number of messages", number(config.max_messages), "--max-msgs=-1".into()),
        aspect("largest age in seconds", config.max_age.as_secs().to_string(), "--max-age=0".into()),
        aspect("messages per subject", number(per_subject), format!("--max-msgs-per-subject={per_subject}")),
        aspect("direct access", config.allow_direct.to_string(), "--allow-direct".into()),
        aspect("message ttl", config.allow_message_ttl.to_string(), "--allow-msg-ttl".into()),
    ]
}

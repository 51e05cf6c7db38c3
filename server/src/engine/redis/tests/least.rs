//! The user documented in docs/scaling.md: it may do what the engine does, and nothing else.

use super::{server::Server, *};

/// The refused commands, which the engine does not need.
const DONE_WITHOUT: &[&str] = &["config|get", "client|setinfo"];

const DOCS: &str = include_str!("../../../../../docs/scaling.md");

/// The words of the documented rule.
fn rule() -> Vec<&'static str> {
    let rule = DOCS.lines().find(|line| line.starts_with("user fanfare ")).unwrap();
    rule.split_whitespace().collect()
}

fn password() -> &'static str {
    rule().into_iter().find_map(|word| word.strip_prefix('>')).unwrap()
}

/// A node that has the documented user. When dropped, it checks that it refused nothing that the
/// engine needs.
pub(super) struct Least(Server);

impl Least {
    pub(super) fn start() -> Option<Self> {
        let rule = rule();
        Some(Self(Server::start(&[&["--user"], &rule[1..]].concat())?))
    }

    pub(super) fn url(&self) -> String {
        format!("redis://fanfare:{}@127.0.0.1:{}", password(), self.0.port)
    }
}

/// Fails if the user was refused something that the engine needs.
fn assert_nothing_refused(server: &Server) {
    let ::redis::Value::Array(entries) = server.command(&["ACL", "LOG"]) else { panic!("no log") };
    let mut refused: Vec<_> = entries.iter().map(object).collect();
    refused.retain(|what| !DONE_WITHOUT.contains(&what.as_str()));
    assert!(refused.is_empty(), "the documented user may not use {refused:?}");
}

/// The command, key or channel of an entry of the ACL log.
fn object(entry: &::redis::Value) -> String {
    let ::redis::Value::Array(parts) = entry else { panic!("no entry: {entry:?}") };
    let text = |value: &::redis::Value| ::redis::from_redis_value_ref::<String>(value).unwrap_or_default();
    parts.chunks(2).find(|pair| text(&pair[0]) == "object").map(|pair| text(&pair[1])).unwrap()
}

impl Drop for Least {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_nothing_refused(&self.0);
        }
    }
}

#[test]
fn the_documented_user_reaches_no_other_key_channel_or_setting() {
    let Some(server) = Server::start(&[&["--user"], &rule()[1..]].concat()) else { return };
    let least = Least(server);
    let mut connection = ::redis::Client::open(least.url()).unwrap().get_connection().unwrap();
    let others: &[&[&str]] = &[
        &["GET", "other"],
        &["EVAL", "return redis.call('SET', KEYS[1], 1)", "1", "other"],
        &["SPUBLISH", "other", "x"],
        &["SSUBSCRIBE", "other"],
        &["KEYS", "ff:*"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["ACL", "WHOAMI"],
        &["FLUSHALL"],
        &["SHUTDOWN"],
    ];
    for words in others {
        let refused = ::redis::cmd(words[0]).arg(&words[1..]).query::<::redis::Value>(&mut connection);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("NOPERM") || text.contains("permission"), "{words:?}: {text}");
    }
    least.0.command(&["ACL", "LOG", "RESET"]);
}

#[tokio::test]
async fn the_documented_user_is_enough_in_a_cluster_whose_replicas_confirm() {
    let Some(cluster) = Server::cluster() else { return };
    for node in &cluster {
        node.command(&[&["ACL", "SETUSER"], &rule()[1..]].concat());
    }
    let url = format!("redis+cluster://fanfare:{}@127.0.0.1:{}", password(), cluster[0].port);
    let mut config = RedisConfig::parse(&url).unwrap();
    config.ack = Ack::Replica;
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    for name in 0..6 {
        let tenant = Tenant::new(&name.to_string()).unwrap();
        let (_, mut feed) = engine.follow(&tenant).await.unwrap();
        engine.append(&tenant, vec![draft(tenant.as_str(), "k", 1)]).await.unwrap();
        assert_eq!(take(&mut feed, 1).await[0].seq, 1);
    }
    cluster.iter().for_each(assert_nothing_refused);
}

#[tokio::test]
async fn the_documented_rights_are_enough_at_sentinels() {
    let Some(primary) = Server::start(&[]) else { return };
    let Some(sentinel) = Server::sentinel("main", primary.port) else { return };
    let rights = DOCS.lines().find_map(|line| line.strip_prefix("user needs `")).unwrap();
    let rights: Vec<_> = rights.split('`').next().unwrap().split(' ').collect();
    sentinel.command(&[&["ACL", "SETUSER", "fanfare", "on", ">secret", "-@all"], &rights[..]].concat());
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let mut config = RedisConfig::parse(&url).unwrap();
    config.sentinel_credentials.username = Some("fanfare".to_owned());
    config.sentinel_credentials.password = Some("secret".to_owned());
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    append(&engine, "").await.unwrap();
    assert_nothing_refused(&sentinel);
}

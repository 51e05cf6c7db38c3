//! Connections that look intact but are not.

use super::{
    failures::{Proxy, append_at_last},
    server::Server,
    *,
};

#[tokio::test]
async fn a_subscription_ends_when_its_node_is_silently_gone() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::start(server.port).await;
    let mut config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
    config.command_timeout = Duration::from_millis(300);
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    let mut signals = engine.signals().await.unwrap();
    proxy.mute.send_replace(true);
    ended(&mut signals).await;
}

#[tokio::test]
async fn replicas_of_another_process_confirm_nothing() {
    let (Some(one), Some(other)) = (Server::start(&[]), Server::start(&[])) else { return };
    let replica_of = format!("127.0.0.1 {}", other.port);
    let replica = Server::start(&["--replicaof", &replica_of]).unwrap();
    other.until(|| {
        let ::redis::Value::Array(role) = other.command(&["ROLE"]) else { return false };
        matches!(&role[2], ::redis::Value::Array(replicas) if !replicas.is_empty())
    });
    let proxy = Proxy::start(one.port).await;
    let mut config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
    config.ack = Ack::Replica;
    let engine = engine_with(config, Retention::default(), Limits::default()).await;
    // Commands go to one process, and waiting for replicas goes to the other.
    engine.head(&tenant()).await.unwrap();
    proxy.target.send_replace(other.port);
    append_at_last(&engine, "k").await;
    assert_eq!(other.command(&["XLEN", "ff:{1}:l"]), ::redis::Value::Int(1), "what is acknowledged is there");
    drop(replica);
}

#[tokio::test]
async fn user_and_password_may_have_any_characters() {
    let Some(server) = Server::start(&[]) else { return };
    server.command(&["ACL", "SETUSER", "a@b", "on", ">p:/%", "~*", "&*", "+@all"]);
    let url = format!("redis://a%40b:p%3A%2F%25@127.0.0.1:{}", server.port);
    let engine =
        engine_with(RedisConfig::parse(&url).unwrap(), Retention::default(), Limits::default()).await;
    append(&engine, "").await.unwrap();
}

#[tokio::test]
async fn sentinels_have_credentials_of_their_own() {
    let Some(primary) = Server::start(&[]) else { return };
    let Some(sentinel) = Server::sentinel("main", primary.port) else { return };
    sentinel.command(&["ACL", "SETUSER", "default", "on", ">secret"]);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let mut config = RedisConfig::parse(&url).unwrap();
    config.call_timeout = Duration::from_millis(300);
    let connect = |config| {
        let (retention, limits) = (Retention::default(), Limits::default());
        RedisEngine::connect(config, ServerId::random(), builtin_catalogs().clone(), retention, limits)
    };
    let refused = connect(config.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("sentinel"), "{refused}");
    config.sentinel_credentials.password = Some("secret".to_owned());
    append(&connect(config).await.unwrap(), "").await.unwrap();
}

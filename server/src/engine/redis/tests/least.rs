//! The user that docs/scaling.md gives: it may do what the engine does, and nothing else.

use super::server::Server;

/// All that it is refused: the engine does without.
const DONE_WITHOUT: &[&str] = &["config|get", "client|setinfo"];

/// The words of the documented rule.
fn rule() -> Vec<&'static str> {
    let docs = include_str!("../../../../../docs/scaling.md");
    let rule = docs.lines().find(|line| line.starts_with("user fanfare ")).unwrap();
    rule.split_whitespace().collect()
}

/// A node that knows the documented user, and refused nothing that the engine needs when it is dropped.
pub(super) struct Least(Server);

impl Least {
    pub(super) fn start() -> Option<Self> {
        let rule = rule();
        Some(Self(Server::start(&[&["--user"], &rule[1..]].concat())?))
    }

    pub(super) fn url(&self) -> String {
        let password = rule().into_iter().find_map(|word| word.strip_prefix('>')).unwrap();
        format!("redis://fanfare:{password}@127.0.0.1:{}", self.0.port)
    }

    /// What was refused to the user.
    fn refused(&self) -> Vec<String> {
        let redis::Value::Array(entries) = self.0.command(&["ACL", "LOG"]) else { panic!("no log") };
        entries.iter().map(object).collect()
    }
}

/// The command, key or channel of an entry of the log.
fn object(entry: &redis::Value) -> String {
    let redis::Value::Array(parts) = entry else { panic!("no entry: {entry:?}") };
    let text = |value: &redis::Value| redis::from_redis_value_ref::<String>(value).unwrap_or_default();
    parts.chunks(2).find(|pair| text(&pair[0]) == "object").map(|pair| text(&pair[1])).unwrap()
}

impl Drop for Least {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let refused: Vec<_> =
                self.refused().into_iter().filter(|what| !DONE_WITHOUT.contains(&what.as_str())).collect();
            assert!(refused.is_empty(), "the documented user may not use {refused:?}");
        }
    }
}

#[test]
fn the_documented_user_reaches_no_other_key_channel_or_setting() {
    let Some(server) = Server::start(&[&["--user"], &rule()[1..]].concat()) else { return };
    let least = Least(server);
    let mut connection = redis::Client::open(least.url()).unwrap().get_connection().unwrap();
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
        let refused = redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut connection);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("NOPERM") || text.contains("permission"), "{words:?}: {text}");
    }
    least.0.command(&["ACL", "LOG", "RESET"]);
}

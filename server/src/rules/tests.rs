use fanfare_proto::token::TenantScope;

use super::*;
use crate::{
    config::{Limits, PresenceConfig, Retention},
    engine::memory::MemoryEngine,
};

/// The rules of a catalog with three kinds of rooms; `chat` is declared by built-in ones.
fn rules(name: &str) -> Rules {
    const CATALOG: &str = r#"
        syntax = "proto3";
        package ruled.v1;
        import "fanfare/v1/catalog.proto";
        option (fanfare.v1.room) = { kind: "shop" access: ACCESS_TENANT reason: "shops are public" };
        option (fanfare.v1.room) = { kind: "order" access: ACCESS_CLAIM };
        option (fanfare.v1.room) = { kind: "stage" access: ACCESS_TENANT publish: ACCESS_MEMBERS reason: "a show" };
        message Said { option (fanfare.v1.event) = { name: "said" rooms: "shop:{id}" }; string id = 1; }
    "#;
    let file = std::env::temp_dir().join(format!("fanfare-rules-{name}-{}.proto", std::process::id()));
    std::fs::write(&file, CATALOG).unwrap();
    let catalogs = Arc::new(Catalogs::load(fanfare_proto::catalog::Builtin::All, &[file]).unwrap());
    let engine = Arc::new(MemoryEngine::new(Retention::default(), Limits::default()));
    let presence = Presence::new(&catalogs, &PresenceConfig::default(), engine).unwrap();
    Rules::new(catalogs, Arc::new(presence))
}

fn identity(rooms: Option<&[&str]>) -> Identity {
    Identity {
        user_id: Some("42".to_owned()),
        tenant: TenantScope::One(Tenant::new("1").unwrap()),
        scopes: Vec::new(),
        user_name: None,
        rooms: rooms.map(|rooms| rooms.iter().map(|room| Room::new(room).unwrap()).collect()),
        expires_at: None,
        claims: serde_json::Map::default(),
    }
}

#[tokio::test]
async fn each_rule_decides_alike_for_tokens_and_for_sessions() {
    let rules = rules("matrix");
    let (none, some) = (None, Some(&["shop:1", "order:1", "stage:1"][..]));
    for (claim, room, reads, publishes) in [
        (none, "org", true, true),
        (none, "user:42", true, true),
        (none, "user:43", false, true),
        (some, "user:43", false, true),
        (none, "shop:1", true, true),
        (some, "shop:1", true, true),
        (some, "shop:2", false, false),
        (none, "order:1", false, false),
        (some, "order:1", true, true),
        (some, "order:2", false, false),
        // Nobody is in a room here.
        (none, "stage:1", true, false),
        (some, "stage:2", false, false),
        (none, "undeclared:1", true, true),
        (some, "undeclared:1", false, false),
    ] {
        let (identity, room) = (identity(claim), Room::new(room).unwrap());
        let caller = identity.caller(&Tenant::new("1").unwrap(), "s", fanfare_proto::v1::Transport::Socketio);
        let told = format!("{claim:?} {room}");
        assert_eq!(rules.check_read(&identity, std::slice::from_ref(&room)).is_ok(), reads, "{told}");
        assert_eq!(rules.check_enter(&caller, &room).is_ok(), reads, "{told}");
        assert_eq!(rules.check_publish(&caller, &room).await.is_ok(), publishes, "{told}");
    }
}

#[tokio::test]
async fn a_removal_ends_what_reads_the_room_for_the_user_and_nothing_else() {
    let rules = rules("removals");
    let (tenant, room) = (Tenant::new("1").unwrap(), Room::new("shop:1").unwrap());
    let mut removals = rules.removals();
    let removal = |tenant: &str, user: &str, room: &str| Removal {
        tenant: tenant.into(),
        user_id: user.into(),
        room: room.into(),
    };
    rules.removed(removal("2", "42", "shop:1"));
    rules.removed(removal("1", "43", "shop:1"));
    rules.removed(removal("1", "42", "shop:2"));
    let identity = identity(None);
    let mut ended = Box::pin(removals.removed(&identity, &tenant, std::slice::from_ref(&room)));
    assert!(futures_util::FutureExt::now_or_never(&mut ended).is_none());
    rules.removed(removal("1", "42", "shop:1"));
    assert!(matches!(ended.await, Refusal::RoomRemoved(_)));
}

//! `fanfare token`.

use anyhow::anyhow;
use fanfare_proto::token::DEVELOPMENT_SECRET;
use serde_json::{Value, json};

use crate::{identity, settings::TokenArgs};

#[allow(clippy::print_stdout, reason = "this is what the command is for")]
pub(crate) fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let secret = args.jwt_secret.as_deref().unwrap_or_else(|| {
        eprintln!("fanfare: signed with the development key, which only fanfare dev accepts");
        DEVELOPMENT_SECRET
    });
    let list = |items: &[String]| if items.is_empty() { Value::Null } else { json!(items) };
    let mut claims = json!({
        "sub": args.user,
        "tenant": args.tenant,
        "name": args.name,
        "scopes": list(&args.scope),
        "rooms": list(&args.room),
    });
    for claim in &args.claim {
        let (name, value) = claim
            .split_once('=')
            .ok_or_else(|| anyhow!("--claim {claim:?}: want NAME=VALUE, e.g. email=ada@example.com"))?;
        claims[name] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    }
    println!("{}", identity::token(secret, args.expires, claims)?);
    Ok(())
}

//! `Admin.Revoke`.

use std::sync::Arc;

use fanfare_proto::{
    room::Room,
    token::{Identity, Scope, TenantScope},
    v1::{Revocation, RevokeRequest, RevokeResponse, revocation::Tokens, revoke_request},
};
use prost_types::Timestamp;

use super::Services;
use crate::{auth, error::Refusal, ingest};

/// The longest `jti`, in bytes.
const TOKEN_ID_BYTES_MAX: usize = 256;
/// How long a revocation is stored, in seconds: by default and at most.
const TTL_DEFAULT: u32 = 30 * 86_400;
const TTL_MAX: u32 = 400 * 86_400;

pub(super) async fn revoke(
    services: Arc<Services>,
    identity: Arc<Identity>,
    request: RevokeRequest,
) -> Result<RevokeResponse, Refusal> {
    auth::require(&identity, Scope::Admin)?;
    let tenant = match &identity.tenant {
        TenantScope::Any if request.tenant.is_empty() => String::new(),
        _ => auth::tenant(&identity, &request.tenant)?.as_str().to_owned(),
    };
    let now = ingest::now().seconds;
    let tokens = tokens(request.tokens)?;
    let issued_before = match &tokens {
        Tokens::TokenId(_) => None,
        Tokens::UserId(_) | Tokens::Everybody(_) => {
            let seconds = request.issued_before.map_or(now + 1, |time| time.seconds);
            Some(Timestamp { seconds, nanos: 0 })
        }
    };
    let ttl = match request.ttl_seconds {
        0 => TTL_DEFAULT,
        ttl @ 1..=TTL_MAX => ttl,
        ttl => return Err(Refusal::Invalid(format!("ttl_seconds is {ttl}: want 1 to {TTL_MAX}"))),
    };
    let expires_at = Some(Timestamp { seconds: now + i64::from(ttl), nanos: 0 });
    let revocation = Revocation { tenant, tokens: Some(tokens), issued_before, expires_at };
    let revocation = services.revoked.revoke(revocation).await?;
    tracing::info!(
        tenant = revocation.tenant,
        tokens = ?revocation.tokens,
        by = auth::sender(&identity),
        "tokens revoked"
    );
    Ok(RevokeResponse { revocation: Some(revocation) })
}

fn tokens(named: Option<revoke_request::Tokens>) -> Result<Tokens, Refusal> {
    match named {
        Some(revoke_request::Tokens::TokenId(id)) if (1..=TOKEN_ID_BYTES_MAX).contains(&id.len()) => {
            Ok(Tokens::TokenId(id))
        }
        Some(revoke_request::Tokens::TokenId(id)) => {
            let size = id.len();
            Err(Refusal::Invalid(format!("token_id has {size} bytes: want 1 to {TOKEN_ID_BYTES_MAX}")))
        }
        Some(revoke_request::Tokens::UserId(id)) => {
            Room::user(&id)?;
            Ok(Tokens::UserId(id))
        }
        Some(revoke_request::Tokens::Everybody(true)) => Ok(Tokens::Everybody(true)),
        Some(revoke_request::Tokens::Everybody(false)) | None => {
            Err(Refusal::Invalid("no tokens are named: give token_id, user_id, or everybody = true".into()))
        }
    }
}

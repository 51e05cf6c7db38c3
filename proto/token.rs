//! Tokens: how keys are read, tokens verified and claims interpreted, identically in server and
//! bridge.
//!
//! Knows nothing of transports: callers pass the token's text and get an [`Identity`].

mod issuer;
mod key;
mod trust;

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation, errors::ErrorKind};
use serde_json::{Map, Value};

pub use issuer::{InvalidIssuer, Issuer};
pub use key::{KeyError, KeySource};
use key::{check_secret, load};
use trust::Trust;

use crate::{
    room::{Room, Tenant},
    v1::{Caller, Reason, Transport},
};

/// The longest token that is processed, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The shortest secret that is accepted, in bytes: as long as an HS256 hash (RFC 7518, section
/// 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// The key of `fanfare dev`. It is public and therefore worthless: servers and bridges refuse it.
pub const DEVELOPMENT_SECRET: &str = "fanfare-development-key-never-for-production";

/// Where keys and claims come from.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// The keys that sign tokens; a token may be signed by any of them.
    pub keys: Vec<KeySource>,
    /// Issuers with their own keys, audience and tenant.
    pub trusted: Vec<Issuer>,
    /// Accepted values of `iss`; empty: not checked.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`; empty: not checked.
    pub audiences: Vec<String>,
    /// Tolerance for `exp` and `nbf`.
    pub leeway: Duration,
    /// Whether tokens without `exp` are refused.
    pub expiry_required: bool,
    /// Which claims contain what.
    pub claims: ClaimNames,
    /// The tenant of tokens that do not name one; `None` refuses such tokens.
    pub default_tenant: Option<Tenant>,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            trusted: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(5),
            expiry_required: true,
            claims: ClaimNames::default(),
            default_tenant: Tenant::new("default").ok(),
        }
    }
}

/// The claims that identify the bearer; of several, the first one present counts.
#[derive(Debug, Clone)]
pub struct ClaimNames {
    /// The user's id: a string or a number.
    pub user: Vec<String>,
    /// The tenant: a string or a number.
    pub tenant: Vec<String>,
    /// The user's name.
    pub name: Vec<String>,
    /// A service's scopes: an array, or a space-separated text.
    pub scopes: Vec<String>,
    /// The rooms a user is restricted to: an array.
    pub rooms: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        Self {
            user: names(&["userId", "sub", "id"]),
            tenant: names(&["organizationId", "tenant"]),
            name: names(&["username", "name"]),
            scopes: names(&["scopes"]),
            rooms: names(&["rooms"]),
        }
    }
}

/// What a service's token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Publish events.
    Notify,
    /// Read any room of the tenant.
    Subscribe,
    /// Everything that producers and consumers may do, and administration.
    Admin,
    /// Be a bridge: read every tenant and act for users.
    Bridge,
}

impl Scope {
    /// The scope's text in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
            Self::Bridge => "bridge",
        }
    }

    /// The scope of a text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Notify, Self::Subscribe, Self::Admin, Self::Bridge].into_iter().find(|s| s.as_str() == text)
    }
}

/// Which tenants a token is valid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantScope {
    /// All tenants (`*`); only tokens with scopes can have it.
    Any,
    /// One tenant.
    One(Tenant),
}

/// The identity of a verified token's bearer.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The tenants it is valid for.
    pub tenant: TenantScope,
    /// The user's id, as text. Absent for services without a subject.
    pub user_id: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
    /// What a service may do; empty: an end user.
    pub scopes: Vec<Scope>,
    /// The rooms that a user is restricted to, in addition to `org` and the user's own.
    pub rooms: Option<Vec<Room>>,
    /// When the token expires, in Unix seconds (leeway not included).
    pub expires_at: Option<u64>,
    /// All claims.
    pub claims: Map<String, Value>,
}

impl Identity {
    /// Whether the token has the scope; `admin` includes `notify` and `subscribe`.
    pub fn allows(&self, scope: Scope) -> bool {
        let by_admin =
            matches!(scope, Scope::Notify | Scope::Subscribe) && self.scopes.contains(&Scope::Admin);
        by_admin || self.scopes.contains(&scope)
    }

    /// The user as sent to the server and to upstreams; an empty `session_id` means no session.
    pub fn caller(&self, tenant: &Tenant, session_id: &str, transport: Transport) -> Caller {
        let rooms = self.rooms.as_deref().unwrap_or_default();
        Caller {
            tenant: tenant.as_str().to_owned(),
            user_id: self.user_id.clone().unwrap_or_default(),
            user_name: self.user_name.clone().unwrap_or_default(),
            session_id: session_id.to_owned(),
            claims_json: serde_json::to_vec(&self.claims).unwrap_or_default().into(),
            rooms: rooms.iter().map(|r| r.as_str().to_owned()).collect(),
            rooms_restricted: self.rooms.is_some(),
            transport: transport.into(),
            namespace: String::new(),
        }
    }

    /// Whether the user may read the room: `org`, the user's own `user:` room, and rooms of other
    /// kinds, restricted to the token's list if it has one.
    pub fn may_enter(&self, room: &Room) -> bool {
        match room.kind() {
            "org" => room.as_str() == "org",
            "user" => {
                self.user_id.as_deref().is_some_and(|id| room.as_str().strip_prefix("user:") == Some(id))
            }
            _ => self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room)),
        }
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There was no token.
    #[error("No token")]
    Missing,
    /// It has expired.
    #[error("Token expired")]
    Expired,
    /// It was revoked.
    #[error("Token revoked")]
    Revoked,
    /// It is malformed, forged, not yet valid, signed with a refused algorithm, or intended for
    /// others. The text is for the log, not for the peer.
    #[error("Invalid token")]
    Invalid(String),
    /// No known key can have signed it, and newer keys are being fetched.
    #[error("The keys of this token are being fetched; try again")]
    KeysPending,
}

impl TokenError {
    /// The number of the refusal.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Missing => Reason::NoToken,
            Self::Expired => Reason::TokenExpired,
            Self::Revoked => Reason::TokenRevoked,
            Self::Invalid(_) => Reason::InvalidToken,
            Self::KeysPending => Reason::Unavailable,
        }
    }
}

/// Verifies tokens. Created once and shared.
pub struct Verifier {
    trusts: Vec<Trust>,
    claims: ClaimNames,
    default_tenant: Option<Tenant>,
    /// Incremented when keys change.
    generation: AtomicU64,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trusts", &self.trusts.len()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the keys. Keys that are fetched from a URL are [set](Self::set_keys) later.
    pub fn new(config: &TokenConfig) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        let mut trusts = Vec::new();
        for source in &config.keys {
            match source {
                KeySource::Url(url) => trusts.push(Trust::general(config, Vec::new(), Some(url))),
                held => load(held, &mut keys)?,
            }
        }
        if !keys.is_empty() {
            trusts.insert(0, Trust::general(config, keys, None));
        }
        for issuer in &config.trusted {
            trusts.push(Trust::of_issuer(config, issuer)?);
        }
        if trusts.is_empty() {
            return Err(KeyError::None);
        }
        let (claims, default_tenant) = (config.claims.clone(), config.default_tenant.clone());
        Ok(Self { trusts, claims, default_tenant, generation: AtomicU64::new(0) })
    }

    /// The URLs of keys, each with the number for [`Self::set_keys`].
    pub fn urls(&self) -> impl Iterator<Item = (usize, &str)> {
        self.trusts.iter().enumerate().filter_map(|(number, trust)| Some((number, trust.url.as_deref()?)))
    }

    /// Replaces the keys of a URL with those of a JSON Web Key Set. Symmetric keys in it are
    /// ignored, because a published key is not secret. Returns whether anything changed.
    pub fn set_keys(&self, number: usize, json: &[u8]) -> Result<bool, KeyError> {
        let changed = match self.trusts.get(number) {
            Some(trust) => trust.set(json)?,
            None => false,
        };
        if changed {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(changed)
    }

    /// From now on a token with an unknown key requests newer keys.
    pub fn expect_newer(&self, number: usize) {
        if let Some(trust) = self.trusts.get(number) {
            trust.expect_newer();
        }
    }

    /// Whether newer keys were requested since the keys were set.
    pub fn wants_newer(&self, number: usize) -> bool {
        self.trusts.get(number).is_some_and(Trust::wants_newer)
    }

    /// Changes with the keys: tokens verified before must be verified again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Verifies a token, with or without the prefix `Bearer `.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let token = bare(token);
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid(format!("longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| TokenError::Invalid(e.to_string()))?;
        if is_critical(token) {
            return Err(TokenError::Invalid("its header has crit, of which nothing is understood".into()));
        }
        let mut refusal =
            TokenError::Invalid(format!("no key for algorithm {:?} and kid {:?}", header.alg, header.kid));
        let mut is_key_known = false;
        for trust in &self.trusts {
            for key in trust.keys().iter() {
                let other_id = matches!((&key.id, &header.kid), (Some(a), Some(b)) if a != b);
                if other_id || !key.algorithms.contains(&header.alg) {
                    continue;
                }
                let mut validation = trust.validation.clone();
                validation.algorithms = vec![header.alg];
                match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
                    Ok(data) => return self.identity(data.claims, trust.tenant.as_ref()),
                    Err(e) => {
                        let is_signed = !matches!(e.kind(), ErrorKind::InvalidSignature);
                        is_key_known |= is_signed;
                        match e.kind() {
                            ErrorKind::ExpiredSignature => refusal = TokenError::Expired,
                            _ if refusal != TokenError::Expired => {
                                refusal = TokenError::Invalid(e.to_string())
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        // Every issuer is asked, because the token may come from any of them.
        let pending = self.trusts.iter().filter(|trust| !is_key_known && trust.ask_for_newer()).count();
        Err(if pending > 0 { TokenError::KeysPending } else { refusal })
    }

    /// `own` is the issuer's tenant, if it has one.
    fn identity(&self, claims: Map<String, Value>, own: Option<&Tenant>) -> Result<Identity, TokenError> {
        let names = &self.claims;
        let user_id = text_claim(&claims, &names.user)?;
        if let Some(id) = &user_id {
            Room::user(id).map_err(|e| TokenError::Invalid(format!("user id: {e}")))?;
        }
        let scopes: Vec<Scope> = list_claim(&claims, &names.scopes, true)?
            .unwrap_or_default()
            .iter()
            .filter_map(|s| Scope::parse(s))
            .collect();
        let rooms = list_claim(&claims, &names.rooms, false)?
            .map(|rooms| rooms.iter().map(|r| Room::new(r)).collect::<Result<Vec<_>, _>>())
            .transpose()
            .map_err(|e| TokenError::Invalid(format!("rooms claim: {e}")))?;
        let tenant = match (text_claim(&claims, &names.tenant)?, own) {
            (Some(name), Some(own)) if name != own.as_str() => {
                return Err(TokenError::Invalid("its issuer has another tenant".into()));
            }
            (_, Some(own)) => TenantScope::One(own.clone()),
            (Some(any), None) if any == "*" && !scopes.is_empty() => TenantScope::Any,
            (Some(name), None) => {
                TenantScope::One(Tenant::new(&name).map_err(|e| TokenError::Invalid(e.to_string()))?)
            }
            (None, None) => TenantScope::One(
                self.default_tenant.clone().ok_or_else(|| TokenError::Invalid("names no tenant".into()))?,
            ),
        };
        Ok(Identity {
            tenant,
            user_id,
            user_name: text_claim(&claims, &names.name)?,
            scopes,
            rooms,
            expires_at: claims.get("exp").and_then(seconds),
            claims,
        })
    }
}

/// The token without `Bearer ` and surrounding white space.
pub fn bare(token: &str) -> &str {
    let token = token.trim();
    match token.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => token[7..].trim_start(),
        _ if token.eq_ignore_ascii_case("bearer") => "",
        _ => token,
    }
}

/// A NumericDate (RFC 7519, section 2) may have a fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64))
}

fn text_claim(claims: &Map<String, Value>, names: &[String]) -> Result<Option<String>, TokenError> {
    let Some((name, value)) =
        names.iter().find_map(|n| claims.get(n).filter(|v| !v.is_null()).map(|v| (n, v)))
    else {
        return Ok(None);
    };
    match value {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
        _ => Err(TokenError::Invalid(format!("claim {name} is neither a string nor an integer"))),
    }
}

fn list_claim(
    claims: &Map<String, Value>,
    names: &[String],
    spaced: bool,
) -> Result<Option<Vec<String>>, TokenError> {
    let Some((name, value)) =
        names.iter().find_map(|n| claims.get(n).filter(|v| !v.is_null()).map(|v| (n, v)))
    else {
        return Ok(None);
    };
    let wrong = || TokenError::Invalid(format!("claim {name} is not a list of strings"));
    match value {
        Value::Array(items) => items
            .iter()
            .map(|i| i.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(wrong),
        Value::String(text) if spaced => Ok(Some(text.split_whitespace().map(str::to_owned).collect())),
        _ => Err(wrong()),
    }
}

/// Whether tokens that are signed with the public development key would be accepted, regardless of
/// how the key was configured.
pub fn trusts_development_key(config: &TokenConfig) -> Result<bool, KeyError> {
    let mut keys = Vec::new();
    let of_issuers = config.trusted.iter().map(|issuer| &issuer.keys);
    for source in config.keys.iter().chain(of_issuers) {
        load(source, &mut keys)?;
    }
    let secret = EncodingKey::from_secret(DEVELOPMENT_SECRET.as_bytes());
    let trusts = |key: &key::VerifyingKey, algorithm: Algorithm| {
        let signed = jsonwebtoken::encode(&Header::new(algorithm), &Map::<String, Value>::new(), &secret);
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        signed.is_ok_and(|token| {
            jsonwebtoken::decode::<Map<String, Value>>(&token, &key.key, &validation).is_ok()
        })
    };
    let symmetric = |a: &Algorithm| matches!(a, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    Ok(keys.iter().any(|key| key.algorithms.iter().filter(|a| symmetric(a)).any(|a| trusts(key, *a))))
}

/// Whether the header requires extensions that must be understood (RFC 7515, section 4.1.11). None
/// are supported.
fn is_critical(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
    let fields = header.ok().and_then(|json| serde_json::from_slice::<Map<String, Value>>(&json).ok());
    fields.is_none_or(|fields| fields.contains_key("crit"))
}

/// Signs a token with a secret (HS256): for development, tools and tests.
pub fn sign(secret: &str, claims: &BTreeMap<String, Value>) -> Result<String, KeyError> {
    check_secret(secret)?;
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .map_err(|_| KeyError::ShortSecret(secret.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";

    fn config(keys: Vec<KeySource>) -> TokenConfig {
        TokenConfig { keys, expiry_required: false, ..TokenConfig::default() }
    }

    fn jwks(secret: &str, usage: &str) -> KeySource {
        let key = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret);
        KeySource::Jwks(format!(r#"{{"keys":[{{"kty":"oct","k":"{key}"{usage}}}]}}"#).into())
    }

    #[test]
    fn weak_secrets_are_refused() {
        let refused = |secret: &str| Verifier::new(&config(vec![KeySource::Secret(secret.into())])).is_err();
        assert!(refused("0123456789abcdef0123456789abcde") && refused(&"x".repeat(64)));
        assert!(!refused(SECRET) && !refused(DEVELOPMENT_SECRET));
    }

    #[test]
    fn the_development_key_is_found_in_every_form() {
        let trusts = |key: KeySource| trusts_development_key(&config(vec![key])).unwrap();
        assert!(trusts(KeySource::Secret(DEVELOPMENT_SECRET.into())));
        assert!(trusts(KeySource::Secret(format!("{DEVELOPMENT_SECRET}\0"))));
        assert!(
            trusts(jwks(DEVELOPMENT_SECRET, "")) && trusts(jwks(DEVELOPMENT_SECRET, r#","alg":"HS512""#))
        );
        assert!(!trusts(KeySource::Secret(SECRET.into())) && !trusts(jwks(SECRET, "")));
    }

    #[test]
    fn keys_for_encryption_verify_nothing_and_crit_is_refused() {
        assert!(Verifier::new(&config(vec![jwks(SECRET, r#","use":"sig""#)])).is_ok());
        assert!(Verifier::new(&config(vec![jwks(SECRET, r#","use":"enc""#)])).is_err());
        let verifier = Verifier::new(&config(vec![KeySource::Secret(SECRET.into())])).unwrap();
        let token = sign(SECRET, &BTreeMap::from([("sub".to_owned(), "1".into())])).unwrap();
        assert!(verifier.verify(&token).is_ok() && !is_critical(&token));
        let encode = |text| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
        let header = encode(r#"{"alg":"HS256","typ":"JWT","crit":["exp"]}"#);
        let body = format!("{header}.{}", token.split('.').nth(1).unwrap());
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(body.as_bytes(), &key, Algorithm::HS256).unwrap();
        let refused = verifier.verify(&format!("{body}.{signature}"));
        assert!(matches!(refused, Err(TokenError::Invalid(why)) if why.contains("crit")));
    }
}

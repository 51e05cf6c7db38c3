//! Keys and tokens: creates the verifier's configuration from settings, and the tools' own tokens.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use fanfare_client::Client;
use fanfare_proto::{
    room::Tenant,
    token::{ClaimNames, DEVELOPMENT_SECRET, Issuer, KeySource, TokenConfig, sign, trusts_development_key},
};
use fanfare_trust::{ClientTls, TlsError};
use serde_json::{Value, json};

use crate::settings::{ClientArgs, ServerTlsArgs, TokenSettings};

/// How long a bridge's own token is valid. It is as secret as the key that signs it.
const BRIDGE_TOKEN_AGE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a tool's own token is valid.
const TOOL_TOKEN_AGE: Duration = Duration::from_secs(24 * 3600);

/// The verifier's configuration. `development`: if no key is given, the development key is used.
pub(crate) fn config(settings: &TokenSettings, development: bool) -> anyhow::Result<TokenConfig> {
    let mut keys = Vec::new();
    if let Some(secret) = &settings.jwt_secret {
        if secret == DEVELOPMENT_SECRET && !development {
            bail!("--jwt-secret is the public development key; give a secret of your own");
        }
        keys.push(KeySource::Secret(secret.clone()));
    }
    for path in &settings.jwt_pem {
        keys.push(KeySource::pem_file(path).map_err(anyhow::Error::from)?);
    }
    for path in &settings.jwt_jwks {
        keys.push(KeySource::jwks(path).context("--jwt-jwks")?);
    }
    let trusted = settings.jwt_trust.iter().map(|text| text.parse::<Issuer>());
    let trusted: Vec<Issuer> = trusted.collect::<Result<_, _>>().context("--jwt-trust")?;
    if keys.is_empty() && trusted.is_empty() {
        if !development {
            bail!(
                "no key to verify tokens with: give --jwt-secret-file FILE, --jwt-pem FILE, --jwt-jwks URL or --jwt-trust ISSUER;jwks=URL (or run fanfare dev)"
            );
        }
        keys.push(KeySource::Secret(DEVELOPMENT_SECRET.into()));
    }
    let default_tenant = match settings.default_tenant.as_str() {
        "" => None,
        name => Some(Tenant::new(name).context("--default-tenant")?),
    };
    let config = TokenConfig {
        keys,
        trusted,
        issuers: settings.jwt_issuer.clone(),
        audiences: settings.jwt_audience.clone(),
        leeway: settings.jwt_leeway,
        expiry_required: !settings.jwt_allow_no_expiry,
        claims: ClaimNames {
            user: settings.claim_user.clone(),
            tenant: settings.claim_tenant.clone(),
            name: settings.claim_name.clone(),
            scopes: settings.claim_scopes.clone(),
            rooms: settings.claim_rooms.clone(),
        },
        default_tenant,
    };
    if !development && trusts_development_key(&config)? {
        bail!("a key that verifies tokens is the public development key; give one of your own");
    }
    Ok(config)
}

/// Signs claims that are valid for `age` from now.
pub(crate) fn token(secret: &str, age: Duration, claims: Value) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut all: BTreeMap<String, Value> =
        claims.as_object().cloned().unwrap_or_default().into_iter().filter(|(_, v)| !v.is_null()).collect();
    all.insert("iat".into(), now.as_secs().into());
    all.insert("exp".into(), now.saturating_add(age).as_secs().into());
    Ok(sign(secret, &all)?)
}

/// The first configured name of a claim.
fn first(names: &[String], default: &str) -> String {
    names.first().cloned().unwrap_or_else(|| default.to_owned())
}

/// A bridge's own token, with the configured claims, issuer and audience.
pub(crate) fn bridge_token(settings: &TokenSettings, secret: &str) -> anyhow::Result<String> {
    let claims = json!({
        first(&settings.claim_user, "sub"): "bridge",
        first(&settings.claim_tenant, "tenant"): "*",
        first(&settings.claim_scopes, "scopes"): ["bridge"],
        "iss": settings.jwt_issuer.first(),
        "aud": settings.jwt_audience.first(),
    });
    token(secret, BRIDGE_TOKEN_AGE, claims)
}

/// A tool's token: as given, or created here.
pub(crate) fn tool_token(args: &ClientArgs, scopes: &[&str]) -> anyhow::Result<String> {
    if let Some(token) = &args.token {
        return Ok(token.clone());
    }
    let secret = match &args.jwt_secret {
        Some(secret) => secret,
        None if args.server_tls.server_cert.is_some() => return Ok(String::new()),
        None if is_local(&args.server) => DEVELOPMENT_SECRET,
        None => bail!("no token for {}: give --token, or --jwt-secret to make one", args.server),
    };
    // Without the claim, the server uses its default tenant.
    let tenant = Some(args.tenant.as_str()).filter(|tenant| !tenant.is_empty());
    token(secret, TOOL_TOKEN_AGE, json!({ "sub": "fanfare-cli", "tenant": tenant, "scopes": scopes }))
}

/// TLS to a server.
pub(crate) fn client_tls(args: &ServerTlsArgs) -> Result<ClientTls, TlsError> {
    let ServerTlsArgs { server_ca, server_cert, server_key } = args;
    ClientTls::new(server_ca.clone(), server_cert.clone(), server_key.clone(), ["server-cert", "server-key"])
}

/// A tool's client of the server, with the tool's token.
pub(crate) fn tool_client(args: &ClientArgs, scopes: &[&str]) -> anyhow::Result<Client> {
    let token = tool_token(args, scopes)?;
    Ok(Client::with_tls(&args.server, &token, &client_tls(&args.server_tls)?)?)
}

fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|host| rest.starts_with(host))
}

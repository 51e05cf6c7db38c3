//! The identities of client certificates: the names in certificates, and what their bearers may do.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use fanfare_proto::{
    room::Tenant,
    token::{Identity, Scope, TenantScope},
};
use rustls::pki_types::CertificateDer;

/// The longest name, in bytes: the maximum length of a SPIFFE ID.
const NAME_BYTES_MAX: usize = 2048;

/// A certificate name and what its bearer may do, written `NAME=SCOPE+SCOPE@TENANT`, e.g.
/// `spiffe://example.org/orders=notify@acme`. Without a tenant it applies to all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    name: String,
    scopes: Vec<Scope>,
    tenant: TenantScope,
}

/// Why a text is not a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: want a name in certificates, scopes and perhaps a tenant, e.g. spiffe://example.org/orders=notify+subscribe@acme"
)]
pub struct InvalidWorkload(String);

impl FromStr for Workload {
    type Err = InvalidWorkload;

    fn from_str(text: &str) -> Result<Self, InvalidWorkload> {
        let wrong = |why: String| InvalidWorkload(why);
        let (name, rights) = text.rsplit_once('=').ok_or_else(|| wrong("there is no \"=\"".into()))?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(wrong(format!("the name has {} bytes", name.len())));
        }
        let (scopes, tenant) = match rights.split_once('@') {
            None | Some((_, "*")) => (rights.trim_end_matches("@*"), TenantScope::Any),
            Some((scopes, tenant)) => {
                (scopes, TenantScope::One(Tenant::new(tenant).map_err(|e| wrong(e.to_string()))?))
            }
        };
        let parse = |scope: &str| {
            Scope::parse(scope).ok_or_else(|| {
                wrong(format!("{scope:?} is no scope; there are notify, subscribe, admin and bridge"))
            })
        };
        let scopes = scopes.split('+').map(parse).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), scopes, tenant })
    }
}

/// All known names.
#[derive(Debug, Default)]
pub struct Workloads(HashMap<String, Arc<Identity>>);

impl Workloads {
    /// The workloads of a configuration.
    pub fn new(workloads: Vec<Workload>) -> Self {
        let identities = workloads.into_iter().map(|workload| {
            let identity = Identity {
                tenant: workload.tenant,
                user_id: Some(workload.name.clone()),
                user_name: None,
                scopes: workload.scopes,
                rooms: None,
                expires_at: None,
                claims: serde_json::Map::new(),
            };
            (workload.name, Arc::new(identity))
        });
        Self(identities.collect())
    }

    /// The identity of a verified certificate: that of the first known name among its URIs, then
    /// among its DNS names.
    pub fn identify(&self, certificate: &CertificateDer<'_>) -> Option<Arc<Identity>> {
        if self.0.is_empty() {
            return None;
        }
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_uri_names().chain(certificate.valid_dns_names());
        names.find_map(|name| self.0.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_a_name_scopes_and_perhaps_a_tenant() {
        let orders: Workload = "spiffe://example.org/orders?a=b=notify+subscribe@acme".parse().unwrap();
        assert_eq!(orders.name, "spiffe://example.org/orders?a=b");
        assert_eq!(orders.scopes, [Scope::Notify, Scope::Subscribe]);
        assert_eq!(orders.tenant, TenantScope::One(Tenant::new("acme").unwrap()));
        for all in ["bridge.example.org=bridge", "bridge.example.org=bridge@*"] {
            assert_eq!(all.parse::<Workload>().unwrap().tenant, TenantScope::Any);
        }
        for wrong in
            ["orders", "=notify", "orders=", "orders=publish", "orders=notify@", "orders=notify,admin"]
        {
            assert!(wrong.parse::<Workload>().is_err(), "{wrong}");
        }
    }
}

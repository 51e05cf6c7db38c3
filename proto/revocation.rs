//! Revoked tokens: which tokens a set of revocations covers, identically in server and bridge.
//!
//! Knows nothing of storage or of the distribution of revocations.

use std::collections::HashMap;

use crate::{
    token::{Identity, TenantScope},
    v1::{Revocation, revocation::Tokens},
};

/// What a revocation can identify a token by, in addition to its tenant and user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenStamp {
    /// Its `jti`.
    pub id: Option<Box<str>>,
    /// Its `iat`, in Unix seconds.
    pub issued_at: Option<i64>,
}

impl TokenStamp {
    /// The stamp of an identity's token. A certificate has none.
    pub fn of(identity: &Identity) -> Self {
        let id = identity.claims.get("jti").and_then(|value| value.as_str());
        let issued_at = identity.claims.get("iat").and_then(|value| value.as_f64());
        #[allow(clippy::cast_possible_truncation, reason = "a date beyond is as good as the last one")]
        let issued_at = issued_at.map(|seconds| seconds as i64);
        Self { id: id.map(Into::into), issued_at }
    }
}

/// Tokens that are no longer accepted.
#[derive(Debug, Default)]
pub struct Revocations {
    /// By tenant; the empty name means all tenants.
    tenants: HashMap<String, OfTenant>,
}

/// When each revocation expires in Unix seconds, and the `iat` that tokens must have.
#[derive(Debug, Default)]
struct OfTenant {
    tokens: HashMap<Box<str>, i64>,
    users: HashMap<Box<str>, Bound>,
    everybody: Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    issued_before: i64,
    expires_at: i64,
}

impl Bound {
    fn covers(&self, stamp: &TokenStamp) -> bool {
        stamp.issued_at.is_none_or(|issued_at| issued_at < self.issued_before)
    }

    /// If two revocations cover the same tokens, both apply.
    fn join(self, other: Option<Self>) -> Self {
        Self {
            issued_before: other.map_or(self.issued_before, |o| o.issued_before.max(self.issued_before)),
            expires_at: other.map_or(self.expires_at, |o| o.expires_at.max(self.expires_at)),
        }
    }
}

fn seconds(time: Option<prost_types::Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds)
}

impl Revocations {
    /// Adds a revocation.
    pub fn add(&mut self, revocation: &Revocation) {
        let Some(tokens) = &revocation.tokens else { return };
        let of_tenant = self.tenants.entry(revocation.tenant.clone()).or_default();
        let expires_at = seconds(revocation.expires_at);
        let bound = Bound { issued_before: seconds(revocation.issued_before), expires_at };
        match tokens {
            Tokens::TokenId(id) => {
                let known = of_tenant.tokens.entry(id.as_str().into()).or_default();
                *known = expires_at.max(*known);
            }
            Tokens::UserId(id) => {
                let known = of_tenant.users.get(id.as_str()).copied();
                of_tenant.users.insert(id.as_str().into(), bound.join(known));
            }
            Tokens::Everybody(_) => of_tenant.everybody = Some(bound.join(of_tenant.everybody)),
        }
    }

    /// Whether tokens of this tenant and user are revoked.
    pub fn covers(&self, tenant: &TenantScope, user_id: Option<&str>, stamp: &TokenStamp) -> bool {
        let own = match tenant {
            TenantScope::One(tenant) => self.tenants.get(tenant.as_str()),
            TenantScope::Any => None,
        };
        own.into_iter().chain(self.tenants.get("")).any(|of_tenant| of_tenant.covers(user_id, stamp))
    }

    /// Evicts revocations that can no longer cover a valid token.
    pub fn forget(&mut self, now: i64) {
        self.tenants.retain(|_, of_tenant| {
            of_tenant.tokens.retain(|_, expires_at| *expires_at > now);
            of_tenant.users.retain(|_, bound| bound.expires_at > now);
            of_tenant.everybody = of_tenant.everybody.filter(|bound| bound.expires_at > now);
            !(of_tenant.tokens.is_empty() && of_tenant.users.is_empty() && of_tenant.everybody.is_none())
        });
    }
}

impl OfTenant {
    fn covers(&self, user_id: Option<&str>, stamp: &TokenStamp) -> bool {
        let by_id = stamp.id.as_ref().is_some_and(|id| self.tokens.contains_key(id));
        let by_user = user_id.and_then(|id| self.users.get(id)).is_some_and(|bound| bound.covers(stamp));
        by_id || by_user || self.everybody.is_some_and(|bound| bound.covers(stamp))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::room::Tenant;

    fn revocation(tenant: &str, tokens: Tokens, issued_before: i64) -> Revocation {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        Revocation {
            tenant: tenant.to_owned(),
            tokens: Some(tokens),
            issued_before: time(issued_before),
            expires_at: time(1000),
        }
    }

    #[test]
    fn a_revocation_covers_its_tenants_tokens_that_were_issued_before() {
        let mut set = Revocations::default();
        set.add(&revocation("a", Tokens::UserId("1".into()), 100));
        set.add(&revocation("a", Tokens::UserId("1".into()), 50));
        set.add(&revocation("a", Tokens::TokenId("t".into()), 0));
        set.add(&revocation("b", Tokens::Everybody(true), 10));
        let (a, b) = (Tenant::new("a").unwrap(), Tenant::new("b").unwrap());
        let covers = |set: &Revocations, tenant: &Tenant, user, id: Option<&str>, issued_at| {
            let stamp = TokenStamp { id: id.map(Into::into), issued_at };
            set.covers(&TenantScope::One(tenant.clone()), Some(user), &stamp)
        };
        assert!(covers(&set, &a, "1", None, Some(99)) && covers(&set, &a, "1", None, None));
        assert!(!covers(&set, &a, "1", None, Some(100)) && !covers(&set, &a, "2", None, None));
        assert!(covers(&set, &a, "2", Some("t"), Some(500)) && !covers(&set, &b, "2", Some("t"), Some(500)));
        assert!(covers(&set, &b, "3", None, Some(9)) && !covers(&set, &b, "3", None, Some(10)));
        assert!(!set.covers(&TenantScope::Any, Some("1"), &TokenStamp::default()));
        set.add(&revocation("", Tokens::TokenId("t".into()), 0));
        assert!(covers(&set, &b, "2", Some("t"), Some(500)));
        set.forget(1000);
        assert!(set.tenants.is_empty());
    }
}

//! The rules for rooms that files declare.

use std::collections::HashSet;

use prost_reflect::{DynamicMessage, FileDescriptor};

use super::{Checker, text};
use crate::{
    catalog::{RoomRule, fill::options},
    room::check_kind,
    v1::Access,
};

impl Checker<'_> {
    /// Records the rules that a file declares.
    pub(super) fn declared_rules(&mut self, file: &FileDescriptor) {
        let mut seen = HashSet::new();
        for declared in options::rooms(file) {
            let kind = text(&declared, "kind");
            let rule = rule(&kind, &declared).and_then(|rule| {
                if seen.insert(kind.clone()) {
                    return Ok(rule);
                }
                Err(format!("room: the kind {kind:?} is declared twice in this file; write one rule"))
            });
            match rule {
                Ok(rule) => self.rules.entry(kind).or_default().add(rule),
                Err(problem) => self.refuse(file, &[], Some(options::ROOM), problem),
            }
        }
    }
}

fn rule(kind: &str, declared: &DynamicMessage) -> Result<RoomRule, String> {
    if check_kind(kind).is_err() {
        return Err(format!(
            "room: {kind:?} is no kind (a-z, 0-9, '_', '-', beginning with a letter); write e.g. kind: \"chat\""
        ));
    }
    if RoomRule::FIXED.contains(&kind) {
        return Err(format!(
            "room: the rule of the kind {kind:?} is fixed: \"org\" is for everybody of the tenant, \"user:\" for the user; remove it"
        ));
    }
    let access = access(declared, "access");
    let needs_claim = match access {
        Access::Tenant => false,
        Access::Claim => true,
        Access::Unspecified | Access::Members => {
            return Err(format!(
                "room: access of the kind {kind:?} is {}; want ACCESS_TENANT or ACCESS_CLAIM",
                access.as_str_name()
            ));
        }
    };
    if !needs_claim && text(declared, "reason").trim().is_empty() {
        return Err(format!(
            "room: the kind {kind:?} is open to the whole tenant without a reason; add e.g. reason: \"operators see all chats\", or use ACCESS_CLAIM"
        ));
    }
    let publish = self::access(declared, "publish");
    Ok(RoomRule {
        needs_claim,
        publish_needs_claim: publish == Access::Claim || (needs_claim && publish != Access::Tenant),
        publish_needs_member: publish == Access::Members,
    })
}

fn access(declared: &DynamicMessage, field: &str) -> Access {
    let number = declared.get_field_by_name(field).and_then(|value| value.as_enum_number());
    number.and_then(|number| Access::try_from(number).ok()).unwrap_or_default()
}

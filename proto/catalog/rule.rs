//! Access rules for the rooms of a kind.

/// The rule for a kind of rooms; if several files declare one, all of them combined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomRule {
    /// Whether the token's `rooms` claim must list a room to join and read it.
    pub needs_claim: bool,
    /// Whether the claim must list a room to publish into it.
    pub publish_needs_claim: bool,
    /// Whether only sessions in the room may publish.
    pub publish_needs_member: bool,
}

impl RoomRule {
    /// The kinds whose rule is fixed.
    pub const FIXED: [&str; 2] = ["org", "user"];

    /// Adds the requirements of another file.
    pub(super) fn add(&mut self, other: Self) {
        self.needs_claim |= other.needs_claim;
        self.publish_needs_claim |= other.publish_needs_claim;
        self.publish_needs_member |= other.publish_needs_member;
    }
}

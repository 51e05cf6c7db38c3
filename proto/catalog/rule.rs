//! Who may use the rooms of a kind.

/// The rule of a kind of rooms; where several files declare one, all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomRule {
    /// To join and read, the token's `rooms` claim must list the room.
    pub needs_claim: bool,
    /// The same to publish.
    pub publish_needs_claim: bool,
    /// Only sessions in the room may publish.
    pub publish_needs_member: bool,
}

impl RoomRule {
    /// The kinds whose rule is fixed.
    pub const FIXED: [&str; 2] = ["org", "user"];

    /// Adds what another file demands.
    pub(super) fn add(&mut self, other: Self) {
        self.needs_claim |= other.needs_claim;
        self.publish_needs_claim |= other.publish_needs_claim;
        self.publish_needs_member |= other.publish_needs_member;
    }
}

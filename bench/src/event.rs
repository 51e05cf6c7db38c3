//! The one event that every target delivers: its number and time are written into its content, and read
//! back from what a session receives.
//!
//! Knows nothing of targets and transports. Times are CLOCK_MONOTONIC, which all processes share.

use rustix::time::{ClockId, clock_gettime};

/// The type's full name in its catalog.
pub(crate) const TYPE: &str = "messenger.v1.NewMessage";

/// The length of the content, in bytes.
const CONTENT_BYTES: usize = 120;
const NUMBER_DIGITS: usize = 10;
const NANOS_DIGITS: usize = 20;
/// Where the content starts in the frame, whatever the order of the fields.
const CONTENT_KEY: &str = "\"content\":\"";
/// What the Socket.IO packet of the event starts with.
pub(crate) const PACKET_START: &str = "42[\"message:new\",";

/// `messenger.v1.NewMessage`, as far as the benchmark fills it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NewMessage {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    chat_id: i64,
    #[prost(string, tag = "3")]
    content: String,
    #[prost(bool, tag = "4")]
    from_me: bool,
    #[prost(message, optional, tag = "5")]
    timestamp: Option<prost_types::Timestamp>,
    /// 1 is `whatsapp`.
    #[prost(int32, tag = "6")]
    channel: i32,
    #[prost(int64, optional, tag = "7")]
    sender_user_id: Option<i64>,
    #[prost(string, optional, tag = "8")]
    sender_name: Option<String>,
}

impl NewMessage {
    /// The event of this number, stamped with the present time.
    pub(crate) fn new(number: u32) -> Self {
        let mut timestamp = prost_types::Timestamp::from(std::time::SystemTime::now());
        // Milliseconds, as JavaScript has them: the JSON is of the same length everywhere.
        timestamp.nanos -= timestamp.nanos % 1_000_000;
        Self {
            id: i64::from(number),
            chat_id: 1,
            content: content(number, now_nanos()),
            from_me: false,
            timestamp: Some(timestamp),
            channel: 1,
            sender_user_id: Some(7),
            sender_name: Some("Ada".into()),
        }
    }
}

/// When an event was made, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) number: u32,
    pub(crate) nanos: u64,
}

impl Stamp {
    /// Reads the stamp of a text frame; `None` when the frame is not the event.
    pub(crate) fn read(frame: &str) -> Option<Self> {
        let arguments = frame.strip_prefix(PACKET_START)?;
        let content = &arguments[arguments.find(CONTENT_KEY)? + CONTENT_KEY.len()..];
        let number = content.get(..NUMBER_DIGITS)?.parse().ok()?;
        let nanos = content.get(NUMBER_DIGITS + 1..NUMBER_DIGITS + 1 + NANOS_DIGITS)?.parse().ok()?;
        Some(Self { number, nanos })
    }
}

/// The present time of the clock that all processes share, in nanoseconds.
pub(crate) fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn content(number: u32, nanos: u64) -> String {
    format!("{:x<CONTENT_BYTES$}", format!("{number:0NUMBER_DIGITS$} {nanos:0NANOS_DIGITS$} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_of_a_frame_is_that_of_its_content() {
        let content = content(17, 123_456_789);
        assert_eq!(content.len(), CONTENT_BYTES);
        let frame = format!("42[\"message:new\",{{\"chatId\":1,\"content\":\"{content}\"}},\"cursor\"]");
        assert_eq!(Stamp::read(&frame), Some(Stamp { number: 17, nanos: 123_456_789 }));
    }

    #[test]
    fn other_frames_have_no_stamp() {
        for frame in ["2", "40{\"sid\":\"x\"}", "42[\"other\",{\"content\":\"0\"}]", "42[\"message:new\",{}]"]
        {
            assert_eq!(Stamp::read(frame), None, "{frame}");
        }
    }
}

//! Codecs that send shared bytes instead of encoding a message for each recipient.

use std::{marker::PhantomData, sync::Arc};

use bytes::{Buf as _, BufMut, Bytes};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::event::Event;

/// A response message whose bytes exist already, or can be assembled from existing bytes.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// A whole message.
    Whole(Bytes),
    /// A `fanfare.v1.SubscribeResponse` with an event.
    Generic(Arc<Event>),
    /// A catalog's response: metadata under one field, the event under another.
    Typed { meta_field: u32, event_field: u32, event: Arc<Event> },
    /// A `fanfare.v1.LinkResponse` with events.
    Link { tenant: String, cursor: String, events: Vec<Arc<Event>> },
    /// A `fanfare.v1.ReplayResponse`.
    Replay { events: Vec<Arc<Event>>, cursor: String, more: bool },
    /// A `fanfare.v1.StateResponse`.
    State { events: Vec<Arc<Event>>, cursor: String, next: String },
}

impl Frame {
    pub(super) fn message(message: &impl Message) -> Self {
        Self::Whole(message.encode_to_vec().into())
    }

    fn encode(&self, buf: &mut impl BufMut) {
        match self {
            Self::Whole(bytes) => buf.put_slice(bytes),
            Self::Generic(event) => buf.put_slice(&event.generic()),
            Self::Typed { meta_field, event_field, event } => {
                put(*meta_field, &event.meta(), buf);
                put(*event_field, &event.draft.payload, buf);
            }
            Self::Replay { events, cursor, more } => {
                // ReplayResponse.events = 1, .cursor = 2, .more = 3.
                for event in events {
                    put(1, &event.delivery(), buf);
                }
                put(2, cursor.as_bytes(), buf);
                encode_key(3, WireType::Varint, buf);
                encode_varint(u64::from(*more), buf);
            }
            Self::State { events, cursor, next } => {
                // StateResponse.entries = 80, .cursor = 81, .next_page_token = 82.
                // Delivery.ephemeral = 6 is set, because an entry must not change the client's
                // place in the log.
                for event in events {
                    let delivery = event.delivery();
                    encode_key(80, WireType::LengthDelimited, buf);
                    encode_varint(delivery.len() as u64 + 2, buf);
                    buf.put_slice(&delivery);
                    encode_key(6, WireType::Varint, buf);
                    encode_varint(1, buf);
                }
                put(81, cursor.as_bytes(), buf);
                put(82, next.as_bytes(), buf);
            }
            Self::Link { tenant, cursor, events } => {
                // LinkResponse.events = 2; EventBatch.tenant = 1, .cursor = 2, .events = 3. Each
                // delivery is encoded only once here, because events that are not recent do not
                // store their encoded forms.
                let deliveries: Vec<Bytes> = events.iter().map(|event| event.delivery()).collect();
                let size: usize = deliveries.iter().map(|delivery| put_len(3, delivery.len())).sum();
                let batch = put_len(1, tenant.len()) + put_len(2, cursor.len()) + size;
                encode_key(2, WireType::LengthDelimited, buf);
                encode_varint(batch as u64, buf);
                put(1, tenant.as_bytes(), buf);
                put(2, cursor.as_bytes(), buf);
                for delivery in &deliveries {
                    put(3, delivery, buf);
                }
            }
        }
    }
}

fn put(field: u32, bytes: &[u8], buf: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buf);
    encode_varint(bytes.len() as u64, buf);
    buf.put_slice(bytes);
}

fn put_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

#[derive(Debug, Default)]
pub(super) struct FrameEncoder;

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(dst);
        Ok(())
    }
}

/// Returns a request's bytes unchanged. They are copied, so that a retained part does not pin the
/// read buffer.
#[derive(Debug, Default)]
pub(super) struct BytesDecoder;

impl Decoder for BytesDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let mut bytes = vec![0; src.remaining()];
        src.copy_to_slice(&mut bytes);
        Ok(Some(bytes.into()))
    }
}

/// Decodes a message.
#[derive(Debug)]
pub(super) struct MessageDecoder<M>(PhantomData<M>);

impl<M: Message + Default> Decoder for MessageDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(src)
            .map(Some)
            .map_err(|e| super::status::malformed(format!("the request is not valid protobuf: {e}")))
    }
}

/// Decodes bytes, encodes frames.
#[derive(Debug, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Frame;
    type Decode = Bytes;
    type Encoder = FrameEncoder;
    type Decoder = BytesDecoder;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> BytesDecoder {
        BytesDecoder
    }
}

/// Decodes messages, encodes frames.
#[derive(Debug)]
pub(super) struct FrameCodec<M>(PhantomData<M>);

impl<M> Default for FrameCodec<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message + Default + 'static> Codec for FrameCodec<M> {
    type Encode = Frame;
    type Decode = M;
    type Encoder = FrameEncoder;
    type Decoder = MessageDecoder<M>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> MessageDecoder<M> {
        MessageDecoder(PhantomData)
    }
}

//! Follows everything that is published.

use fanfare_proto::v1::{
    TailRequest, TailResponse, TailedEvent, admin_client::AdminClient, tail_response::Kind,
};
use tonic::Streaming;

use crate::{ClientTls, Error, MESSAGE_BYTES_MAX, authorized, bearer, channel};

/// An item of a tail.
#[derive(Debug)]
pub enum Tailed {
    /// An event.
    Event(Box<TailedEvent>),
    /// This many events were skipped because the reader was too slow.
    Missed(u64),
}

/// An open tail. It has no position at which it could resume: when it breaks, it ends.
#[derive(Debug)]
pub struct Tail {
    stream: Streaming<TailResponse>,
}

impl Tail {
    /// Opens a tail at a server. The token needs the scope `admin`.
    pub async fn open(url: &str, token: &str, tls: &ClientTls, request: TailRequest) -> Result<Self, Error> {
        let mut client = AdminClient::new(channel(url, tls)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stream = client.tail(authorized(request, &bearer(token)?)).await?.into_inner();
        Ok(Self { stream })
    }

    /// The next event, or the number of events skipped before it.
    pub async fn next(&mut self) -> Result<Tailed, Error> {
        loop {
            let response = self.stream.message().await?;
            let ended = || Error::Unreachable("the server ended the stream".into());
            match response.ok_or_else(ended)?.kind {
                Some(Kind::Event(event)) => return Ok(Tailed::Event(Box::new(event))),
                Some(Kind::Missed(count)) => return Ok(Tailed::Missed(count)),
                Some(Kind::Heartbeat(_)) | None => {}
            }
        }
    }
}

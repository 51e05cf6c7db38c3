//! Reading along of everything that is published.

use fanfare_proto::v1::{
    TailRequest, TailResponse, TailedEvent, admin_client::AdminClient, tail_response::Kind,
};
use tonic::Streaming;

use crate::{ClientTls, Error, MESSAGE_BYTES_MAX, authorized, bearer, channel};

/// What a tail gives.
#[derive(Debug)]
pub enum Tailed {
    /// An event.
    Event(Box<TailedEvent>),
    /// This many events were not sent, because reading was too slow.
    Missed(u64),
}

/// An open tail. It has no place to resume at: when it breaks, it ends.
#[derive(Debug)]
pub struct Tail {
    stream: Streaming<TailResponse>,
}

impl Tail {
    /// Opens it at a server. The token needs the scope `admin`.
    pub async fn open(url: &str, token: &str, tls: &ClientTls, request: TailRequest) -> Result<Self, Error> {
        let mut client = AdminClient::new(channel(url, tls)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stream = client.tail(authorized(request, &bearer(token)?)).await?.into_inner();
        Ok(Self { stream })
    }

    /// The next event, or how many are missing before the next one.
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

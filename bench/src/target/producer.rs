//! The producer of Fanfare's events: one gRPC connection, from which the whole path is measured.

use std::{sync::Arc, thread, time::Instant};

use anyhow::bail;
use fanfare_proto::v1::{NotifyRequest, Target as Address, realtime_client::RealtimeClient};
use prost::Message as _;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::Run;
use crate::{
    audience::Audience,
    event::{NewMessage, TYPE},
};

/// Events that are due and not yet taken up.
const DUE_MAX: usize = 1024;

/// A producer on one gRPC connection.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) client: RealtimeClient<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl Producer {
    pub(super) async fn connect(url: String, token: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(url)?.tcp_nodelay(true).connect().await?;
        Ok(Self { client: RealtimeClient::new(channel), bearer: format!("Bearer {token}").parse()? })
    }

    /// Paced: one `Notify` per event. A burst: all of them through one `NotifyStream`, in hand before the
    /// first is sent: the burst's latency counts from there.
    pub(super) async fn publish(&mut self, run: Run) -> anyhow::Result<()> {
        if run.interval.is_zero() { self.publish_burst(run).await } else { self.publish_paced(run).await }
    }

    async fn publish_burst(&mut self, run: Run) -> anyhow::Result<()> {
        let Run { count, first, ref audience, .. } = run;
        let requests: Vec<_> = (first..first + count).map(|number| request(number, audience)).collect();
        let outbound = self.authorized(tokio_stream::iter(requests));
        let mut answers = self.client.notify_stream(outbound).await?.into_inner();
        let mut answered = 0;
        while answers.message().await?.is_some() {
            answered += 1;
        }
        if answered != count {
            bail!("{count} events were published and {answered} answered");
        }
        Ok(())
    }

    /// A thread keeps the pace, because timers of the runtime tick in milliseconds. An event is stamped when it is
    /// due, also when it then waits for an earlier call.
    async fn publish_paced(&mut self, run: Run) -> anyhow::Result<()> {
        let Run { count, first, interval, in_flight, audience } = run;
        let (ticks, mut due) = mpsc::channel(DUE_MAX);
        thread::spawn(move || {
            let start = Instant::now();
            for index in 0..count {
                thread::sleep((start + interval * index).saturating_duration_since(Instant::now()));
                if ticks.blocking_send(request(first + index, &audience)).is_err() {
                    return;
                }
            }
        });
        let (permits, mut calls) = (Arc::new(Semaphore::new(in_flight)), JoinSet::new());
        while let Some(request) = due.recv().await {
            let permit = Arc::clone(&permits).acquire_owned().await?;
            while let Some(answered) = calls.try_join_next() {
                answered??;
            }
            let (mut client, call) = (self.client.clone(), self.authorized(request));
            calls.spawn(async move {
                let answer = client.notify(call).await;
                drop(permit);
                answer.map(drop)
            });
        }
        while let Some(answered) = calls.join_next().await {
            answered??;
        }
        Ok(())
    }

    pub(crate) fn authorized<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }
}

/// The request that publishes the event of this number.
pub(crate) fn request(number: u32, audience: &Audience) -> NotifyRequest {
    let event = prost_types::Any {
        type_url: format!("type.googleapis.com/{TYPE}"),
        value: NewMessage::new(number).encode_to_vec(),
    };
    let target = Address {
        rooms: audience.rooms(number),
        except_sessions: audience.except(number).map(str::to_owned).into_iter().collect(),
        ..Address::default()
    };
    NotifyRequest { target: Some(target), event: Some(event) }
}

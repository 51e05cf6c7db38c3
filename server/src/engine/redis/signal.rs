//! Signals between servers: one channel per server, and one for all.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{Feed, FeedSender, ServerId, feed},
    Shared,
    fault::Fault,
};

impl Shared {
    pub(super) async fn signal(&self, to: Option<&ServerId>, bytes: &Bytes) -> Result<(), Fault> {
        let channel = self.keys.signals(to);
        let mut message = Vec::with_capacity(self.server.as_str().len() + 1 + bytes.len());
        message.extend_from_slice(self.server.as_str().as_bytes());
        message.push(b'\n');
        message.extend_from_slice(bytes);
        let mut cmd = redis::cmd("SPUBLISH");
        cmd.arg(&channel).arg(message);
        // At most once: not repeated if it may have been sent.
        self.nodes.run(&channel, &cmd, false).await.map(drop)
    }

    pub(super) async fn signals(self: &Arc<Self>) -> Result<Feed<Bytes>, Fault> {
        let own = self.nodes.subscribe(&self.keys.signals(Some(&self.server))).await?;
        let all = self.nodes.subscribe(&self.keys.signals(None)).await?;
        let (sender, feed) = feed();
        let (shared, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = pump(&shared.server, &sender, own, all) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(feed)
    }
}

/// Runs until signals may have been lost.
async fn pump(server: &ServerId, sender: &FeedSender<Bytes>, mut own: Feed<Bytes>, mut all: Feed<Bytes>) {
    loop {
        let (arrived, is_for_all) = tokio::select! {
            arrived = own.next() => (arrived, false),
            arrived = all.next() => (arrived, true),
        };
        let Some(arrived) = arrived else { return };
        for message in arrived {
            let Some(end) = message.iter().position(|byte| *byte == b'\n') else { continue };
            // A signal to all other servers is not for its sender.
            if is_for_all && message.get(..end) == Some(server.as_str().as_bytes()) {
                continue;
            }
            let bytes = message.slice(end + 1..);
            let size = bytes.len();
            if !sender.send(bytes, size) {
                return;
            }
        }
    }
}

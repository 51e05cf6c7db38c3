//! Publishes a batch over one stream, and reports the outcome of each row.

use std::{collections::VecDeque, time::Duration};

use fanfare_client::{Client, Error as ClientError};
use fanfare_proto::{
    catalog::Catalogs,
    v1::{NotifyRequest, NotifyResponse, Reason},
};
use futures_util::{StreamExt as _, stream};

use crate::Error;

use super::{request::request, rows::Row};

/// How long a batch may take. Rows that are not acknowledged by then are read again. Shorter than
/// the time for which servers remember idempotency keys.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a batch is retried while no server accepts it.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// The outcome of a batch. Rows that are in none of the lists remain queued.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Acknowledged.
    pub(super) published: Vec<i64>,
    /// How many of these had been published before.
    pub(super) duplicates: u64,
    /// Refused permanently, each with the reason.
    pub(super) refused: Vec<(i64, String)>,
    /// Why the remaining rows were not published.
    pub(super) problem: Option<Error>,
}

/// Publishes batches.
#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    catalogs: Catalogs,
}

/// Whether a refusal concerns only the row, and is permanent. Other refusals concern the relay's
/// token or the server's state; then all rows wait.
fn is_of_row(error: &ClientError) -> bool {
    let reasons = [Reason::InvalidArgument, Reason::UnknownEvent, Reason::TooLarge];
    matches!(error, ClientError::Refused { reason, .. } if reasons.contains(reason))
}

impl Publisher {
    pub(super) fn new(client: Client, catalogs: Catalogs) -> Self {
        Self { client: client.retry_for(RETRY_FOR), catalogs }
    }

    pub(super) async fn publish(&self, rows: Vec<Row>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut rest = VecDeque::with_capacity(rows.len());
        for row in rows {
            let position = row.position;
            match request(&self.catalogs, row) {
                Ok(request) => rest.push_back((position, request)),
                Err(reason) => outcome.refused.push((position, reason)),
            }
        }
        // The server appends consecutive events of one tenant together. Keys belong to a tenant, so
        // the order per key is preserved.
        rest.make_contiguous().sort_by(|(_, a), (_, b)| tenant(a).cmp(tenant(b)));
        if tokio::time::timeout(BATCH_TIMEOUT, self.send(&mut rest, &mut outcome)).await.is_err() {
            outcome.problem = Some(Error::Unanswered(BATCH_TIMEOUT));
        }
        outcome
    }

    async fn send(&self, rest: &mut VecDeque<(i64, NotifyRequest)>, outcome: &mut Outcome) {
        while !rest.is_empty() {
            let requests: Vec<_> = rest.iter().map(|(_, request)| request.clone()).collect();
            let mut answers = self.client.notify_stream(stream::iter(requests));
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answer) => accept(rest, outcome, &answer),
                    // Everything before it is answered, and nothing after it is published.
                    Err(error) if is_of_row(&error) => {
                        outcome.refused.extend(rest.pop_front().map(|(at, _)| (at, error.to_string())));
                    }
                    Err(error) => {
                        outcome.problem = Some(error.into());
                        return;
                    }
                }
            }
        }
    }
}

fn tenant(request: &NotifyRequest) -> &str {
    request.target.as_ref().map_or("", |target| &target.tenant)
}

fn accept(rest: &mut VecDeque<(i64, NotifyRequest)>, outcome: &mut Outcome, answer: &NotifyResponse) {
    outcome.duplicates += u64::from(answer.duplicate);
    outcome.published.extend(rest.pop_front().map(|(position, _)| position));
}

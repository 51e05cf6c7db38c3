//! Connections to PostgreSQL: each with time limits, and with the database's notifications.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use fanfare_proto::chain::chain;
use fanfare_trust::database_tls;
use futures_util::{StreamExt as _, stream};
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Config};

use crate::{Error, tls::Tls};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The first statements of each session. With these settings the database detects a lost client
/// within about 30 seconds and releases its locks.
const SETTINGS: &str = "SET application_name = 'fanfare'; SET statement_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '30s'; SET tcp_keepalives_idle = 10; \
    SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000";

/// A database, and how to connect to it.
#[derive(Debug, Clone)]
pub struct Database {
    config: Config,
    tls: Tls,
}

/// A connection. It closes on drop.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    notified: Arc<Notify>,
    _connection: JoinSet<()>,
}

impl Database {
    /// A database by its URL. `password` overrides one in the URL. `ca` is a file with the
    /// authorities (PEM) that are trusted instead of the system's.
    pub fn new(url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<Self, Error> {
        let mut config: Config = url.parse().map_err(|error| Error::Url(chain(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(Error::Url("it names no host".to_owned()));
        }
        if let Some(password) = password {
            config.password(password);
        }
        config.connect_timeout(CONNECT_TIMEOUT).keepalives_idle(Duration::from_secs(10));
        config.tcp_user_timeout(STATEMENT_TIMEOUT);
        Ok(Self { config, tls: Tls(database_tls("postgres-ca", ca)?) })
    }

    pub(crate) async fn connect(&self) -> Result<Session, Error> {
        let doing = "connect";
        let connected = timeout(CONNECT_TIMEOUT * 2, self.config.connect(self.tls.clone())).await;
        let (client, mut connection) = connected
            .map_err(|_| Error::Late { doing, limit: CONNECT_TIMEOUT * 2 })?
            .map_err(|source| Error::Database { doing, source })?;
        let notified = Arc::new(Notify::new());
        let notifier = notified.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => notifier.notify_one(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "the connection to the database ended")
                    }
                }
            }
            // Notifies waiters of the loss immediately.
            notifier.notify_one();
        });
        let session = Session { client, notified, _connection: task };
        within("be set up", session.client.batch_execute(SETTINGS)).await?;
        Ok(session)
    }
}

impl Session {
    /// Resolves when the database has sent a notification, or the connection has ended, since the
    /// last call.
    pub(crate) async fn notified(&self) {
        self.notified.notified().await;
    }
}

/// Waits for the response to a statement, up to the time limit.
pub(crate) async fn within<T>(
    doing: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    let limit = STATEMENT_TIMEOUT;
    timeout(limit, answer)
        .await
        .map_err(|_| Error::Late { doing, limit })?
        .map_err(|source| Error::Database { doing, source })
}

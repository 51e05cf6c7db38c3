//! One node and its connections. They are made on demand and again after they break, with
//! increasing pauses.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, PushInfo,
    RedisConnectionInfo, TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::state::Meter,
    checks::field,
    config::{Address, RedisConfig},
    fault::Fault,
    log::text,
    subscriptions::Subscriptions,
};

/// The first and the longest pause after a failed connection.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Maximum number of appends per connection that wait for replicas.
const ACKS_MAX: usize = 4096;
/// Maximum number of commands per connection without an answer.
const COMMANDS_MAX: usize = 4096;

/// Writes a key so that the connection can wait for its replication. Like removals, it runs even if
/// the memory is full.
const MARK: &str = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '', 'PX', 60000)";

/// Makes connections to nodes.
#[derive(Debug)]
pub(super) struct Connector {
    config: RedisConfig,
    ca: Option<Vec<u8>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Measures the commands of all nodes.
    pub(super) commands: Meter,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    connector: Arc<Connector>,
    link: Mutex<Option<Link>>,
    /// Held while connecting: the number of failures, and the time of the next attempt.
    connecting: tokio::sync::Mutex<(u32, Option<Instant>)>,
    pub(super) subscriptions: Subscriptions,
}

/// The connections to a node between two breaks. One connection can wait for the replication of
/// what another one wrote.
#[derive(Clone)]
pub(super) struct Link {
    number: u64,
    commands: MultiplexedConnection,
    commands_max: Arc<Semaphore>,
    acks: Arc<OnceCell<mpsc::Sender<Waiting>>>,
    /// The Redis process to which it is connected.
    run_id: Arc<str>,
}

/// A caller that waits for replicas: the key that the connection writes, and the channel for the
/// answer.
type Waiting = (String, oneshot::Sender<Result<(), Fault>>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(
        config: RedisConfig,
        ca: Option<Vec<u8>>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { config, ca, tasks, stop, commands: Meter::default() }
    }

    /// A connection to a node, whose pushes go to `pushes`.
    pub(super) async fn connect(
        &self,
        address: &Address,
        pushes: Option<Arc<dyn Fn(PushInfo) + Send + Sync>>,
    ) -> Result<MultiplexedConnection, Fault> {
        let settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.config.database)
            .set_skip_set_lib_name();
        self.connect_with(address, self.config.credentials.apply(settings), pushes).await
    }

    /// A connection to a sentinel, which has no databases and uses separate credentials.
    pub(super) async fn connect_sentinel(&self, address: &Address) -> Result<MultiplexedConnection, Fault> {
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        self.connect_with(address, self.config.sentinel_credentials.apply(settings), None).await
    }

    async fn connect_with(
        &self,
        address: &Address,
        settings: RedisConnectionInfo,
        pushes: Option<Arc<dyn Fn(PushInfo) + Send + Sync>>,
    ) -> Result<MultiplexedConnection, Fault> {
        let (host, port) = (address.host.clone(), address.port);
        let not_run = |e: redis::RedisError| Fault::NotRun(format!("{address}: {e}"));
        let info = if self.config.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = info.into_connection_info().map_err(not_run)?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let client = if self.config.tls {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: self.ca.clone() })
        } else {
            Client::open(info)
        };
        let mut options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.command_timeout));
        if let Some(pushes) = pushes {
            let sender = move |info: PushInfo| -> Result<(), ()> {
                pushes(info);
                Ok(())
            };
            options = options.set_push_sender(sender);
        }
        let client = client.map_err(not_run)?;
        client.get_multiplexed_async_connection_with_config(&options).await.map_err(not_run)
    }
}

impl Connector {
    /// Runs a task until the engine is closed.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Node {
    pub(super) fn new(address: Address, connector: Arc<Connector>) -> Self {
        let subscriptions = Subscriptions::new(address.clone(), connector.clone());
        Self { address, connector, link: Mutex::default(), connecting: Default::default(), subscriptions }
    }

    /// The connections; makes them if there are none.
    pub(super) async fn link(&self) -> Result<Link, Fault> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let mut connecting = self.connecting.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if connecting.1.is_some_and(|at| Instant::now() < at) {
            return Err(Fault::NotRun(format!("{} cannot be reached", self.address)));
        }
        match self.open().await {
            Ok(link) => {
                *connecting = (0, None);
                *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
                Ok(link)
            }
            Err(fault) => {
                *connecting = (connecting.0 + 1, Some(Instant::now() + pause(connecting.0)));
                tracing::warn!(node = %self.address, %fault, "no connection to Redis");
                Err(fault)
            }
        }
    }

    async fn open(&self) -> Result<Link, Fault> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut commands = self.connector.connect(&self.address, None).await?;
        // A replica would answer reads from its own data, which may be incomplete.
        let role: Value = redis::cmd("ROLE").query_async(&mut commands).await.map_err(Fault::from)?;
        let Value::Array(parts) = &role else { return Err(Fault::unexpected(&role)) };
        let is_primary = parts.first().and_then(text) == Some("master");
        if !is_primary {
            return Err(Fault::NotRun(format!("{} is no primary", self.address)));
        }
        let run_id = run_id(&mut commands).await?;
        Ok(Link {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            commands,
            commands_max: Arc::new(Semaphore::new(COMMANDS_MAX)),
            acks: Arc::default(),
            run_id,
        })
    }

    fn current(&self) -> Option<Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a command on the node, once.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<(Value, Link), Fault> {
        let link = self.link().await?;
        let answer = async {
            let _turn = link.commands_max.acquire().await.map_err(|e| Fault::NotRun(e.to_string()))?;
            link.commands
                .clone()
                .send_packed_command(cmd)
                .await
                .and_then(Value::extract_error)
                .map_err(Fault::from)
        };
        match self.connector.commands.measure(answer).await {
            Ok(value) => Ok((value, link)),
            Err(fault) => {
                self.judge(&link, &fault);
                Err(fault)
            }
        }
    }

    /// Runs a command on the node to which its slot is being moved.
    pub(super) async fn run_asking(&self, cmd: &Cmd) -> Result<(Value, Link), Fault> {
        let link = self.link().await?;
        let mut pipe = redis::pipe();
        pipe.cmd("ASKING").ignore().add_command(cmd.clone());
        let answer = pipe.query_async::<Vec<Value>>(&mut link.commands.clone()).await.map_err(Fault::from);
        match answer.map(|values| values.into_iter().next_back().unwrap_or(Value::Nil)) {
            Ok(value) => Ok((value, link)),
            Err(fault) => {
                self.judge(&link, &fault);
                Err(fault)
            }
        }
    }

    /// Drops connections that broke.
    fn judge(&self, link: &Link, fault: &Fault) {
        if matches!(fault, Fault::Unknown(_) | Fault::Demoted(_)) {
            let mut current = self.link.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|now| now.number == link.number) {
                *current = None;
            }
        }
    }

    /// Resolves when a replica has everything that this link wrote before the call.
    pub(super) async fn replicated(&self, link: &Link, mark: String) -> Result<(), Fault> {
        let acks = link.acks.get_or_try_init(|| async {
            let mut connection = self.connector.connect(&self.address, None).await?;
            // Another process may have taken over the address between the two connections.
            if run_id(&mut connection).await? != link.run_id {
                return Err(Fault::Unknown(format!("{} is another process now", self.address)));
            }
            let (sender, waiting) = mpsc::channel(ACKS_MAX);
            let timeout = self.connector.config.command_timeout;
            self.connector.spawn(acknowledge(connection, waiting, timeout));
            Ok::<_, Fault>(sender)
        });
        let gone = || Fault::Unknown(format!("{}: the connection was lost", self.address));
        let (sender, answer) = oneshot::channel();
        let acked = async {
            acks.await?.send((mark, sender)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        acked.await.inspect_err(|fault| self.judge(link, fault))
    }
}

/// The run id of the Redis process at the other end.
async fn run_id(connection: &mut MultiplexedConnection) -> Result<Arc<str>, Fault> {
    let info = redis::cmd("INFO").arg("server").query_async::<String>(connection).await;
    let info = info.map_err(Fault::from)?;
    let run_id = field(&info, "run_id").ok_or_else(|| Fault::Final("INFO names no run_id".to_owned()))?;
    Ok(run_id.into())
}

/// Waits for replicas on behalf of all waiting callers. Ends with the connection: data that was
/// written before a break may not be on any replica.
async fn acknowledge(
    mut connection: MultiplexedConnection,
    mut waiting: mpsc::Receiver<Waiting>,
    timeout: Duration,
) {
    let millis = u64::try_from(timeout.as_millis() / 2).unwrap_or(u64::MAX).max(1);
    let mut all = Vec::new();
    while waiting.recv_many(&mut all, ACKS_MAX).await > 0 {
        let mut pipe = redis::pipe();
        let mark = all.first().map_or("", |(mark, _)| mark.as_str());
        // WAIT covers the last write of its own connection; the replication log is shared, so
        // earlier writes of other connections are covered too.
        pipe.cmd("EVAL").arg(MARK).arg(1).arg(mark).ignore().cmd("WAIT").arg(1).arg(millis);
        let outcome = match pipe.query_async::<(i64,)>(&mut connection).await {
            Ok((replicas,)) if replicas >= 1 => Ok(()),
            Ok(_) => Err(Fault::Unknown("no replica has confirmed it in time".to_owned())),
            Err(error) => Err(Fault::Unknown(error.to_string())),
        };
        let is_over = outcome.is_err();
        for (_, sender) in all.drain(..) {
            // A caller that has gone does not need the answer.
            let _gone = sender.send(outcome.clone());
        }
        if is_over {
            return;
        }
    }
}

/// How long to wait before the next attempt after this many failures. The jitter prevents servers
/// from reconnecting at the same time.
pub(super) fn pause(failures: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << failures.min(8)).min(PAUSE_MAX);
    longest.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

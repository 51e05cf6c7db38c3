//! A real Redis on loopback, which ends with the test.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

/// A process of Redis with its own folder.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    folder: PathBuf,
    program: String,
    arguments: Vec<String>,
}

/// A port that is free now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder that no other test has.
fn folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("fanfare-redis-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Server {
    /// Starts a node; prints a message if none is installed.
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::start_in(folder(), free_port(), &arguments)
    }

    fn start_in(folder: PathBuf, port: u16, arguments: &[String]) -> Option<Self> {
        let program = std::env::var("FANFARE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let Some(process) = spawn(&program, port, &folder, arguments) else {
            eprintln!("skipped: {program} is not installed");
            return None;
        };
        Some(Self { process, port, folder, program, arguments: arguments.to_vec() })
    }

    /// Starts a sentinel that decides alone about a primary.
    pub(super) fn sentinel(name: &str, primary: u16) -> Option<Self> {
        let folder = folder();
        let file = folder.join("sentinel.conf");
        let text = format!(
            "sentinel monitor {name} 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        std::fs::write(&file, text).unwrap();
        let arguments = [file.display().to_string(), "--sentinel".to_owned()];
        Self::start_in(folder, free_port(), &arguments)
    }

    /// Starts a cluster of three primaries, and then their replicas.
    pub(super) fn cluster() -> Option<Vec<Self>> {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let mut nodes = Vec::new();
        for _ in 0..6 {
            // The port for the cluster's own traffic is chosen freely, too.
            let bus = free_port().to_string();
            nodes.push(Self::start(&[&options[..], &["--cluster-port", &bus]].concat())?);
        }
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        for node in &nodes {
            node.until(|| node.text(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        }
        for replica in &nodes[3..] {
            replica.until(|| replica.text(&["INFO", "replication"]).contains("master_link_status:up"));
        }
        Some(nodes)
    }

    /// Polls until a condition holds: Redis offers no event to wait for here.
    pub(super) fn until(&self, mut holds: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !holds() {
            assert!(start.elapsed() < std::time::Duration::from_secs(30), "it takes too long");
            std::thread::yield_now();
        }
    }

    fn text(&self, words: &[&str]) -> String {
        match self.command(words) {
            redis::Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
            redis::Value::VerbatimString { text, .. } => text,
            other => panic!("no text: {other:?}"),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it immediately.
    pub(super) fn kill(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }

    /// Starts it again after `kill`, with the data in its folder.
    pub(super) fn restart(&mut self) {
        self.process = spawn(&self.program, self.port, &self.folder, &self.arguments).unwrap();
    }

    pub(super) fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).unwrap()
    }

    fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        cmd.query(&mut connection)
    }

    /// Waits until it is a primary. Connections are cut when it becomes one.
    pub(super) fn until_primary(&self) {
        self.until(|| match self.try_command(&["ROLE"]) {
            Ok(redis::Value::Array(parts)) => parts[0] == redis::Value::BulkString(b"master".to_vec()),
            _ => false,
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a node and waits until it accepts connections; `None` if it is not installed.
fn spawn(program: &str, port: u16, folder: &std::path::Path, arguments: &[String]) -> Option<Child> {
    let is_sentinel = arguments.iter().any(|argument| argument == "--sentinel");
    let mut command = Command::new(program);
    // A configuration file must come first.
    command.args(arguments).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--dir", &folder.display().to_string()]);
    if !is_sentinel {
        command.args(["--save", "", "--appendonly", "no"]);
    }
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().ok()?;
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let is_ready =
        |line: &String| line.contains("Ready to accept connections") || line.contains("+monitor master");
    assert!(lines.by_ref().map_while(Result::ok).any(|line| is_ready(&line)), "{program} did not start");
    // Drains the later output, so that the process never blocks.
    std::thread::spawn(move || lines.for_each(drop));
    Some(process)
}

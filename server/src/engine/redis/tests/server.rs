//! A real Redis on loopback, ended with the test.

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

impl Server {
    /// Starts a node, or says that none is installed.
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_at(free_port(), arguments)
    }

    pub(super) fn start_at(port: u16, arguments: &[&str]) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fanfare-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = std::env::var("FANFARE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let Some(process) = spawn(&program, port, &folder, &arguments) else {
            println!("skipped: {program} is not installed");
            return None;
        };
        Some(Self { process, port, folder, program, arguments })
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }

    /// Starts it again after `kill`, with what is in its folder.
    pub(super) fn restart(&mut self) {
        self.process = spawn(&self.program, self.port, &self.folder, &self.arguments).unwrap();
    }

    /// Runs a command.
    pub(super) fn command(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        cmd.query(&mut connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a node and waits until it takes connections; none when it is not installed.
fn spawn(program: &str, port: u16, folder: &std::path::Path, arguments: &[String]) -> Option<Child> {
    let mut process = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", &folder.display().to_string(), "--enable-debug-command", "yes"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let is_ready =
        |line: &String| line.contains("Ready to accept connections") || line.contains("+monitor master");
    assert!(lines.by_ref().map_while(Result::ok).any(|line| is_ready(&line)), "{program} did not start");
    // What it writes later is read, so that it never waits.
    std::thread::spawn(move || lines.for_each(drop));
    Some(process)
}

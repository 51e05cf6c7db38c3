//! Real nats-servers on loopback, each with its own folder. They end with the test.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// One nats-server, or several that form a cluster.
pub(super) struct Servers {
    nodes: Vec<Node>,
    folder: PathBuf,
}

struct Node {
    config: PathBuf,
    port: u16,
    process: Option<Child>,
}

/// The program; `None`, with a line printed, if it is not installed.
fn program() -> Option<PathBuf> {
    let given = std::env::var_os("FANFARE_NATS_SERVER").map(PathBuf::from);
    let program = given.unwrap_or_else(|| "nats-server".into());
    let found = Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: {} does not run; set FANFARE_NATS_SERVER", program.display());
    }
    found.then_some(program)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Servers {
    /// Starts `count` servers; `None` if the program is not installed.
    pub(super) fn start(count: usize) -> Option<Self> {
        Self::start_with(count, "sync_interval: 2m")
    }

    /// Starts `count` servers with a setting of JetStream.
    pub(super) fn start_with(count: usize, setting: &str) -> Option<Self> {
        Self::start_configured(count, setting, "")
    }

    /// Starts `count` servers with a setting of JetStream and another setting.
    pub(super) fn start_configured(count: usize, setting: &str, other: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        program()?;
        let name = format!("fanfare-nats-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        let _fresh = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let routes: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let mut nodes = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let port = free_port();
            let mut text = format!(
                "server_name: n{number}\nlisten: \"127.0.0.1:{port}\"\njetstream {{\n  store_dir: \"{}\"\n  {setting}\n}}\n{other}\n",
                folder.join(format!("n{number}")).display()
            );
            if count > 1 {
                let urls = urls.join(", ");
                text += &format!("cluster {{ name: t, listen: \"127.0.0.1:{route}\", routes: [{urls}] }}\n");
            }
            let config = folder.join(format!("n{number}.conf"));
            std::fs::write(&config, text).unwrap();
            nodes.push(Node { config, port, process: None });
        }
        let mut servers = Self { nodes, folder };
        for number in 0..count {
            servers.launch(number);
        }
        Some(servers)
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port)).collect()
    }

    /// Starts a server with the data on its disk.
    pub(super) fn launch(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let log = std::fs::File::create(node.config.with_extension("log")).unwrap();
        let mut command = Command::new(program().unwrap());
        command.arg("-c").arg(&node.config).stdout(Stdio::null()).stderr(log);
        node.process = Some(command.spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).is_err() {
            assert!(Instant::now() < end, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Suspends a server until it is resumed; its connections stay open.
    pub(super) fn pause(&self, number: usize) {
        let id = self.signal(number, rustix::process::Signal::STOP);
        // When this is reported, all threads have stopped.
        rustix::process::waitpid(Some(id), rustix::process::WaitOptions::UNTRACED).unwrap();
    }

    pub(super) fn resume(&self, number: usize) {
        self.signal(number, rustix::process::Signal::CONT);
    }

    fn signal(&self, number: usize, signal: rustix::process::Signal) -> rustix::process::Pid {
        let process = self.nodes[number].process.as_ref().unwrap();
        let id = rustix::process::Pid::from_child(process);
        rustix::process::kill_process(id, signal).unwrap();
        id
    }

    /// Kills a server, as a crash does.
    pub(super) fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.nodes[number].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// The log of a server.
    pub(super) fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.nodes[number].config.with_extension("log")).unwrap()
    }

    /// Empties the log of a server.
    pub(super) fn forget_log(&self, number: usize) {
        std::fs::write(self.nodes[number].config.with_extension("log"), "").unwrap();
    }

    /// The folder of a server's streams.
    pub(super) fn store(&self, number: usize) -> PathBuf {
        self.folder.join(format!("n{number}"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            self.kill(number);
        }
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

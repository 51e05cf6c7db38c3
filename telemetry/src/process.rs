//! The system's values for the process, with the names that Prometheus client libraries share. Read
//! from `/proc`; missing values are omitted.

use std::fs;

use futures_util::future::BoxFuture;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::{metrics::Source, page::Page};

/// The current process.
#[derive(Debug)]
pub struct Process;

/// The fields of `/proc/self/stat` after the program's name (proc(5)): the first is number 3.
struct Stat(Vec<u64>);

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may contain any characters, including parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        Some(Self(rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect()))
    }

    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or_default()
    }
}

/// When the machine booted, in Unix seconds.
fn booted_at() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[allow(clippy::cast_precision_loss, reason = "a double is precise enough for a time")]
fn fill(page: &mut Page) {
    if let Some(stat) = Stat::read() {
        let ticks = clock_ticks_per_second() as f64;
        let cpu = (stat.field(14) + stat.field(15)) as f64 / ticks;
        page.sum("process_cpu_seconds_total", "CPU time that the process has used", cpu);
        page.gauge("process_threads", "Threads of the process", stat.field(20));
        page.gauge("process_virtual_memory_bytes", "Size of the process's address space", stat.field(23));
        let resident = stat.field(24) * page_size() as u64;
        page.gauge("process_resident_memory_bytes", "Memory that the process has in use", resident);
        if let Some(booted) = booted_at() {
            let started = booted as f64 + stat.field(22) as f64 / ticks;
            page.level("process_start_time_seconds", "When the process started, in Unix seconds", started);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The folder itself is also open while it is read.
        let count = open.count().saturating_sub(1) as u64;
        page.gauge("process_open_fds", "Open file descriptors", count);
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        page.gauge("process_max_fds", "Limit of open file descriptors", max);
    }
    page.gauges(
        "fanfare_build_info",
        "1; the label names the version",
        "version",
        [(env!("CARGO_PKG_VERSION"), 1)],
    );
}

impl Source for Process {
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        fill(page);
        Box::pin(std::future::ready(()))
    }
}

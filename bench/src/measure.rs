//! What the operating system says about processes and the machine: CPU time, resident memory, limits.
//!
//! Knows nothing of targets: it is given process ids.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the harness needs besides its sessions' sockets.
const OWN_FILES: u64 = 256;

/// The CPU time, user and system, of a process and its descendants, with that of children that ended.
pub(crate) fn cpu(root: u32) -> anyhow::Result<Duration> {
    duration(tree(root)?.iter().map(|process| process.ticks).sum())
}

/// The resident memory of a process and its descendants, in KiB.
pub(crate) fn resident_kib(root: u32) -> anyhow::Result<u64> {
    tree(root)?.iter().map(|process| rollup_kib(process.id)).sum()
}

/// `/proc/PID/status` counts lazily per thread; the rollup walks the pages.
fn rollup_kib(id: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let resident = text.lines().find_map(|line| line.strip_prefix("Rss:")).and_then(|rest| {
        let kib = rest.trim().strip_suffix("kB")?;
        kib.trim().parse().ok()
    });
    resident.with_context(|| format!("{path} has no line \"Rss: … kB\""))
}

/// One process of `/proc/PID/stat` (proc(5)).
struct Process {
    id: u32,
    parent: u32,
    ticks: u64,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may contain anything; the state follows it.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        // utime, stime, cutime, cstime are fields 14 to 17; the state is field 3.
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { id, parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

/// A process and its descendants.
fn tree(root: u32) -> anyhow::Result<Vec<Process>> {
    let mut found = vec![Process::read(root).with_context(|| format!("process {root} has ended"))?];
    let mut others: Vec<Process> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&id| id != root)
        .filter_map(Process::read)
        .collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.id) {
        let (children, rest) = others.into_iter().partition(|process| process.parent == parent);
        found.extend::<Vec<_>>(children);
        others = rest;
        next += 1;
    }
    Ok(found)
}

/// Raises the limit of open files as far as allowed, for the servers too, and checks that it is enough
/// for this many sockets.
pub(crate) fn allow_sockets(count: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")?;
    let needed = count as u64 + OWN_FILES;
    match limit.maximum {
        Some(maximum) if maximum < needed => bail!(
            "{needed} open files are needed and {maximum} allowed: raise the hard limit (ulimit -Hn), or \
             give fewer sessions"
        ),
        _ => Ok(()),
    }
}

/// How many sockets the harness may have open.
pub(crate) fn sockets_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX)
}

/// How busy the machine is with something else than the measurement.
#[derive(Debug)]
pub(crate) struct Others {
    since: Instant,
    before: Duration,
}

impl Others {
    pub(crate) fn watch() -> anyhow::Result<Self> {
        Ok(Self { since: Instant::now(), before: Self::cpu()? })
    }

    /// The cores that others kept busy since [`Others::watch`], on average.
    pub(crate) fn cores(&self) -> anyhow::Result<f64> {
        let used = Self::cpu()?.saturating_sub(self.before);
        Ok(used.as_secs_f64() / self.since.elapsed().as_secs_f64())
    }

    /// The whole machine's time less that of the harness and its children, living or ended.
    fn cpu() -> anyhow::Result<Duration> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let fields: Vec<u64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal: all but idle and iowait.
        let [user, nice, system, _, _, irq, softirq, steal, ..] = fields[..] else {
            bail!("/proc/stat does not begin with the times of all cores")
        };
        let all = duration(user + nice + system + irq + softirq + steal)?;
        Ok(all.saturating_sub(cpu(std::process::id())?))
    }
}

/// Of ticks of the CPU clock.
fn duration(ticks: u64) -> anyhow::Result<Duration> {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(rustix::param::clock_ticks_per_second());
    Ok(Duration::from_nanos(u64::try_from(nanos)?))
}

/// The machine in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(':').nth(1))
        .map_or("unknown CPU", str::trim);
    format!("{cores} cores of {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = std::process::id();
        while cpu(own).expect("own CPU time").is_zero() {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        assert!(resident_kib(own).expect("own memory") > 500);
    }

    #[test]
    fn children_count() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let found = tree(std::process::id()).expect("the tree");
        child.kill().and_then(|()| child.wait()).expect("the child ends");
        assert!(found.iter().any(|process| process.id == child.id()));
    }
}

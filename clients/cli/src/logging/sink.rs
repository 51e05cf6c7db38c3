//! Where log lines go. They wait in a bounded queue for a writer thread, so that a slow or absent
//! reader blocks no other thread.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines and bytes that may be queued.
const LINES_MAX: usize = 16_384;
const BYTES_MAX: usize = 8 << 20;
/// How often it checks whether lines were lost or suppressed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the shutdown waits for queued lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a retry when the sink, e.g. a terminal, accepts no bytes.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// A sink of lines.
#[derive(Debug)]
pub(crate) struct Sink {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    /// Lines dropped because the queue was full.
    dropped: AtomicU64,
    failed: AtomicU64,
    queued_bytes: AtomicUsize,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Acknowledged once everything before it is written.
    Flush(SyncSender<()>),
}

/// A line that is being built: each write is one line.
#[derive(Debug)]
pub(crate) struct Line(Arc<Sink>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// Starts the writer thread, which calls `report` about once a second.
    pub(crate) fn start(
        out: Box<dyn Write + Send>,
        report: impl Fn() + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (queue, waiting) = sync_channel(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let writer = Writer { out, counts: counts.clone(), told: 0, works: true };
        thread::Builder::new().name("fanfare-log".into()).spawn(move || writer.run(&waiting, report))?;
        Ok(Arc::new(Self { queue, counts }))
    }

    /// A new line.
    pub(crate) fn line(self: &Arc<Self>) -> Line {
        Line(self.clone())
    }

    /// Enqueues a line, including its line break. Never waits.
    pub(crate) fn send(&self, line: Vec<u8>) {
        let bytes = line.len();
        let before = self.counts.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > BYTES_MAX || self.queue.try_send(Message::Line(line)).is_err() {
            self.counts.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all queued lines are written, up to a limit.
    pub(crate) fn flush(&self) {
        let (done, answered) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _late = answered.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Number of lines that were written.
    pub(crate) fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Number of lines for which there was no space.
    pub(crate) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Number of lines that could not be written.
    pub(crate) fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

/// The writer thread's state.
struct Writer {
    out: Box<dyn Write + Send>,
    counts: Arc<Counts>,
    /// Number of lost lines that were already reported.
    told: u64,
    /// Whether the last line was written.
    works: bool,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Message>, report: impl Fn()) {
        let mut reported = Instant::now();
        loop {
            match waiting.recv_timeout(REPORT_INTERVAL) {
                Ok(Message::Line(line)) => self.take(&line),
                Ok(Message::Flush(done)) => {
                    let _broken = self.out.flush();
                    let _gone = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                report();
                self.tell();
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        self.works = write_all(&mut *self.out, line).is_ok();
        let count = if self.works { &self.counts.written } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.counts.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
    }

    /// Reports lost lines, once the sink works.
    fn tell(&mut self) {
        let lost = self.counts.dropped.load(Ordering::Relaxed) + self.counts.failed.load(Ordering::Relaxed);
        if self.works && lost > self.told {
            tracing::warn!(target: "log", lines = lost - self.told, "log lines were lost");
            self.told = lost;
        }
    }
}

/// Writes all bytes; retries while the sink accepts none.
fn write_all(out: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Writes when it is allowed to, and fails when it is told to.
    struct Gated {
        may: mpsc::Receiver<bool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.may.recv().unwrap_or(false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Arc<Sink>, SyncSender<bool>, Arc<Mutex<Vec<u8>>>) {
        let ((open, may), written) = (sync_channel(16), Arc::new(Mutex::new(Vec::new())));
        let out = Gated { may, written: written.clone() };
        (Sink::start(Box::new(out), || ()).unwrap(), open, written)
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_nobody_and_the_rest_is_counted() {
        let (sink, open, written) = gated();
        for number in 0..LINES_MAX + 100 {
            sink.send(format!("{number}\n").into_bytes());
        }
        // One line is being written, or is still in the queue.
        assert!((99..=100).contains(&sink.dropped()), "{}", sink.dropped());
        open.send(true).unwrap();
        open.send(false).unwrap();
        drop(open);
        sink.flush();
        while sink.written() + sink.failed() + sink.dropped() < (LINES_MAX + 100) as u64 {
            thread::yield_now();
        }
        assert_eq!((sink.written(), written.lock().unwrap().as_slice()), (1, b"0\n".as_slice()));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (sink, open, _) = gated();
        sink.send(vec![b'x'; BYTES_MAX]);
        sink.send(vec![b'x'; 1]);
        assert_eq!(sink.dropped(), 1);
        open.send(true).unwrap();
        sink.flush();
        open.send(true).unwrap();
        sink.send(vec![b'x'; 1]);
        sink.flush();
        assert_eq!((sink.written(), sink.dropped()), (2, 1));
    }
}

//! The log lines that wait to be written, and the thread that writes them.
//!
//! Logging must never wait for standard output: a pipe that nobody reads would stop every request, the health check and
//! the end of the process. So lines go into a bounded buffer, which one thread empties. When the buffer is full, lines
//! are dropped and counted, and one line says how many as soon as there is room.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// The largest size of the buffer, in bytes. As many again may be on their way to standard output.
const MAX_WAITING: usize = 2 * 1024 * 1024;
/// Memory that the buffer keeps after a burst, in bytes.
const KEPT_CAPACITY: usize = 64 * 1024;
/// The pause before another write to an output that was full.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The pause between two writes. Lines that come meanwhile are written together and wake nobody.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);

/// The buffer of lines that wait. Cheap to clone.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Any thread that logs adds to it, and the writing thread empties it. The lock is never held during a write.
    state: Mutex<State>,
    /// Wakes the writing thread and the caller of [`Lines::finish`].
    changed: Condvar,
    /// The number of lines dropped since the start.
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The number of lines dropped since a line last said so.
    unreported: u64,
    /// Whether the writing thread sleeps until it is woken.
    is_idle: bool,
    /// Whether no more lines come. The writing thread then ends once it has written everything.
    is_finishing: bool,
    /// Whether the writing thread has ended.
    has_finished: bool,
}

impl Lines {
    /// Adds a line, or drops it if too much waits.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.unreported += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        if std::mem::take(&mut state.is_idle) {
            self.0.changed.notify_all();
        }
    }

    /// Number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes lines as they come, until [`Lines::finish`]. Lines that cannot be written are dropped and counted.
    pub fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.0.state.lock();
            while state.waiting.is_empty() {
                if state.is_finishing {
                    state.has_finished = true;
                    self.0.changed.notify_all();
                    return;
                }
                state.is_idle = true;
                self.0.changed.wait(&mut state);
            }
            std::mem::swap(&mut batch, &mut state.waiting);
            let dropped = std::mem::take(&mut state.unreported);
            drop(state);
            let lost = write_lines(&mut out, &batch);
            batch.clear();
            batch.shrink_to(KEPT_CAPACITY);
            if dropped > 0 && lost == 0 {
                warn!(
                    lines = dropped,
                    "log lines were dropped, because they came faster than they could be written"
                );
            }
            let mut state = self.0.state.lock();
            if lost > 0 {
                // A line about it would be lost too. It is written once the output takes lines again.
                state.unreported += dropped + lost;
                self.0.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            if !state.is_finishing {
                self.0.changed.wait_for(&mut state, WRITE_INTERVAL);
            }
        }
    }

    /// Waits until everything is written, but no longer than `patience`.
    pub fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.0.state.lock();
        state.is_finishing = true;
        state.is_idle = false;
        self.0.changed.notify_all();
        while !state.has_finished && !self.0.changed.wait_until(&mut state, until).timed_out() {}
    }
}

/// Writes lines, and waits for an output that is full for now. Returns the number of lines that it does not take.
fn write_lines(out: &mut impl Write, mut rest: &[u8]) -> u64 {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(_) => break,
        }
    }
    let _ = out.flush();
    rest.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// `tracing_subscriber` writes each line with one write.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that takes bytes only when it is allowed to, like a pipe that is read slowly.
    struct Stuck(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_nothing_holds_up_nobody_and_costs_lines_beyond_the_bound() {
        let (lines, written) = (Lines::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (allow, allowed) = mpsc::channel();
        let (writing, out) = (lines.clone(), Stuck(allowed, written.clone()));
        let thread = thread::spawn(move || writing.write_to(out));
        let line = [b'x'; 1024];
        for _ in 0..3 * MAX_WAITING / line.len() {
            lines.push(&line);
        }
        let dropped = lines.dropped() as usize;
        assert!((MAX_WAITING / line.len()..=2 * MAX_WAITING / line.len()).contains(&dropped), "{dropped}");
        let began = Instant::now();
        lines.finish(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(allow);
        thread.join().unwrap();
        assert_eq!(written.lock().len(), 3 * MAX_WAITING - dropped * line.len());
    }

    /// An output with a list of faults to return. Afterwards it takes everything, one byte at a time.
    struct Faulty(Vec<io::ErrorKind>, Vec<u8>);

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(fault) => Err(fault.into()),
                None => {
                    self.1.push(bytes[0]);
                    Ok(1)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_is_full_for_now_loses_nothing_and_lines_it_refuses_are_counted() {
        use io::ErrorKind::{BrokenPipe, Interrupted, StorageFull, WouldBlock};
        for (faults, lost) in [
            (vec![], 0),
            (vec![Interrupted, WouldBlock, WouldBlock], 0),
            (vec![StorageFull], 2),
            (vec![BrokenPipe, WouldBlock], 2),
        ] {
            let mut out = Faulty(faults.clone(), Vec::new());
            assert_eq!(write_lines(&mut out, b"one\ntwo\n"), lost, "{faults:?}");
            assert_eq!(out.1.len(), if lost == 0 { 8 } else { 0 }, "{faults:?}");
        }
    }

    #[test]
    fn lines_that_nobody_can_write_are_counted_once_each() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writing = lines.clone();
        let thread = thread::spawn(move || writing.write_to(Broken));
        (0..100).for_each(|_| lines.push(b"line\n"));
        lines.finish(Duration::from_secs(60));
        thread.join().unwrap();
        assert_eq!(lines.dropped(), 100);
    }

    #[test]
    fn what_is_logged_is_written_in_its_order_before_the_end() {
        let (lines, written) = (Lines::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (_, ended) = mpsc::channel();
        let (writing, out) = (lines.clone(), Stuck(ended, written.clone()));
        let thread = thread::spawn(move || writing.write_to(out));
        (0..1_000).for_each(|number| lines.push(format!("{number}\n").as_bytes()));
        lines.finish(Duration::from_secs(60));
        thread.join().unwrap();
        let wanted: String = (0..1_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(written.lock().clone()).unwrap(), wanted);
        assert_eq!(lines.dropped(), 0);
    }
}

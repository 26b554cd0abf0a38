//! Cores, CPU time and memory of processes, from /proc.

use std::{
    collections::HashMap,
    fs, io,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The core of the server under test, and the core of everything else.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The core of the server.
    pub server: usize,
    /// The core of the generator and mysqld.
    pub others: usize,
}

impl Cores {
    /// Chooses the first and the last core that this process may use.
    pub fn choose() -> Result<Self, String> {
        let allowed = sched_getaffinity(None).map_err(|e| format!("no CPU affinity: {e}"))?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next_back()) {
            (Some(others), Some(server)) => Ok(Self { server, others }),
            _ => Err("two cores are needed: one for the server, one for generator and mysqld".into()),
        }
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Keeps this thread, and the processes that it starts, on one core.
pub fn pin_self(core: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &only(core))?)
}

/// Keeps all threads of a process on one core. Dropping it gives them their former cores back.
pub struct Pinned {
    before: Vec<(Pid, CpuSet)>,
}

impl Pinned {
    /// Pins a process, which may belong to another user: a missing permission is an error.
    pub fn new(pid: u32, core: usize) -> io::Result<Self> {
        let mut pinned = Self { before: Vec::new() };
        for thread in threads(pid).into_iter().filter_map(|thread| Pid::from_raw(thread as i32)) {
            let before = sched_getaffinity(Some(thread))?;
            sched_setaffinity(Some(thread), &only(core))?;
            pinned.before.push((thread, before));
        }
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for (thread, before) in &self.before {
            let _ = sched_setaffinity(Some(*thread), before);
        }
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// CPU time of each thread so far, in ns: finer than the ticks of `/proc/PID/stat`.
#[derive(Default)]
pub struct CpuTime(HashMap<u32, u64>);

impl CpuTime {
    /// Reads the CPU time of a process.
    pub fn of(pid: u32) -> Self {
        let time = |thread: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
            Some((*thread, text.split(' ').next()?.parse().ok()?))
        };
        Self(threads(pid).iter().filter_map(time).collect())
    }

    /// Returns the ns since an earlier reading. The work of a thread that has ended in between is not known; no thread that
    /// works here ends.
    pub fn since(&self, before: &Self) -> u64 {
        let spent = |(thread, now): (&u32, &u64)| now - before.0.get(thread).copied().unwrap_or(0).min(*now);
        self.0.iter().map(spent).sum()
    }
}

/// Reads the resident memory of a process, in KiB.
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Raises the limit of open files as far as it goes, also for servers that are started later, and returns it.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Measures the share of a core that other processes than ours take: noisy neighbours.
pub struct Others {
    core: usize,
    before: (u64, Instant),
}

impl Others {
    /// Begins to measure.
    pub fn watch(core: usize) -> Self {
        Self { core, before: (busy(core), Instant::now()) }
    }

    /// Returns the share of the time since then, in which our processes used `ours` ns. The kernel counts in ticks, so the
    /// window must be a second or more.
    pub fn share(&self, ours: u64) -> f64 {
        let (busy_before, start) = self.before;
        let total = start.elapsed();
        let busy = Duration::from_millis(10 * (busy(self.core) - busy_before));
        busy.saturating_sub(Duration::from_nanos(ours)).as_secs_f64() / total.as_secs_f64()
    }
}

/// Reads the ticks in which a core was busy: user, nice, system, irq, softirq, steal.
fn busy(core: usize) -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let ticks: Vec<u64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum()
}

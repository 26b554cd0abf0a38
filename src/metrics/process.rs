//! Metrics of the process itself, which Linux keeps, under the names that Prometheus' own clients give them.
//!
//! They are read from /proc when a scrape comes. If they cannot be read, they are left out.

use std::fmt;

use procfs::{
    ProcResult, WithCurrentSystemInfo, boot_time_secs,
    process::{LimitValue, Process as Proc},
    ticks_per_second,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The collector of these metrics.
#[derive(Debug)]
pub struct Process;

/// The numbers at one time.
struct Sample {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started_at: f64,
    threads: i64,
    open_fds: usize,
    /// `None`: there is no limit.
    max_fds: Option<u64>,
}

impl Sample {
    fn read() -> ProcResult<Self> {
        let process = Proc::myself()?;
        let (stat, ticks) = (process.stat()?, ticks_per_second() as f64);
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            started_at: boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
            threads: stat.num_threads,
            open_fds: process.fd_count()?,
            max_fds: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            },
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Ok(sample) = Sample::read() else { return Ok(()) };
        let cpu = ConstCounter::new(sample.cpu_seconds);
        let help = "Processor time that the process has used.";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu",
            help,
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?)?;
        let max_fds = sample.max_fds.map_or(f64::INFINITY, |most| most as f64);
        for (name, unit, help, value) in [
            ("resident_memory", Some(Unit::Bytes), "Resident memory.", sample.resident_bytes as f64),
            ("virtual_memory", Some(Unit::Bytes), "Mapped memory.", sample.virtual_bytes as f64),
            ("open_fds", None, "Open file descriptors; each connection is one.", sample.open_fds as f64),
            ("max_fds", None, "Limit of open file descriptors.", max_fds),
            (
                "start_time",
                Some(Unit::Seconds),
                "Start of the process, since 1970-01-01T00:00:00Z.",
                sample.started_at,
            ),
            ("threads", None, "Threads of the process.", sample.threads as f64),
        ] {
            let (gauge, name) = (ConstGauge::new(value), format!("process_{name}"));
            gauge.encode(encoder.encode_descriptor(&name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

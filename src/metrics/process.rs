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

/// A gauge: its name behind `process_`, its unit, its help and its value.
type Sample = (&'static str, Option<Unit>, &'static str, f64);

/// Reads the seconds of processor time, and the gauges.
fn read() -> ProcResult<(f64, [Sample; 6])> {
    let process = Proc::myself()?;
    let (stat, ticks) = (process.stat()?, ticks_per_second() as f64);
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(most) => most as f64,
        LimitValue::Unlimited => f64::INFINITY,
    };
    let open_fds = process.fd_count()? as f64;
    let started_at = boot_time_secs()? as f64 + stat.starttime as f64 / ticks;
    let gauges = [
        ("resident_memory", Some(Unit::Bytes), "Resident memory.", stat.rss_bytes().get() as f64),
        ("virtual_memory", Some(Unit::Bytes), "Mapped memory.", stat.vsize as f64),
        ("open_fds", None, "Open file descriptors; each connection is one.", open_fds),
        ("max_fds", None, "Limit of open file descriptors.", max_fds),
        ("start_time", Some(Unit::Seconds), "Start of the process, since 1970-01-01T00:00:00Z.", started_at),
        ("threads", None, "Threads of the process.", stat.num_threads as f64),
    ];
    Ok(((stat.utime + stat.stime) as f64 / ticks, gauges))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Ok((cpu_seconds, gauges)) = read() else { return Ok(()) };
        let (cpu, help) = (ConstCounter::new(cpu_seconds), "Processor time that the process has used.");
        let unit = Some(&Unit::Seconds);
        cpu.encode(encoder.encode_descriptor("process_cpu", help, unit, cpu.metric_type())?)?;
        for (name, unit, help, value) in gauges {
            let (gauge, name) = (ConstGauge::new(value), format!("process_{name}"));
            gauge.encode(encoder.encode_descriptor(&name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

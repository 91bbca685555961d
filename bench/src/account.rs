//! What a process has used, by the kernel's own account: processor time and resident memory.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::figures::Figures;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    pid: u32,
}

pub fn run(args: &Args) -> Result<Figures> {
    let process = Process(args.pid);
    let mut figures = Figures::default();
    figures.set("cpu_s", process.cpu()?.as_secs_f64());
    figures.set("resident_mb", process.resident_bytes()? as f64 / 1e6);
    Ok(figures)
}

/// A process whose use is read from /proc.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// User and system time of all its threads so far, in steps of a clock tick (10 ms).
    pub fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // "PID (NAME) STATE PPID ..."; the name may hold anything.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64> {
            let field = fields.get(at).context("too few fields in /proc/PID/stat")?;
            Ok(field.parse()?)
        };
        // utime and stime are fields 14 and 15; the state, here first, is field 3.
        let ticks = ticks(11)? + ticks(12)?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Its share of one core over the next `seconds`.
    pub fn idle_cpu_percent(self, seconds: f64) -> Result<f64> {
        let before = self.cpu()?;
        std::thread::sleep(Duration::from_secs_f64(seconds));
        Ok((self.cpu()? - before).as_secs_f64() / seconds * 100.0)
    }

    pub fn resident_bytes(self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that it has had at any time.
    pub fn resident_max_bytes(self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(self, name: &str) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib = kib.with_context(|| format!("no {name} in /proc/PID/status"))?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path)
            .with_context(|| format!("{path}: does the process still run?"))
    }
}

//! Running other programs: output shown as it comes, a time limit, and nothing left behind.
//!
//! Every program gets a process group of its own, so that what it started ends with it when its
//! time is up. Deliberately no retries: a step that fails has failed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

/// Runs `command` to its end and fails unless it exits with 0. Output goes to the terminal.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    if !run_lines(command, limit, |line| println!("{line}"))? {
        bail!("failed: {}", shown(command));
    }
    Ok(())
}

/// Runs `command` and hands over each line of its standard output as it comes; whether it exited
/// with 0. Standard error goes to the terminal. Past `limit` its process group is killed.
pub fn run_lines(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn_group(command)?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let (lines, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => on_line(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                signal_group(&child, Signal::KILL);
                child.wait()?;
                bail!("not done within {} s: {}", limit.as_secs(), shown(command));
            }
        }
    }
    let _ = reader.join();
    Ok(wait_until(&mut child, deadline)?.success())
}

/// What `command` prints on standard output; fails unless it exits with 0.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start: {}", shown(command)))?;
    if !output.status.success() {
        bail!("failed: {}", shown(command));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts `command` in a process group of its own.
pub fn spawn_group(command: &mut Command) -> Result<Child> {
    command
        .process_group(0)
        .spawn()
        .with_context(|| format!("could not start: {}", shown(command)))
}

/// Asks with SIGTERM, insists with SIGKILL after `patience`; whether it went by itself with 0.
pub fn stop(child: &mut Child, patience: Duration) -> Result<bool> {
    if let Some(status) = child.try_wait()? {
        return Ok(status.success());
    }
    signal_group(child, Signal::TERM);
    match wait_until(child, Instant::now() + patience) {
        Ok(status) => Ok(status.success()),
        Err(_) => Ok(false),
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            signal_group(child, Signal::KILL);
            child.wait()?;
            bail!("killed: it was not done in time");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal_group(child: &Child, signal: Signal) {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        // It may be gone already, which is what is wanted.
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Whether a program of this name is on the PATH.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    if text.len() > 300 {
        text.truncate(text.floor_char_boundary(300));
        text.push_str("...");
    }
    text
}

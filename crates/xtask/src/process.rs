//! Running other programs: output shown as it comes, a time limit, and nothing left behind.
//!
//! Programs stay in the terminal's process group, so that Ctrl-C ends them too; when the time of
//! one is up, it is killed with everything that it started. Deliberately no retries: a step that
//! fails has failed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
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
/// with 0. Standard error goes to the terminal. Past `limit` it is killed.
pub fn run_lines(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn(command)?;
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
                kill_tree(&mut child)?;
                bail!("not done within {} s: {}", limit.as_secs(), shown(command));
            }
        }
    }
    let _ = reader.join();
    Ok(wait_until(&mut child, deadline)?.success())
}

/// Runs `command` with all that it prints in the file `log`, and says how it ended; `None` if it was
/// killed, with everything that it started, because `limit` had passed.
pub fn run_logged(
    command: &mut Command,
    log: &Path,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    let output = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output);
    let mut child = spawn(command)?;
    ended_by(&mut child, Instant::now() + limit)
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

/// Starts `command` so that it outlives this program and its terminal.
pub fn spawn_apart(command: &mut Command) -> Result<Child> {
    spawn(command.process_group(0))
}

pub fn spawn(command: &mut Command) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("could not start: {}", shown(command)))
}

/// Asks with SIGTERM, insists with SIGKILL after `patience`; whether it went by itself with 0.
pub fn stop(child: &mut Child, patience: Duration) -> Result<bool> {
    if let Some(status) = child.try_wait()? {
        return Ok(status.success());
    }
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        rustix::process::kill_process(pid, Signal::TERM)?;
    }
    match wait_until(child, Instant::now() + patience) {
        Ok(status) => Ok(status.success()),
        Err(_) => Ok(false),
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<ExitStatus> {
    ended_by(child, deadline)?.context("killed: it was not done in time")
}

/// How the child ended; `None` if it had not by the deadline and was killed.
fn ended_by(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            kill_tree(child)?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a child and everything that descends from it.
fn kill_tree(child: &mut Child) -> Result<()> {
    let mut doomed = vec![child.id() as i32];
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        doomed.extend(children(parent));
        next += 1;
    }
    for pid in doomed.into_iter().filter_map(Pid::from_raw) {
        // It may be gone already, which is what is wanted.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    child.wait()?;
    Ok(())
}

fn children(parent: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_parent = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "PID (NAME) STATE PARENT ..."; the name may hold anything.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    pids.filter(of_parent).collect()
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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn what_takes_too_long_is_killed_with_its_children() {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; sleep 60 & sleep 60"]);
        let mut lines = Vec::new();
        let limit = Duration::from_millis(300);
        let outcome = super::run_lines(&mut command, limit, |line| lines.push(line.to_owned()));
        assert!(outcome.unwrap_err().to_string().contains("not done within"));
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(super::children(lines[0].parse().unwrap()).is_empty());
    }
}

//! A relay or a sink under measurement: its file, and its process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use super::Setting;
use crate::account::Process;

const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Of what a process said before it ended, in bytes.
const LAST_WORDS: usize = 2_000;

/// What is run: the verb is also the name of its table in the file.
pub struct Program<'a> {
    setting: &'a Setting,
    verb: &'static str,
}

/// The process. It is killed when dropped.
pub struct Part {
    child: Child,
    log: PathBuf,
    pub process: Process,
}

impl<'a> Program<'a> {
    /// Writes the file of a relay that reads `database`, and makes what it needs there.
    pub fn relay(setting: &'a Setting, database: &str, more: &str) -> Result<Program<'a>> {
        let topic = &setting.topic;
        let more = format!("{more}\nrouter.route.topic.replacement = \"{topic}\"");
        let program = Program::new(setting, "relay", database, &more)?;
        program.run(&["outbox", "init", "--apply"])?;
        Ok(program)
    }

    /// The same of a sink that writes to `database`.
    pub fn sink(setting: &'a Setting, database: &str, more: &str) -> Result<Program<'a>> {
        let more = format!("topics = [\"{}\"]\n{more}", setting.topic);
        let program = Program::new(setting, "sink", database, &more)?;
        program.run(&["sink", "init", "--apply"])?;
        Ok(program)
    }

    fn new(
        setting: &'a Setting,
        verb: &'static str,
        database: &str,
        more: &str,
    ) -> Result<Program<'a>> {
        let Setting {
            bootstrap, topic, ..
        } = setting;
        let text = format!(
            "bootstrap.servers = \"{bootstrap}\"\n[[{verb}]]\nname = \"{topic}\"\n\
             database = \"{database}\"\n{more}\n"
        );
        std::fs::create_dir_all(&setting.home)?;
        let program = Program { setting, verb };
        std::fs::write(program.file(), text)?;
        Ok(program)
    }

    fn file(&self) -> PathBuf {
        self.setting.home.join("pipeline.toml")
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.setting.oncelog);
        command.args(args).arg("--config").arg(self.file());
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", args.join(" "));
        Ok(())
    }

    pub fn start(&self) -> Result<Part> {
        let path = self.setting.home.join(format!("{}.log", self.verb));
        let log = std::fs::File::create(&path)?;
        let mut command = Command::new(&self.setting.oncelog);
        command.arg(self.verb).arg("--config").arg(self.file());
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        Part::spawn(&mut command, path)
    }
}

impl Part {
    /// A process that writes what it says to `log`.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Result<Part> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let process = Process(child.id());
        Ok(Part {
            child,
            log,
            process,
        })
    }

    /// Errors: it has ended, and its last words.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = said.ceil_char_boundary(said.len().saturating_sub(LAST_WORDS));
        bail!("it ended by itself with {status}: {}", &said[from..]);
    }

    /// As a user stops it.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a process id")?, Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

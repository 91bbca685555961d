//! `oncelog start`: a broker as a process, from its arguments to its exit.

use crate::config::{ConfigProblem, Layers, Place, Property, environment, file};
use crate::fatal::OnFailure;
use crate::server::{RunningServer, Server, ServerConfig, ShutdownError, StartError};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a broker's log shows unless something else is asked for.
pub const LOG_FILTER: &str = "warn,oncelog=info,oncelog_server=info,oncelog_console=info,\
     oncelog_relay=info,oncelog_sink=info";

/// The arguments of `oncelog start`; each is stronger than the environment and the file.
#[derive(Clone, Debug, Default)]
pub struct StartArgs {
    /// TOML, or a Kafka `server.properties`.
    pub config: Option<PathBuf>,
    /// Short for `log.dirs`.
    pub data_dir: Option<PathBuf>,
    /// `key=value` pairs, any configuration.
    pub set: Vec<(String, String)>,
    /// Top-level keys of the file that are not the broker's.
    pub others: Vec<&'static str>,
}

/// Stops what runs beside a broker, and waits until it has.
pub type StopBeside = Box<dyn FnOnce() + Send>;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    #[error("the broker did not start: {0}")]
    Start(#[from] StartError),
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    #[error("the operating system refused: {0}")]
    System(#[from] io::Error),
}

/// Runs a broker until SIGTERM or SIGINT; a second signal leaves at once. The banner goes to
/// standard output, the log to wherever the caller's `tracing` subscriber puts it (standard error,
/// if there is none).
pub fn run(args: StartArgs) -> Result<(), RunError> {
    run_beside(args, |_| Box::new(|| {}))
}

/// As [`run`], with something beside the broker: started when clients are served, stopped before the broker is.
pub fn run_beside(
    args: StartArgs,
    beside: impl FnOnce(&RunningServer) -> StopBeside,
) -> Result<(), RunError> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(LOG_FILTER))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init(); // the caller's own, if it has one
    let broker = layers(&args)?.resolve()?;
    for warning in &broker.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the start, so that a signal during recovery is not lost.
        let mut signals = Signals::install()?;
        let start = Server::start(ServerConfig {
            broker,
            on_failure: OnFailure::ExitProcess,
        });
        let server = tokio::select! {
            server = start => server?,
            // Recovery may be stopped anywhere: it begins again at the next start.
            name = signals.next() => exit_now(name),
        };
        println!("{}", server.banner());
        let stop_beside = beside(&server);
        let name = signals.next().await;
        tracing::info!("{name}: shutting down");
        let shutdown = async {
            // A panic in there is no reason to leave the broker unclean.
            let _ = tokio::task::spawn_blocking(stop_beside).await;
            server.shutdown().await
        };
        tokio::select! {
            result = shutdown => {
                result?;
                tracing::info!("stopped cleanly");
                Ok(())
            }
            name = signals.next() => exit_now(name),
        }
    })
}

fn layers(args: &StartArgs) -> Result<Layers, ConfigProblem> {
    let mut layers = Layers::default();
    if let Some(path) = &args.config {
        layers.add(file::read(path, &args.others)?);
    }
    let variables = std::env::vars_os();
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    layers.add(environment::read(variables.filter_map(text)));
    let flag = |key: &str, value: String| Property {
        key: key.to_owned(),
        value,
        place: Place::Flag,
    };
    if let Some(directory) = &args.data_dir {
        layers.add([flag("log.dirs", directory.display().to_string())]);
    }
    layers.add(args.set.iter().map(|(key, value)| flag(key, value.clone())));
    Ok(layers)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn exit_now(signal: &str) -> ! {
    tracing::warn!("{signal}: leaving at once; the next start recovers from the log");
    std::process::exit(if signal == "SIGINT" { 130 } else { 143 })
}

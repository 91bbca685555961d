//! Relays and sinks as threads of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use oncelog_relay::config::Config as RelayConfig;
use oncelog_relay::launch;
use oncelog_relay::relay::Stop;

use super::figures::{Figures, Shown};
use crate::failure::Failure;

/// One of them; it runs until it is stopped, or stops by itself.
pub struct Running {
    /// With its kind before it, for a person.
    pub name: String,
    config_name: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Failure>>,
    figures: Figures,
}

impl Running {
    pub fn relay(config: RelayConfig, bootstrap: String) -> Running {
        let figures = Arc::new(oncelog_relay::host::Figures::default());
        let stop = Arc::new(AtomicBool::new(false));
        let config_name = config.name.clone();
        let thread = {
            let (figures, stop) = (Arc::clone(&figures), Arc::clone(&stop));
            std::thread::spawn(move || run_relay(&config, &bootstrap, &stop, &figures))
        };
        Running {
            name: format!("relay {config_name}"),
            config_name,
            stop,
            thread,
            figures: Figures::Relay(figures),
        }
    }

    pub fn sink(config: oncelog_sink::config::Config, bootstrap: String) -> Running {
        let figures = Arc::new(oncelog_sink::host::Figures::default());
        let stop = Arc::new(AtomicBool::new(false));
        let config_name = config.name.clone();
        let thread = {
            let (figures, stop) = (Arc::clone(&figures), Arc::clone(&stop));
            std::thread::spawn(move || {
                let ended = oncelog_sink::host::run(&config, &bootstrap, &stop, &figures);
                ended.map_err(|stop| sink_failure(&config.name, stop))
            })
        };
        Running {
            name: format!("sink {config_name}"),
            config_name,
            stop,
            thread,
            figures: Figures::Sink(figures),
        }
    }

    /// Whose figures they are, and they.
    pub fn shown(&self) -> Shown {
        Shown {
            name: self.config_name.clone(),
            figures: self.figures.clone(),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end. Errors: why it stopped by itself.
    pub fn join(self) -> Result<(), Failure> {
        self.thread.join().unwrap_or_else(|_| {
            Err(
                Failure::refused(format!("{} ended with a panic", self.name))
                    .next("this is a bug of Oncelog's: please report it with the lines above"),
            )
        })
    }
}

fn run_relay(
    config: &RelayConfig,
    bootstrap: &str,
    stop: &Arc<AtomicBool>,
    figures: &oncelog_relay::host::Figures,
) -> Result<(), Failure> {
    let name = &config.name;
    let ended = launch::run(config, bootstrap, stop, figures)
        .map_err(|why| Failure::usage(format!("relay {name} cannot be started")).why(why))?;
    let failure = |what: String, why: String| Err(Failure::refused(what).why(why));
    match ended {
        None => Ok(()),
        Some(Stop::Fenced(why)) => failure(format!("relay {name} has stopped: it was fenced"), why),
        Some(Stop::Refused(why)) => {
            failure(format!("relay {name} has stopped: it must not go on"), why)
        }
        Some(Stop::Poison(why)) => Err(Failure::refused(format!(
            "relay {name} has stopped before a row that can never be published"
        ))
        .why(why)
        .next(
            "mend or delete the row and start the relay again; or set on.poison = \"quarantine\", \
             which sends such rows to a dead-letter topic",
        )),
    }
}

fn sink_failure(name: &str, stop: oncelog_sink::sink::Stop) -> Failure {
    use oncelog_sink::sink::Stop;
    match stop {
        Stop::Fenced(why) => {
            Failure::refused(format!("sink {name} has stopped: it was fenced")).why(why)
        }
        Stop::Refused(why) => {
            Failure::refused(format!("sink {name} has stopped: it must not go on")).why(why)
        }
        Stop::Poison(why) => {
            let what = format!("sink {name} has stopped before a record that can never be a row");
            Failure::refused(what).why(why).next(
                "mend the mapping or the table and start the sink again; or set dead.letter = \
                 \"table\", which puts such records into the table oncelog_dead_letter",
            )
        }
    }
}

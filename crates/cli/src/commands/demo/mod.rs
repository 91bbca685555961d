//! `oncelog demo`: orders travel from a database through an outbox relay, a broker and a sink into
//! another database, at each of the three guarantees, while those are killed with SIGKILL; at the end the
//! two databases of each are compared.
//!
//! Broker, relays and sinks are this same binary, each in a process of its own, as anybody would run
//! them (`oncelog start`, `oncelog relay`, `oncelog sink`). The tally is computed by
//! [`crate::audit`] from what is in the databases; nothing in it comes from a program's own counters.

mod child;
mod shop;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::json;

use super::audit::compare;
use crate::audit::{Place, Report};
use crate::failure::Failure;
use crate::options::Options;
use child::{Broker, Process};
use shop::Shop;

/// Move orders from database to topic to database under SIGKILL, at all three guarantees, and count
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// For how long orders are placed
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,

    /// Orders a second, at each guarantee
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,

    /// How often something is killed meanwhile: relays, sinks and the broker take turns
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    kills: u32,

    /// Leave everything running, and the databases in place, at the end
    #[arg(long)]
    keep: bool,
}

const LEVELS: [&str; 3] = ["at-most-once", "at-least-once", "exactly-once"];

/// How long the last orders may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Nothing arrives for so long: all that will has arrived.
const QUIET: Duration = Duration::from_millis(1_500);

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let began = Instant::now();
    let mut screen = Screen::new(options.json());
    let mut demo = Demo::start(&mut screen)?;
    let kills = demo.place_orders(args, &mut screen)?;
    demo.wait_for_arrivals(&mut screen)?;
    if !args.keep {
        demo.stop();
    }
    let mut reports = Vec::new();
    for place in &demo.places {
        reports.push(place.audit()?);
    }
    let took = began.elapsed();
    report(&reports, &kills, took, options);
    if args.keep {
        demo.keep();
    }
    Ok(verdict(&reports)?)
}

/// The two databases of one guarantee.
struct Ends {
    level: &'static str,
    shop: PathBuf,
    warehouse: PathBuf,
}

impl Ends {
    fn audit(&self) -> Result<Report, Failure> {
        let place = |path: &Path, table: &str, order: &str| Place {
            database: format!("sqlite:{}", path.display()),
            table: table.to_owned(),
            id: "event_id".to_owned(),
            key: Some("customer".to_owned()),
            order: order.to_owned(),
        };
        compare(
            &place(&self.shop, "orders", "id"),
            &place(&self.warehouse, "received", "arrival"),
        )
    }

    /// Orders placed and rows received so far.
    fn counts(&self) -> Result<(u64, u64), Failure> {
        Ok((
            shop::count(&self.shop, "orders")?,
            shop::count(&self.warehouse, "received")?,
        ))
    }
}

struct Demo {
    /// Removed on drop, unless kept.
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    pipeline: PathBuf,
    places: Vec<Ends>,
    // In the order in which they are ended.
    relays: Vec<Process>,
    sinks: Vec<Process>,
    broker: Broker,
}

#[derive(Default)]
struct Kills {
    relays: u32,
    sinks: u32,
    broker: u32,
}

impl Demo {
    fn start(screen: &mut Screen) -> Result<Demo, Failure> {
        let failed = |why: std::io::Error| {
            Failure::refused("the demo has no place for its files").why(why.to_string())
        };
        let dir = tempfile::Builder::new()
            .prefix("oncelog-demo-")
            .tempdir()
            .map_err(failed)?;
        let path = dir.path().to_owned();
        let broker = Broker::start(&path)?;
        let places: Vec<Ends> = LEVELS
            .iter()
            .map(|level| Ends {
                level,
                shop: path.join(format!("shop-{level}.db")),
                warehouse: path.join(format!("warehouse-{level}.db")),
            })
            .collect();
        let pipeline = path.join("pipeline.toml");
        std::fs::write(&pipeline, pipeline_file(&places, &broker.bootstrap())).map_err(failed)?;
        let file = pipeline.display().to_string();
        screen.say(&format!(
            "A broker runs at {}; everything is in {}.",
            broker.bootstrap(),
            path.display()
        ));
        let (mut relays, mut sinks) = (Vec::new(), Vec::new());
        for ends in &places {
            let level = ends.level;
            shop::make_databases(&ends.shop, &ends.warehouse)?;
            child::run(&["outbox", "init", "--apply", "--config", &file, level])?;
            child::run(&["sink", "init", "--apply", "--config", &file, level])?;
            let topic = topic(level);
            child::run(&[
                "topic",
                "create",
                &topic,
                "-p",
                "3",
                "-b",
                &broker.bootstrap(),
            ])?;
            let args = |verb: &str| [verb, "--config", &file, level].map(str::to_owned).to_vec();
            relays.push(Process::start(
                &path,
                &format!("relay-{level}"),
                args("relay"),
            )?);
            sinks.push(Process::start(
                &path,
                &format!("sink-{level}"),
                args("sink"),
            )?);
        }
        screen.say(
            "Three shops place orders in SQLite databases; of each, a relay publishes the outbox, and a \
             sink writes\nwhat it reads into a warehouse's database. They only differ in the guarantee \
             that their file asks for.",
        );
        Ok(Demo {
            dir: Some(dir),
            path,
            pipeline,
            places,
            relays,
            sinks,
            broker,
        })
    }

    fn place_orders(&mut self, args: &Args, screen: &mut Screen) -> Result<Kills, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let open = |ends: &Ends| Shop::open(&ends.shop, args.rate, Arc::clone(&stop));
        let shops = self
            .places
            .iter()
            .map(open)
            .collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        let total = Duration::from_secs(u64::from(args.seconds));
        let mut kills = Kills::default();
        let mut random = Random::new();
        let slice = total / (args.kills + 1);
        // Somewhere in its own slice of the time, so that it meets no rhythm of the pipeline's.
        let mut at_of = |number: u32| slice * number + slice.mul_f64(0.5 + random.fraction());
        let (mut done, mut at) = (0, at_of(0));
        while began.elapsed() < total {
            if done < args.kills && began.elapsed() >= at {
                self.kill(done, began.elapsed(), &mut kills, screen)?;
                done += 1;
                at = at_of(done);
            }
            self.show(began.elapsed(), screen)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        shops.into_iter().try_for_each(Shop::close)?;
        Ok(kills)
    }

    /// The same kind of process of all three guarantees, or the broker that they share.
    fn kill(
        &mut self,
        number: u32,
        at: Duration,
        kills: &mut Kills,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        for process in self.relays.iter_mut().chain(&mut self.sinks) {
            process.check()?;
        }
        let what = match number % 3 {
            0 => {
                self.relays
                    .iter_mut()
                    .try_for_each(Process::kill_and_restart)?;
                kills.relays += self.relays.len() as u32;
                "the relays".to_owned()
            }
            1 => {
                self.sinks
                    .iter_mut()
                    .try_for_each(Process::kill_and_restart)?;
                kills.sinks += self.sinks.len() as u32;
                "the sinks".to_owned()
            }
            _ => {
                let ready = self.broker.kill_and_restart()?;
                kills.broker += 1;
                format!("the broker, ready again after {} ms", ready.as_millis())
            }
        };
        screen.say(&format!("  {:>5.1} s  SIGKILL: {what}", at.as_secs_f64()));
        Ok(())
    }

    fn show(&self, at: Duration, screen: &mut Screen) -> Result<(), Failure> {
        if !screen.is_due() {
            return Ok(());
        }
        let mut line = format!("  {:>5.1} s", at.as_secs_f64());
        for ends in &self.places {
            let (orders, received) = ends.counts()?;
            line.push_str(&format!("   {} {received}/{orders}", ends.level));
        }
        screen.progress(&line);
        Ok(())
    }

    fn wait_for_arrivals(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        screen.say("No more orders. Waiting until nothing arrives any more...");
        let began = Instant::now();
        let mut last = Vec::new();
        let mut quiet_since = Instant::now();
        loop {
            let counts = self
                .places
                .iter()
                .map(Ends::counts)
                .collect::<Result<Vec<_>, _>>()?;
            if counts != last {
                quiet_since = Instant::now();
                last = counts;
            }
            let waiting: Result<Vec<u64>, Failure> = self
                .places
                .iter()
                .map(|ends| shop::count(&ends.shop, "outbox"))
                .collect();
            // What at-least-once has received may count some twice; its audit tells.
            let complete = |(orders, received): &(u64, u64)| received >= orders;
            let arrived = waiting?.iter().all(|rows| *rows == 0) && last[1..].iter().all(complete);
            if (arrived && quiet_since.elapsed() > QUIET) || began.elapsed() > ARRIVAL {
                return Ok(());
            }
            self.show(began.elapsed(), screen)?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        for process in self.relays.iter_mut().chain(&mut self.sinks) {
            process.stop();
        }
    }

    fn keep(mut self) {
        if let Some(dir) = self.dir.take() {
            let _ = dir.keep();
        }
        let all = self.relays.iter_mut().chain(&mut self.sinks);
        let mut ids = Vec::new();
        for process in all.chain([&mut self.broker.process]) {
            process.keep();
            ids.push(process.id().to_string());
        }
        let bootstrap = self.broker.bootstrap();
        println!("\nEverything still runs. To look at it:");
        println!("  cat {}", self.pipeline.display());
        println!("  oncelog topic list -b {bootstrap}");
        println!("  oncelog txn list -b {bootstrap}");
        println!(
            "  oncelog consume {} -o start -n 5 -b {bootstrap}",
            topic("exactly-once")
        );
        println!("Logs and databases: {}", self.path.display());
        println!("To end it: kill {}", ids.join(" "));
    }
}

fn topic(level: &str) -> String {
    format!("{level}.order")
}

fn pipeline_file(places: &[Ends], bootstrap: &str) -> String {
    let mut text = format!("bootstrap.servers = \"{bootstrap}\"\n");
    for Ends {
        level,
        shop,
        warehouse,
    } in places
    {
        let (shop, warehouse) = (shop.display(), warehouse.display());
        text.push_str(&format!(
            r#"
[[relay]]
name = "{level}"
database = "sqlite:{shop}"
delivery = "{level}"
router.route.topic.replacement = "{level}.${{routedByValue}}"

[[sink]]
name = "{level}"
topics = ["{topic}"]
database = "sqlite:{warehouse}"
table = "received"
mode = "insert"
delivery = "{level}"
# A static member: started again, it has its partitions back at once, not after a session's timeout.
properties.group.instance.id = "1"
[sink.columns]
event_id = "header.id"
customer = "key"
amount = "value.amount"
"#,
            topic = topic(level)
        ));
    }
    text
}

fn report(reports: &[Report], kills: &Kills, took: Duration, options: &Options) {
    if options.json() {
        let rows = LEVELS.iter().zip(reports).map(|(level, report)| {
            let mut row = report.to_json();
            row["delivery"] = (*level).into();
            row
        });
        let rows: Vec<_> = rows.collect();
        let killed =
            json!({ "relays": kills.relays, "sinks": kills.sinks, "broker": kills.broker });
        let all = json!({ "levels": rows, "killed": killed, "seconds": took.as_secs_f64() });
        println!("{all:#}");
        return;
    }
    println!(
        "\n{:<14} {:>10} {:>10} {:>7} {:>11} {:>10}",
        "DELIVERY", "COMMITTED", "DELIVERED", "LOST", "DUPLICATED", "REORDERED"
    );
    for (level, report) in LEVELS.iter().zip(reports) {
        println!(
            "{level:<14} {:>10} {:>10} {:>7} {:>11} {:>10}",
            report.committed, report.delivered, report.lost, report.duplicated, report.reordered
        );
    }
    println!(
        "\nCounted by comparing the databases at both ends, after {} SIGKILLs of relays, {} of sinks and \
         {} of the broker; {:.1} s in all.",
        kills.relays,
        kills.sinks,
        kills.broker,
        took.as_secs_f64()
    );
}

/// What a guarantee promises and the figures contradict.
fn verdict(reports: &[Report]) -> Result<(), Failure> {
    for (level, report) in LEVELS.iter().zip(reports) {
        let broken = match *level {
            "at-most-once" => report.duplicated + report.phantom > 0,
            "at-least-once" => report.lost + report.phantom > 0,
            _ => !report.is_exact(),
        };
        if broken {
            let why = format!("{report:?}");
            return Err(
                Failure::refused(format!("{level} did not keep its promise"))
                    .why(why)
                    .next("this is a bug: please report it, with what --keep leaves behind"),
            );
        }
        if report.committed == 0 {
            return Err(Failure::refused(
                "no order was placed, so nothing was shown",
            ));
        }
    }
    Ok(())
}

/// What a person sees: lines that stay, and on a terminal one that is written over.
struct Screen {
    json: bool,
    terminal: bool,
    shown: Instant,
    drawn: bool,
}

impl Screen {
    fn new(json: bool) -> Screen {
        Screen {
            json,
            terminal: std::io::stdout().is_terminal(),
            shown: Instant::now(),
            drawn: false,
        }
    }

    fn say(&mut self, line: &str) {
        if self.json {
            return;
        }
        if std::mem::take(&mut self.drawn) {
            print!("\r\x1b[K");
        }
        println!("{line}");
    }

    fn is_due(&self) -> bool {
        let every = if self.terminal { 200 } else { 3_000 };
        !self.json && self.shown.elapsed() >= Duration::from_millis(every)
    }

    fn progress(&mut self, line: &str) {
        self.shown = Instant::now();
        if self.terminal {
            print!("\r\x1b[K{line}");
            let _ = std::io::stdout().flush();
            self.drawn = true;
        } else {
            println!("{line}");
        }
    }
}

/// When to kill; nothing depends on how good it is.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Random(now.map_or(1, |now| now.as_nanos() as u64) | 1)
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lost: u64, duplicated: u64) -> Report {
        Report {
            committed: 10,
            delivered: 10 - lost,
            lost,
            duplicated,
            ..Report::default()
        }
    }

    #[test]
    fn the_verdict_is_each_guarantees_own() {
        let good = [report(2, 0), report(0, 3), report(0, 0)];
        assert!(verdict(&good).is_ok());
        assert!(verdict(&[report(0, 1), report(0, 0), report(0, 0)]).is_err());
        assert!(verdict(&[report(0, 0), report(1, 0), report(0, 0)]).is_err());
        assert!(verdict(&[report(0, 0), report(0, 0), report(1, 0)]).is_err());
        assert!(verdict(&[report(0, 0), report(0, 0), report(0, 1)]).is_err());
    }
}

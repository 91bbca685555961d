//! The sections of `cargo xtask test`, in the order that they run: the quick ones first.
//!
//! To add one: write its function and put it in `SECTIONS`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Section, World};
use crate::cargo::{build_release, cargo, release_binary};
use crate::smoke::{Client, smoke};
use crate::tally::Tally;
use crate::{
    bench, codegen, conformance, crash, dump_log, fuzz, mutants, pipeline, process, tidy, toolbox,
};

pub const SECTIONS: &[Section] = &[
    Section {
        name: "format",
        about: "rustfmt has nothing to change",
        run: format,
    },
    Section {
        name: "tidy",
        about: "the rules of the house",
        run: |_| passes(tidy::run),
    },
    Section {
        name: "clippy",
        about: "no warning in any target",
        run: clippy,
    },
    Section {
        name: "codegen",
        about: "the wire's code is what Kafka's schemas give",
        run: schemas,
    },
    Section {
        name: "unit",
        about: "cargo test over the workspace",
        run: unit,
    },
    Section {
        name: "doc",
        about: "the examples in the documentation",
        run: doc,
    },
    Section {
        name: "build",
        about: "the release binaries",
        run: |_| passes(build_release),
    },
    Section {
        name: "simulation",
        about: "1,000 seeds, each twice",
        run: simulation,
    },
    Section {
        name: "mutants",
        about: "planted bugs, each of which the simulator must find",
        run: |_| passes(mutants::run_all),
    },
    Section {
        name: "fuzz",
        about: "every fuzz target for less than a minute",
        run: |_| fuzz::short(),
    },
    Section {
        name: "demo",
        about: "SIGKILL under load, and a truthful tally",
        run: demo,
    },
    Section {
        name: "crash",
        about: "a few rounds of every kind of fault, and the judge of what is left",
        run: |_| crash::short(),
    },
    Section {
        name: "databases",
        about: "relay and sink against PostgreSQL and MariaDB",
        run: |_| pipeline::databases(),
    },
    Section {
        name: "pipeline",
        about: "database to topic to database under SIGKILL, and both ends compared",
        run: |_| pipeline::short(),
    },
    Section {
        name: "cli",
        about: "the command line against a started broker",
        run: command_line,
    },
    Section {
        name: "client-python",
        about: "kafka-python",
        run: |w| client(w, Client::Python),
    },
    Section {
        name: "client-confluent",
        about: "librdkafka's whole admin client, from Python",
        run: |w| client(w, Client::Confluent),
    },
    Section {
        name: "client-node",
        about: "kafkajs",
        run: |w| client(w, Client::Node),
    },
    Section {
        name: "client-java",
        about: "Kafka's own client",
        run: |w| client(w, Client::Java),
    },
    Section {
        name: "client-java-old",
        about: "transactions of a client of before their second protocol",
        run: |w| client(w, Client::JavaOld),
    },
    Section {
        name: "client-tools",
        about: "Kafka's console tools",
        run: |w| client(w, Client::Tools),
    },
    Section {
        name: "client-rdkafka",
        about: "the rdkafka crate",
        run: |w| client(w, Client::Rdkafka),
    },
    Section {
        name: "librdkafka",
        about: "the short part of librdkafka's own test suite",
        run: |_| conformance::short(),
    },
    Section {
        name: "shutdown",
        about: "SIGTERM after all of that",
        run: shutdown,
    },
    Section {
        name: "bench",
        about: "the measuring programs give figures, which nobody judges here",
        run: |_| passes(bench::smoke),
    },
    Section {
        name: "kafka-reads",
        about: "Kafka's classes read files that tests have made",
        run: kafka_reads,
    },
    Section {
        name: "segments",
        about: "Kafka's DumpLogSegments reads what is left on disk",
        run: segments,
    },
];

const QUICK: Duration = Duration::from_secs(5 * 60);
const TESTS: Duration = Duration::from_secs(40 * 60);

fn passes(step: impl FnOnce() -> Result<()>) -> Result<Tally> {
    step().map(|()| Tally::pass())
}

fn format(_: &mut World) -> Result<Tally> {
    passes(|| {
        process::run(&mut cargo(&["fmt", "--all", "--check"]), QUICK)?;
        let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
        process::run(&mut cargo(&fuzz), QUICK)
    })
}

fn clippy(_: &mut World) -> Result<Tally> {
    toolbox::need(&[&toolbox::MAKE])?; // librdkafka's build
    let args = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    passes(|| process::run(&mut cargo(&args), TESTS))
}

fn schemas(_: &mut World) -> Result<Tally> {
    toolbox::need(&[&toolbox::MAVEN])?;
    passes(|| codegen::run(&codegen::Args::check()))
}

/// Runs cargo test and counts what it says; a build that fails is a failure too.
pub fn cargo_test(command: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let well = process::run_lines(command, TESTS, |line| {
        if !is_noise(line) {
            println!("{line}");
        }
        tally.count_cargo_test(line);
    })?;
    if !well && tally.failed == 0 {
        tally.fail("cargo test", "it ended with an error");
    }
    Ok(tally)
}

/// What passed, and binaries without tests: hundreds of lines that nobody reads.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || (line.starts_with("test ") && line.ends_with(" ... ok"))
        || (line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")))
        || line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored")
}

fn unit(_: &mut World) -> Result<Tally> {
    let args = [
        "test",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--no-fail-fast",
    ];
    // Not --quiet for the harness: its lines name what failed and what is ignored.
    cargo_test(
        cargo(&args)
            .args(["--", "--format", "pretty"])
            .env_remove("ONCELOG_TEST_BOOTSTRAP"),
    )
}

fn doc(_: &mut World) -> Result<Tally> {
    cargo_test(&mut cargo(&[
        "test",
        "--quiet",
        "--workspace",
        "--doc",
        "--",
        "--format",
        "pretty",
    ]))
}

fn simulation(_: &mut World) -> Result<Tally> {
    let mut sim = Command::new(release_binary("oncelog-sim")?);
    passes(|| process::run(sim.args(["--seeds", "1000"]), TESTS))
}

/// Three streams of records, the broker killed under them again and again, and everything that was
/// acknowledged counted by a fresh read; it fails on a loss. (The crash loop with groups is part of
/// `crash`.)
fn demo(_: &mut World) -> Result<Tally> {
    let mut demo = Command::new(release_binary("oncelog")?);
    demo.args(["demo", "--kills", "5"]);
    passes(|| process::run(&mut demo, QUICK))
}

fn command_line(world: &mut World) -> Result<Tally> {
    let bootstrap = world.bootstrap()?;
    let mut command = cargo(&["test", "--quiet", "--workspace", "--test", "cluster"]);
    command.args(["--", "--format", "pretty"]);
    cargo_test(command.env("ONCELOG_TEST_BOOTSTRAP", bootstrap))
}

fn client(world: &mut World, client: Client) -> Result<Tally> {
    // The topics stay, so that there are segments to look at afterwards.
    let keep = world.external.is_none();
    smoke(client, &world.bootstrap()?, keep)
}

fn shutdown(world: &mut World) -> Result<Tally> {
    let Some(broker) = world.broker.take() else {
        return Ok(Tally::skip(
            "shutdown",
            "no section before this one started the broker",
        ));
    };
    world.data = Some(broker.stop()?);
    Ok(Tally::pass())
}

/// Tests that want Kafka's jars, and so are ignored where there may be none.
fn kafka_reads(_: &mut World) -> Result<Tally> {
    let jars = toolbox::jars()?;
    let mut command = cargo(&["test", "--quiet", "--workspace"]);
    command.args(["--test", "kafka_reads_snapshots"]);
    command.args(["--test", "kafka_reads_transactions"]);
    command.args(["--", "--ignored", "--format", "pretty"]);
    cargo_test(command.env("ONCELOG_KAFKA_JARS", jars))
}

fn segments(world: &mut World) -> Result<Tally> {
    let Some(data) = &world.data else {
        return Ok(Tally::skip(
            "DumpLogSegments",
            "no broker of this run has left segments",
        ));
    };
    dumped(data)
}

fn dumped(data: &Path) -> Result<Tally> {
    let found = dump_log::dump(data)?;
    println!("{}", found.line());
    let mut tally = Tally::default();
    for complaint in &found.complaints {
        println!("{complaint}");
        tally.fail("DumpLogSegments", complaint);
    }
    tally.passed += u32::from(found.complaints.is_empty());
    // After all the clients of a whole run there is nothing that it lacks.
    for missing in found.missing() {
        tally += Tally::skip("DumpLogSegments", &format!("no {missing} in this run"));
    }
    Ok(tally)
}

//! Building librdkafka and its test runner, once per version, under target/conformance/librdkafka.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::sources;
use crate::{process, toolbox};

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// The directory of librdkafka's sources, in which everything that the tests need has been built.
pub fn built() -> Result<PathBuf> {
    toolbox::need(&[&toolbox::MAKE, &toolbox::GCC, &toolbox::GPP])?;
    toolbox::need_headers(&[
        &toolbox::ZLIB,
        &toolbox::OPENSSL,
        &toolbox::ZSTD,
        // The test of librdkafka's statistics reads JSON with it.
        &toolbox::RAPIDJSON,
    ])?;
    let dir = toolbox::conformance_dir().join("librdkafka");
    sources::copied("rdkafka-sys", ONE_REPLICA, &dir, || {
        println!("building librdkafka's test suite (a few minutes, once)");
        let sources = dir.join("librdkafka");
        let tests = sources.join("tests");
        one_replica(&tests.join("test.c"))?;
        step(&sources, "./configure", &[], &dir.join("configure.log"))?;
        step(&sources, "make", &["-j2", "libs"], &dir.join("libs.log"))?;
        step(&tests, "make", &["-j2", "build"], &dir.join("tests.log"))
    })?;
    Ok(dir.join("librdkafka"))
}

const ONE_REPLICA: &str = "NewTopic_new(topicname, partition_cnt, 1,";

/// The suite is made for three brokers, and several tests make topics with three replicas that they
/// do not need. Its function for that is the one thing that is changed: it asks for one replica.
fn one_replica(test_c: &Path) -> Result<()> {
    let text = std::fs::read_to_string(test_c)?;
    let asked = "NewTopic_new(topicname, partition_cnt, replication_factor,";
    let changed = text.replace(asked, ONE_REPLICA);
    ensure!(
        changed != text,
        "test.c no longer makes topics with `{asked}`"
    );
    Ok(std::fs::write(test_c, changed)?)
}

fn step(dir: &Path, program: &str, args: &[&str], log: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir);
    // Our cargo configuration sets these two for the crate's build, which leaves C++ out.
    command.env_remove("CXX").env_remove("GNUMAKEFLAGS");
    let ended = process::run_logged(&mut command, log, LIMIT)?;
    ensure!(
        ended.is_some_and(|status| status.success()),
        "librdkafka's `{program} {}` failed; see {}",
        args.join(" "),
        log.display()
    );
    Ok(())
}

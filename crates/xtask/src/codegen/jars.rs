//! Where the schemas come from: the published Kafka jars.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use super::schema::{self, Schema};
use super::{KAFKA_VERSION, list};

/// Copies the needed jars from Maven's repositories into `dir`; returns `dir`.
pub fn fetch(dir: &Path) -> Result<PathBuf> {
    for (artifact, _, _) in list::MESSAGES {
        if jar_path(dir, artifact).exists() {
            continue;
        }
        let status = Command::new("mvn")
            .args(["--quiet", "--batch-mode", "dependency:copy"])
            .arg(format!(
                "-Dartifact=org.apache.kafka:{artifact}:{KAFKA_VERSION}"
            ))
            .arg(format!("-DoutputDirectory={}", dir.display()))
            .status()
            .context("could not start mvn; install Maven or pass --jars")?;
        if !status.success() {
            bail!("mvn could not fetch {artifact} {KAFKA_VERSION}");
        }
    }
    Ok(dir.to_path_buf())
}

/// Every schema of the list, in the list's order.
pub fn read_schemas(dir: &Path) -> Result<Vec<Schema>> {
    let mut schemas = Vec::new();
    for (artifact, folder, names) in list::MESSAGES {
        let path = jar_path(dir, artifact);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let mut jar = ZipArchive::new(file)?;
        let mut read = |name: &str| -> Result<()> {
            let mut text = String::new();
            jar.by_name(&format!("{folder}/{name}.json"))
                .with_context(|| format!("{name} in {artifact}"))?
                .read_to_string(&mut text)?;
            let origin = format!("{artifact} {KAFKA_VERSION}, {folder}/{name}.json");
            schemas.push(schema::parse(&text, origin).with_context(|| name.to_string())?);
            Ok(())
        };
        if *artifact == "kafka-clients" {
            for api in list::APIS {
                read(&format!("{api}Request"))?;
                read(&format!("{api}Response"))?;
            }
        }
        for name in *names {
            read(name)?;
        }
    }
    Ok(schemas)
}

fn jar_path(dir: &Path, artifact: &str) -> PathBuf {
    dir.join(format!("{artifact}-{KAFKA_VERSION}.jar"))
}

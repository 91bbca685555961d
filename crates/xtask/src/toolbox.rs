//! What the suites need from outside: programs by apt-get and cargo, libraries by pip, npm and Maven.
//!
//! Programs of the system are installed only where they are missing and only as root; libraries are
//! pinned by the files in conformance/ and go to target/conformance/, cargo's programs go to
//! target/tools/, never to a global place. What cannot be had
//! is an error that says what to install; the caller decides whether that is a skip.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A program, and the Debian packages that bring it.
pub struct Program {
    pub name: &'static str,
    pub packages: &'static [&'static str],
}

pub const JAVAC: Program = Program {
    name: "javac",
    packages: &["default-jdk-headless"],
};
pub const MAVEN: Program = Program {
    name: "mvn",
    packages: &["maven"],
};
pub const NODE: Program = Program {
    name: "node",
    packages: &["nodejs"],
};
pub const NPM: Program = Program {
    name: "npm",
    packages: &["npm"],
};
pub const PYTHON: Program = Program {
    name: "python3",
    packages: &["python3"],
};
pub const MAKE: Program = Program {
    name: "make",
    packages: &["make"],
};
pub const CXX: Program = Program {
    name: "g++",
    packages: &["g++"],
};

/// Its server is not on the PATH: this comes with it.
pub const POSTGRESQL: Program = Program {
    name: "pg_createcluster",
    packages: &["postgresql"],
};
pub const MARIADB: Program = Program {
    name: "mariadb-install-db",
    packages: &["mariadb-server"],
};

pub const GCC: Program = Program {
    name: "gcc",
    packages: &["gcc", "libc6-dev"],
};
pub const GPP: Program = Program {
    name: "g++",
    packages: &["g++"],
};

/// A library to build against, known by a header.
pub struct Header {
    pub name: &'static str,
    pub package: &'static str,
}

pub const ZLIB: Header = Header {
    name: "zlib.h",
    package: "zlib1g-dev",
};
pub const OPENSSL: Header = Header {
    name: "openssl/ssl.h",
    package: "libssl-dev",
};
pub const ZSTD: Header = Header {
    name: "zstd.h",
    package: "libzstd-dev",
};
pub const RAPIDJSON: Header = Header {
    name: "rapidjson/document.h",
    package: "rapidjson-dev",
};

/// A program that is not here and cannot be installed; whether that fails a run or skips a part of
/// it is the caller's choice.
#[derive(Debug)]
pub struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "missing, and only root can apt-get install here: {}",
            self.0
        )
    }
}

impl std::error::Error for Missing {}

/// Installs the programs that are missing.
pub fn need(programs: &[&Program]) -> Result<()> {
    let missing = programs.iter().filter(|p| !process::installed(p.name));
    let packages: Vec<&str> = missing.flat_map(|p| p.packages.iter().copied()).collect();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)
}

/// Installs the libraries whose headers the compiler does not find; wants `GPP`.
pub fn need_headers(headers: &[&Header]) -> Result<()> {
    let missing = headers.iter().filter(|header| !has_header(header.name));
    let packages: Vec<&str> = missing.map(|header| header.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)
}

fn has_header(name: &str) -> bool {
    let mut compiler = Command::new("g++");
    compiler.args(["-fsyntax-only", "-include", name, "-x", "c++", "/dev/null"]);
    let outcome = compiler.stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success())
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !process::installed("apt-get") || !rustix::process::geteuid().is_root() {
        bail!(Missing(list));
    }
    println!("installing with apt-get: {list}");
    apt_get(&["update"])?;
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    process::run(&mut command, DOWNLOAD_LIMIT)
}

pub fn conformance_dir() -> PathBuf {
    crate::root().join("target/conformance")
}

/// A program of crates.io in this version, compiled into target/tools.
pub fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let tools = crate::root().join("target/tools");
    let program = tools.join("bin").join(name);
    let stamp = tools.join(format!("bin/.{name}-version"));
    if program.exists() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == version) {
        return Ok(program);
    }
    let mut install = crate::cargo::cargo(&["install", "--quiet", "--locked", "--force", name]);
    install.args(["--version", version, "--root"]).arg(&tools);
    install.arg("--target-dir").arg(tools.join("build"));
    process::run(&mut install, DOWNLOAD_LIMIT)?;
    std::fs::write(stamp, version)?;
    Ok(program)
}

/// Whether `made` was made from the `source` file as it is now; if not, `make` makes it again.
fn once(made: &Path, source: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let now = std::fs::read(source).with_context(|| source.display().to_string())?;
    once_from(made, &now, make)
}

/// The same for something that is made of anything that `now` tells apart.
pub fn once_from(made: &Path, now: &[u8], make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = made.join(".made-from");
    if std::fs::read(&stamp).is_ok_and(|then| then == now) {
        return Ok(());
    }
    if made.exists() {
        std::fs::remove_dir_all(made)?;
    }
    std::fs::create_dir_all(made)?;
    make()?;
    Ok(std::fs::write(stamp, now)?)
}

/// The Python of a virtual environment with conformance/python/requirements.txt in it.
pub fn python() -> Result<PathBuf> {
    need(&[&PYTHON])?;
    // Debian splits the standard library's own venv into packages.
    let probe = ["-c", "import ensurepip, venv"];
    let whole = Command::new("python3").args(probe).output()?;
    if !whole.status.success() {
        install(&["python3-venv"])?;
    }
    let venv = conformance_dir().join("python");
    let requirements = crate::root().join("conformance/python/requirements.txt");
    once(&venv, &requirements, || {
        let mut create = Command::new("python3");
        process::run(create.args(["-m", "venv"]).arg(&venv), DOWNLOAD_LIMIT)?;
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--requirement"]);
        process::run(pip.arg(&requirements), DOWNLOAD_LIMIT)
    })?;
    Ok(venv.join("bin/python"))
}

/// A directory with conformance/node/package-lock.json installed in node_modules.
pub fn node_modules() -> Result<PathBuf> {
    need(&[&NODE, &NPM])?;
    let source = crate::root().join("conformance/node");
    let dir = conformance_dir().join("node");
    once(&dir, &source.join("package-lock.json"), || {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), dir.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&dir);
        process::run(&mut npm, DOWNLOAD_LIMIT)
    })?;
    Ok(dir.join("node_modules"))
}

/// A directory with every jar of conformance/java/pom.xml.
pub fn jars() -> Result<PathBuf> {
    jars_of("java/pom.xml", "jars")
}

/// A directory with the jar of conformance/java/old-client.xml.
pub fn old_client() -> Result<PathBuf> {
    jars_of("java/old-client.xml", "old-client")
}

/// A directory with every jar of conformance/debezium/pom.xml.
pub fn debezium_jars() -> Result<PathBuf> {
    jars_of("debezium/pom.xml", "debezium")
}

fn jars_of(pom: &str, name: &str) -> Result<PathBuf> {
    need(&[&JAVAC, &MAVEN])?;
    let pom = crate::root().join("conformance").join(pom);
    let dir = conformance_dir().join(name);
    once(&dir, &pom, || {
        let mut mvn = Command::new("mvn");
        mvn.args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"])
            .arg(&pom);
        mvn.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        mvn.arg(format!("-DoutputDirectory={}", dir.display()));
        process::run(&mut mvn, DOWNLOAD_LIMIT)
    })?;
    Ok(dir)
}

/// `java` with the jars on its class path (after `first`) and Kafka's logging set up.
pub fn java(first: &[&Path], log_level: &str, heap: &str) -> Result<Command> {
    Ok(java_of(&jars()?, first, log_level, heap))
}

/// The same with the jars of another directory.
pub fn java_of(jars: &Path, first: &[&Path], log_level: &str, heap: &str) -> Command {
    let jars = jars.join("*");
    let parts = first.iter().copied().chain([jars.as_path()]);
    let parts: Vec<String> = parts.map(|part| part.display().to_string()).collect();
    let class_path = parts.join(":");
    let logging = crate::root().join("conformance/java/log4j2.properties");
    let mut java = Command::new("java");
    java.arg(format!("-Xmx{heap}")).args(["-cp", &class_path]);
    java.arg(format!("-Dlog.level={log_level}"));
    java.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    java
}

/// Compiles conformance/java/smoke and returns the directory of its classes.
pub fn java_smoke() -> Result<PathBuf> {
    let jars = jars()?;
    let classes = conformance_dir().join("java-classes");
    let mut javac = Command::new("javac");
    javac.args(["-proc:none", "-encoding", "UTF-8", "-cp"]);
    javac.arg(jars.join("*")).arg("-d").arg(&classes);
    for entry in std::fs::read_dir(crate::root().join("conformance/java/smoke"))? {
        javac.arg(entry?.path());
    }
    process::run(&mut javac, DOWNLOAD_LIMIT)?;
    Ok(classes)
}

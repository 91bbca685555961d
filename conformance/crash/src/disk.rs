//! File systems of our own: a tmpfs, and ext4 or XFS in a file, which can be shut down as a power
//! cut would do it.
//!
//! They are mounted only where the kernel undoes everything when this process is gone, however it
//! went: in a private mount namespace, as the first process of a process namespace
//! (`cargo xtask crash` sees to that). Loop devices belong to their mounts and go with them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use crash_campaign::process::say;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ext4,
    /// Journal and inodes have their place on the device from the beginning: if the device fails,
    /// then for what is written later.
    Ext4Allocated,
    Ext4WithoutJournal,
    Xfs,
}

/// A mounted file system; unmounted when dropped.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    pub fn tmpfs(at: &Path, size: &str) -> Result<Mount> {
        let options = format!("size={size}");
        Mount::new(&["-t", "tmpfs", "-o", &options, "tmpfs"], at)
    }

    fn new(what: &[&str], at: &Path) -> Result<Mount> {
        std::fs::create_dir_all(at)?;
        run(Command::new("mount").args(what).arg(at))?;
        Ok(Mount { at: at.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Of a tmpfs.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.at)).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: after a failure somebody may still have a file open there.
        if let Err(why) = run(Command::new("umount").arg("-l").arg(&self.at)) {
            say(&format!("{} stays mounted: {why:#}", self.at.display()));
        }
    }
}

/// A file system in a file.
pub struct Image {
    file: PathBuf,
    at: PathBuf,
    mount: Option<Mount>,
}

impl Image {
    /// Makes it in `dir` (sparse: it takes what is written to it) and mounts it.
    pub fn create(dir: &Path, format: Format, bytes: u64) -> Result<Image> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("image");
        let _ = std::fs::remove_file(&file);
        File::create(&file)?.set_len(bytes)?;
        let mut make = match format {
            Format::Xfs => Command::new("mkfs.xfs"),
            _ => Command::new("mkfs.ext4"),
        };
        make.args(match format {
            Format::Ext4 => &["-q", "-F"][..],
            Format::Ext4Allocated => &[
                "-q",
                "-F",
                "-N",
                "1024",
                "-J",
                "size=4",
                "-E",
                "nodiscard,lazy_journal_init=0,lazy_itable_init=0",
            ],
            Format::Ext4WithoutJournal => &["-q", "-F", "-O", "^has_journal"],
            Format::Xfs => &["-q", "-f"],
        });
        run(make.arg(&file))?;
        let mut image = Image {
            file,
            at: dir.join("mounted"),
            mount: None,
        };
        image.mount()?;
        Ok(image)
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    pub fn mount(&mut self) -> Result<()> {
        let file = self.file.to_str().context("a path in UTF-8")?;
        self.mount = Some(Mount::new(&["-o", "loop", file], &self.at)?);
        Ok(())
    }

    /// The file with the loop device's largest request, in KiB.
    fn request_limit(&self) -> Result<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let at = self.at.canonicalize()?.display().to_string();
        let mut lines = mounts.lines().rev();
        let device = lines.find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            (rest.split(' ').next() == Some(&at)).then_some(device)
        });
        let device = device.context("the image is mounted")?;
        let name = device.trim_start_matches("/dev/");
        Ok(PathBuf::from(format!(
            "/sys/block/{name}/queue/max_sectors_kb"
        )))
    }

    /// From now on every operation fails, and what was not on the device never gets there.
    pub fn shut_down(&self) -> Result<()> {
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(&self.at))
    }

    /// Unmounts it and mounts it again: what is there is what was on the device. Nobody may have
    /// a file open there.
    pub fn mount_again(&mut self) -> Result<()> {
        let mount = self.mount.take().context("it is mounted")?;
        run(Command::new("umount").arg(&mount.at))?;
        std::mem::forget(mount); // undone by the line above
        self.mount()
    }
}

/// Whether file systems may be mounted here; if not, why.
pub fn may_mount() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "mounting wants root and namespaces of its own (unshare --mount --pid), which \
         `cargo xtask crash` makes where it may"
    );
    Ok(())
}

/// Shows on a small scale what a power cut is: what was synced stays, what was not vanishes.
pub fn probe_power_cut(dir: &Path, format: Format) -> Result<()> {
    may_mount()?;
    let mut image = Image::create(dir, format, 400 << 20)?;
    let (kept, gone) = (image.path().join("kept"), image.path().join("gone"));
    std::fs::write(&kept, "synced")?;
    File::open(&kept)?.sync_all()?;
    File::open(image.path())?.sync_all()?;
    std::fs::write(&gone, "not synced")?;
    image.shut_down()?;
    image.mount_again()?;
    ensure!(
        std::fs::read(&kept)? == b"synced" && !gone.exists(),
        "a file system that is shut down does not behave as after a power cut"
    );
    Ok(())
}

/// A device that takes 24 MB and no more, under an ext4 that believes in more: writes succeed and
/// syncs fail.
///
/// A loop device calls a request done of which the file below took only a part, which would be a
/// disk that lies about syncs. So its requests are kept to a page, which is taken or not.
pub struct Failing {
    pub image: Image,
    below: Mount,
    /// Where the kernel keeps the largest request of the loop device, and what it was.
    limit: PathBuf,
    limit_before: String,
}

impl Failing {
    pub fn create(dir: &Path, format: Format) -> Result<Failing> {
        let below = Mount::tmpfs(&dir.join("below"), "24m")?;
        let image = Image::create(&dir.join("below"), format, 512 << 20)?;
        let limit = image.request_limit()?;
        let limit_before = std::fs::read_to_string(&limit)?;
        std::fs::write(&limit, "4").context("keeping a loop device's requests to a page")?;
        Ok(Failing {
            image,
            below,
            limit,
            limit_before,
        })
    }

    /// The device has room again; what it did not take is in the page cache alone.
    pub fn give_room(&self) {
        self.below.resize("600m");
    }

    /// The device has room again; what it did not take is gone.
    pub fn mend(&mut self) -> Result<()> {
        self.give_room();
        self.image.mount_again()
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // The next owner of this loop device has no use for it.
        let _ = std::fs::write(&self.limit, &self.limit_before);
    }
}

/// Shows that a sync fails once and then succeeds, that what it was about is gone, and that what
/// was synced before is not.
pub fn probe_failing_sync(dir: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    const STEP: usize = 60_000; // not whole pages, as appends are
    may_mount()?;
    let mut disk = Failing::create(dir, Format::Ext4Allocated)?;
    let path = disk.image.path().join("probe");
    let file = File::create(&path)?;
    let mut synced = 0;
    loop {
        ensure!(synced < 64 << 20, "64 MB fit in 24: syncs do not fail here");
        file.write_all_at(&[1; STEP], synced as u64)?;
        if file.sync_data().is_err() {
            break;
        }
        synced += STEP;
    }
    ensure!(file.sync_data().is_ok(), "the second sync failed, too");
    drop(file);
    disk.mend()?;
    let found = std::fs::read(&path)?;
    let there = found.iter().take_while(|byte| **byte == 1).count();
    ensure!(
        there >= synced,
        "{synced} bytes were synced, {there} are there"
    );
    ensure!(
        there < synced + STEP,
        "a sync failed, and the bytes are there all the same"
    );
    Ok(())
}

/// Runs a program to its end; its standard error if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} cannot be started"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{name}: {why}");
    }
    Ok(())
}

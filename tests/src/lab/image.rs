//! The image of every test, made of the machine's own busybox: no registry is asked for anything.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::requirements::BUSYBOX;
use crate::sh;

/// Names under which each engine has it.
pub const NAMES: [&str; 3] = ["busybox:latest", "bb:1", "bb:2"];

/// Write the tar that `docker import` takes; where it is.
pub(super) fn write(dir: &Path) -> Result<PathBuf> {
    let (tar, root) = (dir.join("busybox.tar"), dir.join("image"));
    for folder in ["bin", "www", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).with_context(|| format!("copying {BUSYBOX}"))?;
    let applets = sh::must(Command::new(BUSYBOX).arg("--list"), Duration::from_secs(10))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    std::fs::write(root.join("www/index.html"), "hello\n")?;
    sh::must(
        Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."),
        Duration::from_secs(30),
    )?;
    Ok(tar)
}

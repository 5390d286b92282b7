//! What this machine must have for a lab of real hosts.

use std::path::{Path, PathBuf};

/// Commands that a lab calls, and the Debian package of each.
const COMMANDS: [(&str, &str); 8] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("bash", "bash"),
];

/// The program that every test image is made of.
pub const BUSYBOX: &str = "/bin/busybox";

/// What is missing here, in words that end the sentence "this needs …"; nothing where a lab can be.
pub fn missing() -> Option<String> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("root and dockerd (this is not root)".to_owned());
    }
    for (command, package) in COMMANDS {
        if find(command).is_none() {
            return Some(format!("root and dockerd (no {command}: install {package})"));
        }
    }
    (!Path::new(BUSYBOX).exists()).then(|| format!("root and dockerd (no {BUSYBOX}: install busybox-static)"))
}

/// Where a command is.
pub fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(command))
        .find(|file| file.is_file())
}

//! Damage on disk: a node whose log is damaged in its midst must say so, and not go on from what is before.

use anyhow::bail;

use crate::host::Host;

/// Damage the log of a host that is down, and see that its node refuses to start. The log is whole again then.
///
/// # Errors
/// If the node starts all the same.
pub async fn check(host: &mut Host) -> anyhow::Result<()> {
    let Some(whole) = host.disk.damage() else { return Ok(()) };
    // A worker that had no room yet to forget its log does that now, and takes nothing from it.
    let goes_on = host.start().await.is_ok() && host.node().is_some_and(|node| node.raft().is_some());
    host.kill().await;
    host.disk.restore(whole);
    if goes_on {
        bail!("h{} starts from a log that is damaged in its midst", host.number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_actors::disk::Disk as _;

    use crate::disk::SimDisk;

    #[tokio::test(start_paused = true)]
    async fn damage_is_between_two_records_and_can_be_undone() {
        let disk = SimDisk::new(1, (Duration::from_micros(1), Duration::from_micros(2)));
        let whole = [b"head".as_slice(), b"\xF7sF1....", b"\xF7sF1----", b"\xF7sF1...."].concat();
        disk.replace("log-1", whole.clone()).await.expect("a disk");
        let before = disk.damage().expect("three records");
        let now = disk.read("log-1").await.expect("a file");
        let differs: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != now[*at]).collect();
        assert_eq!(differs, [16]);
        disk.restore(before);
        assert_eq!(disk.read("log-1").await.expect("a file"), whole);
        assert!(SimDisk::new(1, Default::default()).damage().is_none());
    }
}

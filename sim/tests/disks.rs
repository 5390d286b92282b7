//! What holds of a disk under consensus, on a real one and on the simulated one.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use shoal_actors::disk::{Disk, FileDisk};
use shoal_sim::disk::SimDisk;

/// Notes are written soon.
async fn noted(disk: &Arc<dyn Disk>, name: &str, bytes: &[u8]) {
    for _ in 0..1_000 {
        if disk.read(name).await.is_ok_and(|read| read == bytes) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the note never came");
}

async fn names(disk: &Arc<dyn Disk>) -> Vec<String> {
    let mut names = disk.list().await.unwrap();
    names.sort();
    names
}

async fn keeps_the_contract(disk: Arc<dyn Disk>) {
    assert!(names(&disk).await.is_empty());
    let absent = disk.read("log").await.unwrap_err().kind();
    assert_eq!((absent, disk.read_at("log", 0, 1).await.is_err()), (ErrorKind::NotFound, true));
    assert_eq!(disk.write("log", 0, vec![1]).await.unwrap_err().kind(), ErrorKind::NotFound);
    disk.remove("log").await.unwrap();

    disk.replace("log", b"head".to_vec()).await.unwrap();
    disk.write("log", 4, b"one".to_vec()).await.unwrap();
    disk.write("log", 7, b"two".to_vec()).await.unwrap();
    let read = disk.read("log").await.unwrap();
    assert!(read.starts_with(b"headonetwo") && read[10..].iter().all(|byte| *byte == 0), "{read:?}");
    assert_eq!(disk.read_at("log", 4, 3).await.unwrap(), b"one");
    assert!(disk.read_at("log", 1 << 40, 3).await.is_err());
    disk.write("log", 4, b"uno".to_vec()).await.unwrap();
    assert_eq!(disk.read_at("log", 0, 10).await.unwrap(), b"headunotwo");

    // Writes are done in the order in which they were awaited.
    let (one, other) = tokio::join!(disk.write("log", 20, vec![1; 4]), disk.write("log", 22, vec![2; 4]));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(disk.read_at("log", 20, 6).await.unwrap(), [1, 1, 2, 2, 2, 2]);

    disk.replace("log", b"new".to_vec()).await.unwrap();
    assert_eq!(disk.read("log").await.unwrap(), b"new");
    disk.note("noted", b"first".to_vec());
    disk.note("noted", b"other".to_vec());
    noted(&disk, "noted", b"other").await;
    assert_eq!(names(&disk).await, ["log", "noted"]);
    disk.remove("log").await.unwrap();
    disk.remove("noted").await.unwrap();
    assert!(names(&disk).await.is_empty());
}

#[tokio::test]
async fn a_real_disk_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(Arc::new(FileDisk::open(folder.path()).unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn the_simulated_disk_keeps_the_contract_with_and_without_power_cuts() {
    for seed in 0..20 {
        for cuts in [false, true] {
            let disk = SimDisk::new(seed, (Duration::from_micros(20), Duration::from_millis(2)));
            if cuts {
                disk.set_power_cuts(seed);
            }
            keeps_the_contract(Arc::new(disk)).await;
        }
    }
}

//! A simulated disk under consensus: it takes its time, can be full, and a crash decides what becomes of
//! the writes under way.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::raft::{Disk, DiskFuture};

/// What a record of the log begins with.
const RECORD: &[u8] = b"\xF7sF1";

struct UnderWay {
    name: String,
    offset: usize,
    bytes: Vec<u8>,
}

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

struct Inner {
    files: Files,
    /// Counts up with each change of a file.
    version: u64,
    /// Counts up whenever something is lost or damaged that was durable.
    harm: u64,
    /// Writes in place that are not done, by number.
    under_way: BTreeMap<u64, UnderWay>,
    number: u64,
    /// Crashes so far: what was begun before one never ends.
    epoch: u64,
    full: bool,
    sync: (Duration, Duration),
    /// What each durable write takes longer, or at most longer if they differ.
    stall: Duration,
    uneven: bool,
    rng: ChaCha8Rng,
}

impl Inner {
    fn put(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        self.version += 1;
        if let Some(file) = self.files.get_mut(name) {
            let end = offset + bytes.len();
            file.resize(file.len().max(end), 0);
            file[offset..end].copy_from_slice(bytes);
        }
    }
}

/// Files of one folder. Cheap to clone; a clone is the same disk, also after a crash of its node.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn done<T: Send + 'static>(result: io::Result<T>) -> DiskFuture<T> {
    Box::pin(async move { result })
}

impl SimDisk {
    /// An empty disk that needs between these two times for a durable write.
    #[must_use]
    pub fn new(seed: u64, sync: (Duration, Duration)) -> Self {
        let inner = Inner {
            files: BTreeMap::new(),
            version: 0,
            harm: 0,
            under_way: BTreeMap::new(),
            number: 0,
            epoch: 0,
            full: false,
            sync,
            stall: Duration::ZERO,
            uneven: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Look at the files, if anything has changed since this version of them; the version now.
    pub fn look_at<T>(&self, seen: u64, look: impl FnOnce(&Files) -> T) -> Option<(u64, T)> {
        let inner = self.lock();
        (inner.version != seen).then(|| (inner.version, look(&inner.files)))
    }

    /// How often something was lost or damaged that was durable.
    #[must_use]
    pub fn harm(&self) -> u64 {
        self.lock().harm
    }

    /// From now on writes fail for want of space, or succeed again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether writes fail for want of space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Damage the newest segment of the log in its midst: a record that has others behind it. What to put back.
    #[must_use]
    pub fn damage(&self) -> Option<(String, Vec<u8>)> {
        let mut inner = self.lock();
        let (name, file) = inner.files.iter_mut().rfind(|(name, _)| name.starts_with("log-"))?;
        let records: Vec<usize> = file
            .windows(RECORD.len())
            .enumerate()
            .filter(|(_, at)| *at == RECORD)
            .map(|(at, _)| at)
            .collect();
        // The first is the segment's head, and the last might be a torn tail.
        let (second, third) = (*records.get(1)?, *records.get(2)?);
        let before = file.clone();
        file[second.midpoint(third)] ^= 1;
        Some((name.clone(), before))
    }

    /// Put a file back as it was.
    pub fn restore(&self, (name, bytes): (String, Vec<u8>)) {
        self.lock().files.insert(name, bytes);
    }

    /// From now on each durable write takes so much longer.
    pub fn set_stall(&self, stall: Duration) {
        let mut inner = self.lock();
        (inner.stall, inner.uneven) = (stall, false);
    }

    /// From now on each durable write takes up to so much longer.
    pub fn set_uneven(&self, most: Duration) {
        let mut inner = self.lock();
        (inner.stall, inner.uneven) = (most, true);
    }

    /// The machine goes down: of each write under way nothing, a part or all arrived.
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.epoch += 1;
        for (_, write) in std::mem::take(&mut inner.under_way) {
            let arrived = match inner.rng.random_range(0..3) {
                0 => 0,
                1 => inner.rng.random_range(0..=write.bytes.len()),
                _ => write.bytes.len(),
            };
            inner.put(&write.name, write.offset, &write.bytes[..arrived]);
        }
    }

    /// All that was on it is gone.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.version += 1;
        inner.harm += 1;
        inner.under_way.clear();
        inner.files.clear();
    }

    /// One bit flips in what is written; `which` says where. Nothing if nothing is written.
    pub fn rot(&self, which: u64) -> Option<String> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let total: usize = inner.files.values().map(Vec::len).sum();
        let mut bit =
            usize::try_from(which % (u64::try_from(total * 8).ok().filter(|bits| *bits > 0)?)).ok()?;
        for (name, file) in &mut inner.files {
            if bit < file.len() * 8 {
                file[bit / 8] ^= 1 << (bit % 8);
                inner.version += 1;
                inner.harm += 1;
                return Some(format!("bit {} of byte {} of {name} flips", bit % 8, bit / 8));
            }
            bit -= file.len() * 8;
        }
        None
    }

    fn sync_time(inner: &mut Inner) -> Duration {
        let (least, most) = inner.sync;
        let took = inner.rng.random_range(least..=most);
        took + if inner.uneven { inner.rng.random_range(Duration::ZERO..=inner.stall) } else { inner.stall }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> DiskFuture<Vec<String>> {
        done(Ok(self.lock().files.keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> DiskFuture<Vec<u8>> {
        done(self.lock().files.get(name).cloned().ok_or_else(not_found))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> DiskFuture<Vec<u8>> {
        let inner = self.lock();
        let range = usize::try_from(offset).ok().and_then(|at| Some(at..at.checked_add(len)?));
        let found = range.and_then(|range| inner.files.get(name)?.get(range).map(<[u8]>::to_vec));
        done(found.ok_or_else(not_found))
    }

    fn write(&self, name: &str, offset: u64, bytes: Vec<u8>) -> DiskFuture<()> {
        let disk = self.clone();
        let name = name.to_owned();
        // Like the real disk it begins when it is awaited, so that the order is that of the awaits.
        Box::pin(async move {
            let Ok(offset) = usize::try_from(offset) else { return Err(io::ErrorKind::FileTooLarge.into()) };
            let (number, epoch, takes) = {
                let mut inner = disk.lock();
                if inner.full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                if !inner.files.contains_key(&name) {
                    return Err(not_found());
                }
                inner.number += 1;
                let number = inner.number;
                inner.under_way.insert(number, UnderWay { name, offset, bytes });
                (number, inner.epoch, Self::sync_time(&mut inner))
            };
            tokio::time::sleep(takes).await;
            let mut inner = disk.lock();
            match inner.under_way.remove(&number) {
                Some(write) if inner.epoch == epoch => {
                    inner.put(&write.name, write.offset, &write.bytes);
                    Ok(())
                }
                _ => Err(io::Error::other("the machine went down")),
            }
        })
    }

    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()> {
        let disk = self.clone();
        let name = name.to_owned();
        Box::pin(async move {
            let (epoch, takes) = {
                let mut inner = disk.lock();
                if inner.full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // The file's, and its folder's.
                (inner.epoch, Self::sync_time(&mut inner) + Self::sync_time(&mut inner))
            };
            tokio::time::sleep(takes).await;
            let mut inner = disk.lock();
            if inner.epoch != epoch {
                return Err(io::Error::other("the machine went down"));
            }
            inner.version += 1;
            inner.files.insert(name, bytes);
            Ok(())
        })
    }

    fn note(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.lock();
        if !inner.full {
            inner.version += 1;
            inner.files.insert(name.to_owned(), bytes);
        }
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        let disk = self.clone();
        let name = name.to_owned();
        Box::pin(async move {
            let mut inner = disk.lock();
            inner.version += 1;
            inner.files.remove(&name);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> SimDisk {
        SimDisk::new(1, (Duration::from_micros(100), Duration::from_millis(2)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_survives_a_crash() {
        let disk = disk();
        disk.replace("log", vec![0; 4]).await.unwrap();
        disk.write("log", 2, vec![7; 4]).await.unwrap();
        disk.crash();
        assert_eq!(disk.read("log").await.unwrap(), [0, 0, 7, 7, 7, 7]);
        assert_eq!(disk.read_at("log", 1, 2).await.unwrap(), [0, 7]);
        assert!(disk.read_at("log", 5, 2).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_under_way_arrives_in_part_and_never_ends() {
        for seed in 0..20 {
            let disk = SimDisk::new(seed, (Duration::from_millis(5), Duration::from_millis(5)));
            disk.replace("log", Vec::new()).await.unwrap();
            let writing = tokio::spawn(disk.write("log", 0, vec![7; 100]));
            tokio::time::sleep(Duration::from_millis(1)).await;
            disk.crash();
            assert!(writing.await.unwrap().is_err());
            let arrived = disk.read("log").await.unwrap();
            assert!(arrived.len() <= 100 && arrived.iter().all(|byte| *byte == 7), "{arrived:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_says_so() {
        let disk = disk();
        disk.replace("log", Vec::new()).await.unwrap();
        disk.set_full(true);
        assert_eq!(disk.write("log", 0, vec![1]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_full(false);
        disk.write("log", 0, vec![1]).await.unwrap();
    }
}

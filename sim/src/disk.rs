//! A simulated disk under consensus: it takes its time, can be full, and a crash decides what becomes of
//! the writes under way.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::disk::{Disk, DiskFuture};
use tokio::time::Instant;

/// A disk writes so many bytes as one.
const SECTOR: usize = 512;
/// A note that is older was synced by the system meanwhile.
const NOTES_SYNCED_AFTER: Duration = Duration::from_secs(5);
/// What a record of the log begins with.
const RECORD: &[u8] = b"\xF7sF1";

struct UnderWay {
    name: String,
    offset: usize,
    bytes: Vec<u8>,
}

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a power cut can do beyond what a killed process loses. Its own dice: a disk without it throws as it always did.
struct PowerCuts {
    rng: ChaCha8Rng,
    /// Files that were noted and not synced yet: since when, and what was there before.
    notes: BTreeMap<String, (Instant, Option<Vec<u8>>)>,
    /// Files being replaced, by number.
    replacing: BTreeMap<u64, (String, Vec<u8>)>,
    /// Whether a note was lost, and nothing noted since.
    lost: bool,
}

impl PowerCuts {
    /// A file is noted, in place of this content.
    fn note(&mut self, name: &str, before: Option<Vec<u8>>) {
        self.lost = false;
        let is_synced = |(since, _): &(Instant, _)| since.elapsed() >= NOTES_SYNCED_AFTER;
        if self.notes.get(name).is_none_or(is_synced) {
            self.notes.insert(name.to_owned(), (Instant::now(), before));
        }
    }

    /// What was being done to a file is of no account any more.
    fn forget(&mut self, name: &str) {
        self.notes.remove(name);
        self.replacing.retain(|_, (other, _)| other != name);
    }

    /// Of a write in place, which of its sectors arrived; all it is made of, if none is torn out.
    fn arrived(&mut self, write: &UnderWay) -> Vec<std::ops::Range<usize>> {
        let (begin, end) = (write.offset, write.offset + write.bytes.len());
        let sectors = begin / SECTOR..end.div_ceil(SECTOR);
        let within =
            |sector: usize| (sector * SECTOR).max(begin) - begin..((sector + 1) * SECTOR).min(end) - begin;
        sectors.filter(|_| self.rng.random_bool(0.5)).map(within).collect()
    }
}

struct Inner {
    files: Files,
    /// Counts up with each change of a file.
    version: u64,
    /// Counts up whenever something is lost or damaged that was durable.
    harm: u64,
    /// The file in which a bit flipped, until somebody asks.
    rotten: Option<String>,
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
    /// The disk that these files are on beside others: what it takes, and whether there is space.
    machine: Option<SimDisk>,
    power_cuts: Option<PowerCuts>,
    /// Notes that were lost so far.
    notes_lost: u64,
}

impl Inner {
    /// What another durable write takes, if there is space for it.
    fn durable(&mut self) -> io::Result<Duration> {
        if let Some(machine) = &self.machine {
            return machine.durable();
        }
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (least, most) = self.sync;
        let took = self.rng.random_range(least..=most);
        Ok(took + if self.uneven { self.rng.random_range(Duration::ZERO..=self.stall) } else { self.stall })
    }

    fn put(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        self.version += 1;
        if let Some(file) = self.files.get_mut(name) {
            let end = offset + bytes.len();
            file.resize(file.len().max(end), 0);
            file[offset..end].copy_from_slice(bytes);
        }
    }

    /// A write is done, and so are those to the same file that were begun before it.
    fn land(&mut self, number: u64, write: &UnderWay) {
        let mut before: Vec<UnderWay> = Vec::new();
        for (_, other) in self.under_way.range_mut(..number).filter(|(_, other)| other.name == write.name) {
            let (name, bytes) = (other.name.clone(), std::mem::take(&mut other.bytes));
            before.push(UnderWay { name, offset: other.offset, bytes });
        }
        for write in before.iter().chain([write]).filter(|write| !write.bytes.is_empty()) {
            self.put(&write.name, write.offset, &write.bytes);
        }
    }

    /// The power fails: of notes and files that were being replaced the old content is there or the new.
    fn lose_what_was_not_synced(&mut self) {
        let Some(cuts) = &mut self.power_cuts else { return };
        let (notes, replacing) = (std::mem::take(&mut cuts.notes), std::mem::take(&mut cuts.replacing));
        let lost: Vec<_> = notes.into_iter().filter(|_| cuts.rng.random_bool(0.5)).collect();
        cuts.lost |= !lost.is_empty();
        let arrived: Vec<_> = replacing.into_values().filter(|_| cuts.rng.random_bool(0.5)).collect();
        for (name, (_, before)) in lost {
            self.version += 1;
            self.notes_lost += 1;
            match before {
                Some(before) => self.files.insert(name, before),
                None => self.files.remove(&name),
            };
        }
        self.version += u64::from(!arrived.is_empty());
        self.files.extend(arrived);
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

async fn passes(time: Duration) {
    // What takes no time is not waited for, not even until others had their turn.
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl SimDisk {
    /// An empty disk that needs between these two times for a durable write.
    #[must_use]
    pub fn new(seed: u64, sync: (Duration, Duration)) -> Self {
        let inner = Inner {
            files: BTreeMap::new(),
            version: 0,
            harm: 0,
            rotten: None,
            under_way: BTreeMap::new(),
            number: 0,
            epoch: 0,
            full: false,
            sync,
            stall: Duration::ZERO,
            uneven: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
            machine: None,
            power_cuts: None,
            notes_lost: 0,
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// A disk that nothing ails: what is written is there at once.
    #[must_use]
    pub fn instant() -> Self {
        Self::new(0, Default::default())
    }

    /// Another folder of this disk. A crash has to be told to both.
    #[must_use]
    pub fn folder(&self, seed: u64) -> Self {
        let folder = Self::new(seed, Default::default());
        folder.lock().machine = Some(self.clone());
        folder
    }

    /// From now on a crash of its machine is as when the power fails: notes of the last seconds may be lost, any sectors of
    /// a write under way may have arrived, and a file that was being replaced may be there.
    pub fn set_power_cuts(&self, seed: u64) {
        let rng = ChaCha8Rng::seed_from_u64(seed ^ 0xdead);
        self.lock().power_cuts =
            Some(PowerCuts { rng, notes: BTreeMap::new(), replacing: BTreeMap::new(), lost: false });
    }

    /// The system syncs all that was noted.
    pub fn sync_notes(&self) {
        if let Some(cuts) = &mut self.lock().power_cuts {
            cuts.notes.clear();
        }
    }

    /// How many notes were lost, each in its time.
    #[must_use]
    pub fn notes_lost(&self) -> u64 {
        self.lock().notes_lost
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Look at the files, if anything has changed since this version of them; the version now.
    pub fn look_at<T>(&self, seen: u64, look: impl FnOnce(&Files) -> T) -> Option<(u64, T)> {
        let inner = self.lock();
        (inner.version != seen).then(|| (inner.version, look(&inner.files)))
    }

    /// All files as they are.
    #[must_use]
    pub fn copy(&self) -> Files {
        self.lock().files.clone()
    }

    /// How often something was lost or damaged that was durable.
    #[must_use]
    pub fn harm(&self) -> u64 {
        self.lock().harm
    }

    /// The file in which a bit has flipped since this was asked last.
    #[must_use]
    pub fn take_rotten(&self) -> Option<String> {
        self.lock().rotten.take()
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
        inner.lose_what_was_not_synced();
        for (_, write) in std::mem::take(&mut inner.under_way) {
            let torn = |cuts: &mut PowerCuts| cuts.rng.random_bool(0.3).then(|| cuts.arrived(&write));
            if let Some(sectors) = inner.power_cuts.as_mut().and_then(torn) {
                for sector in sectors {
                    inner.put(&write.name, write.offset + sector.start, &write.bytes[sector]);
                }
                continue;
            }
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
        if let Some(cuts) = &mut inner.power_cuts {
            cuts.notes.clear();
            cuts.replacing.clear();
        }
    }

    /// One bit flips in what is written; `which` says where. Nothing if nothing is written, nor if the notes were lost by
    /// which damage at the end can be told: nobody can bear both.
    pub fn rot(&self, which: u64) -> Option<String> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.power_cuts.as_ref().is_some_and(|cuts| cuts.lost) {
            return None;
        }
        let total: usize = inner.files.values().map(Vec::len).sum();
        let mut bit =
            usize::try_from(which % (u64::try_from(total * 8).ok().filter(|bits| *bits > 0)?)).ok()?;
        for (name, file) in &mut inner.files {
            if bit < file.len() * 8 {
                file[bit / 8] ^= 1 << (bit % 8);
                inner.version += 1;
                inner.harm += 1;
                inner.rotten = Some(name.clone());
                return Some(format!("bit {} of byte {} of {name} flips", bit % 8, bit / 8));
            }
            bit -= file.len() * 8;
        }
        None
    }

    /// What another durable write takes, if there is space for it.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn durable(&self) -> io::Result<Duration> {
        self.lock().durable()
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
                if !inner.files.contains_key(&name) {
                    return Err(not_found());
                }
                let takes = inner.durable()?;
                inner.number += 1;
                let number = inner.number;
                inner.under_way.insert(number, UnderWay { name, offset, bytes });
                (number, inner.epoch, takes)
            };
            passes(takes).await;
            let mut inner = disk.lock();
            match inner.under_way.remove(&number) {
                Some(write) if inner.epoch == epoch => {
                    inner.land(number, &write);
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
                // The file's, and its folder's.
                let takes = inner.durable()? + inner.durable()?;
                inner.number += 1;
                let number = inner.number;
                if let Some(cuts) = &mut inner.power_cuts {
                    cuts.forget(&name);
                    cuts.replacing.insert(number, (name.clone(), bytes.clone()));
                }
                (inner.epoch, takes)
            };
            passes(takes).await;
            let mut inner = disk.lock();
            if inner.epoch != epoch {
                return Err(io::Error::other("the machine went down"));
            }
            if let Some(cuts) = &mut inner.power_cuts {
                cuts.forget(&name);
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
            let before = inner.files.insert(name.to_owned(), bytes);
            if let Some(cuts) = &mut inner.power_cuts {
                cuts.note(name, before);
            }
        }
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        let disk = self.clone();
        let name = name.to_owned();
        Box::pin(async move {
            let mut inner = disk.lock();
            inner.version += 1;
            inner.files.remove(&name);
            if let Some(cuts) = &mut inner.power_cuts {
                cuts.forget(&name);
            }
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
    async fn a_power_cut_leaves_old_or_new_of_what_was_not_synced() {
        let (mut notes, mut files, mut holes) = (BTreeMap::new(), BTreeMap::new(), 0);
        for seed in 0..100 {
            let millis = Duration::from_millis(5);
            let disk = SimDisk::new(seed, (millis, millis));
            disk.set_power_cuts(seed);
            disk.replace("log", Vec::new()).await.unwrap();
            disk.note("noted", vec![1]);
            tokio::time::sleep(NOTES_SYNCED_AFTER).await;
            disk.note("noted", vec![2]);
            disk.note("noted", vec![3]);
            disk.replace("key", vec![1]).await.unwrap();
            let writing = tokio::spawn(disk.write("log", 100, vec![7; 4 * SECTOR]));
            let replacing = tokio::spawn(disk.replace("key", vec![2]));
            tokio::time::sleep(Duration::from_millis(1)).await;
            disk.crash();
            assert!(writing.await.unwrap().is_err() && replacing.await.unwrap().is_err());
            *notes.entry(disk.read("noted").await.unwrap()).or_insert(0) += 1;
            *files.entry(disk.read("key").await.unwrap()).or_insert(0) += 1;
            let log = disk.read("log").await.unwrap();
            let first = log.iter().position(|byte| *byte == 7).unwrap_or(log.len());
            holes += u32::from(first > 100 && first < log.len() || log[first..].contains(&0));
        }
        // What was noted seconds before is synced, and nothing is there that never was.
        assert_eq!(notes.keys().cloned().collect::<Vec<_>>(), [vec![1], vec![3]], "{notes:?}");
        assert_eq!(files.keys().cloned().collect::<Vec<_>>(), [vec![1], vec![2]], "{files:?}");
        assert!(holes > 5, "{holes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_has_the_time_and_space_of_its_disk_and_files_of_its_own() {
        let disk = disk();
        let folder = disk.folder(2);
        disk.set_stall(Duration::from_secs(1));
        let begun = Instant::now();
        folder.replace("key", vec![1]).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(2));
        assert!(disk.read("key").await.is_err());
        disk.set_full(true);
        assert_eq!(folder.replace("key", vec![2]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(folder.read("key").await.unwrap(), [1]);
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

//! The log on disk against a model, with torn tails, flipped bits and missing files.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use openraft::{LeaderId, RaftLogReader};
use proptest::prelude::*;
use shoal_core::model::NodeId;

use super::disks::MemDisk;
use crate::disk::Disk as _;
use crate::raft::batch::Batch;
use crate::raft::error::OpenError;
use crate::raft::key::DataKey;
use crate::raft::log_store::LogStore;
use crate::raft::reading::{At, COMMITTED, Record, Segment};
use crate::raft::types::{Entry, LogId, Vote};

const KEY: [u8; 32] = [9; 32];

fn me() -> NodeId {
    NodeId::from(1)
}

async fn open(disk: &MemDisk) -> Result<LogStore, OpenError> {
    open_as(disk, KEY, me()).await
}

async fn open_as(disk: &MemDisk, key: [u8; 32], node: NodeId) -> Result<LogStore, OpenError> {
    LogStore::open(Arc::new(disk.clone()), DataKey::new(key), node, Arc::default(), Arc::default()).await
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let bytes = vec![u8::try_from(index % 251).unwrap(); size];
    Entry {
        log_id: LogId::new(LeaderId::new(term, me()), index),
        payload: EntryPayload::Normal(Batch::of([(1, bytes.as_slice())])),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        count: u64,
        size: usize,
    },
    Truncate(u64),
    Purge(u64),
    Vote,
    Reopen,
    /// An append during which the machine goes off.
    Torn {
        size: usize,
        arrived: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..6u64, 0..3000usize).prop_map(|(count, size)| Op::Append { count, size }),
        1 => (0..10u64).prop_map(Op::Truncate),
        1 => (0..10u64).prop_map(Op::Purge),
        1 => Just(Op::Vote),
        2 => Just(Op::Reopen),
        2 => (0..3000usize, 0..4000usize).prop_map(|(size, arrived)| Op::Torn { size, arrived }),
    ]
}

#[derive(Default)]
struct Model {
    term: u64,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied().or_else(|| self.purged.map(|id| id.index));
        last.map_or(0, |last| last + 1)
    }

    fn fresh(&self, count: u64, size: usize) -> Vec<Entry> {
        let next = self.next();
        (next..next + count).map(|index| entry(self.term, index, size)).collect()
    }

    async fn check(&self, log: &mut LogStore) {
        let entries = log.try_get_log_entries(..).await.unwrap();
        assert_eq!(entries, self.entries.values().cloned().collect::<Vec<_>>());
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, self.purged);
        assert_eq!(state.last_log_id, self.entries.values().next_back().map(|e| e.log_id).or(self.purged));
        assert_eq!(log.read_vote().await.unwrap(), self.vote);
    }

    async fn step(&mut self, op: Op, log: LogStore, disk: &MemDisk) -> LogStore {
        let mut log = log;
        match op {
            Op::Append { count, size } => {
                let fresh = self.fresh(count, size);
                log.write_entries(fresh.clone()).await.unwrap();
                self.entries.extend(fresh.into_iter().map(|entry| (entry.log_id.index, entry)));
            }
            Op::Truncate(back) => {
                let Some(last) = self.entries.keys().next_back() else { return log };
                let since = last.saturating_sub(back).max(*self.entries.keys().next().unwrap());
                log.truncate(self.entries[&since].log_id).await.unwrap();
                self.entries.split_off(&since);
                self.term += 1;
            }
            Op::Purge(ahead) => {
                let Some(first) = self.entries.keys().next() else { return log };
                let upto = (first + ahead).min(*self.entries.keys().next_back().unwrap());
                let id = self.entries[&upto].log_id;
                log.purge(id).await.unwrap();
                self.entries = self.entries.split_off(&(upto + 1));
                self.purged = Some(id);
            }
            Op::Vote => {
                self.term += 1;
                let vote = Vote::new(self.term, me());
                log.save_vote(&vote).await.unwrap();
                self.vote = Some(vote);
            }
            Op::Reopen => {
                drop(log);
                log = open(disk).await.unwrap();
            }
            Op::Torn { size, arrived } => {
                let fresh = self.fresh(1, size);
                *disk.tear.lock().unwrap() = Some(arrived);
                log.write_entries(fresh.clone()).await.unwrap_err();
                drop(log);
                log = open(disk).await.unwrap();
                if log.last().map(|id| id.index) == Some(fresh[0].log_id.index) {
                    // All of it had arrived, only the word of it had not.
                    self.entries.extend(fresh.into_iter().map(|entry| (entry.log_id.index, entry)));
                }
            }
        }
        log
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_log_is_what_was_written_whatever_happens(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = MemDisk::default();
            let mut log = open(&disk).await.unwrap();
            let mut model = Model::default();
            for op in ops {
                log = model.step(op, log, &disk).await;
                model.check(&mut log).await;
            }
        });
    }
}

/// A log of several records, and the name of the file that has them.
async fn written(disk: &MemDisk) -> String {
    let mut log = open(disk).await.unwrap();
    for index in 0..6 {
        log.write_entries(vec![entry(1, index, 40)]).await.unwrap();
    }
    log.save_vote(&Vote::new(2, me())).await.unwrap();
    "log-0000000000000001".into()
}

#[tokio::test]
async fn a_flipped_bit_is_refused_by_name() {
    let disk = MemDisk::default();
    let file = written(&disk).await;
    let (good, note) = {
        let files = disk.files.lock().unwrap();
        (files[&file].clone(), files[COMMITTED].clone())
    };
    let last = good.windows(4).rposition(|window| window == b"\xF7sF1").unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        // The reserved bytes of the file's header are not looked at.
        if (10..16).contains(&at) {
            continue;
        }
        let put = |noted: bool| {
            let mut files = disk.files.lock().unwrap();
            files.retain(|name, _| *name == file);
            files.insert(file.clone(), bad.clone());
            if noted {
                files.insert(COMMITTED.into(), note.clone());
            }
        };
        if at >= last {
            // But for the note, the last record cannot be told from one that was torn.
            put(false);
            assert!(open(&disk).await.is_ok(), "{at}");
        }
        put(true);
        let Err(error) = open(&disk).await else { panic!("a flipped bit at {at} went unnoticed") };
        let named = match &error {
            OpenError::Corrupt { file: name, .. } | OpenError::WrongKey { file: name } => *name == file,
            OpenError::Version { file: name, .. } => *name == file,
            _ => false,
        };
        assert!(named, "{at}: {error}");
    }
}

#[tokio::test]
async fn another_key_is_refused_by_name() {
    let disk = MemDisk::default();
    written(&disk).await;
    let error = open_as(&disk, [8; 32], me()).await.err().unwrap();
    assert!(matches!(error, OpenError::WrongKey { .. }), "{error}");
}

#[tokio::test]
async fn the_log_of_another_node_is_refused() {
    let disk = MemDisk::default();
    written(&disk).await;
    let error = open_as(&disk, KEY, NodeId::from(2)).await.err().unwrap();
    assert!(matches!(error, OpenError::OtherNode { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let disk = MemDisk::default();
    let first = written(&disk).await;
    let mut log = open(&disk).await.unwrap();
    log.write_entries(vec![entry(2, 6, 40)]).await.unwrap();
    drop(log);
    disk.files.lock().unwrap().remove(&first);
    let error = open(&disk).await.err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn nothing_that_was_proposed_is_readable_on_the_disk() {
    let disk = MemDisk::default();
    let mut log = open(&disk).await.unwrap();
    let secret = b"correct horse battery staple";
    let payload = EntryPayload::Normal(Batch::of([(1, secret.as_slice())]));
    log.write_entries(vec![Entry { log_id: LogId::default(), payload }]).await.unwrap();
    for bytes in disk.files.lock().unwrap().values() {
        assert!(!bytes.windows(8).any(|window| window == &secret[..8]));
    }
}

#[tokio::test]
async fn segments_rotate_and_go_once_they_are_purged() {
    let disk = MemDisk::default();
    let mut log = open(&disk).await.unwrap();
    for index in 0..60 {
        log.write_entries(vec![entry(1, index, 500_000)]).await.unwrap();
    }
    let segments =
        |disk: &MemDisk| disk.files.lock().unwrap().keys().filter(|name| name.starts_with("log-")).count();
    assert!(segments(&disk) >= 4, "{}", segments(&disk));
    // Far more than the cache holds, so most of these come from the disk.
    let read = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, (0..60).map(|index| entry(1, index, 500_000)).collect::<Vec<_>>());
    let some = log.get_log_reader().await.limited_get_log_entries(10, 50).await.unwrap();
    assert!((1..=3).contains(&some.len()), "{}", some.len());
    log.purge(entry(1, 55, 0).log_id).await.unwrap();
    assert_eq!(segments(&disk), 1);
    drop(log);
    let mut log = open(&disk).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 4);
    log.write_entries(vec![entry(1, 60, 10)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_out_and_nothing_is_acknowledged_meanwhile() {
    use std::sync::atomic::Ordering::SeqCst;
    let disk = MemDisk::default();
    let mut log = open(&disk).await.unwrap();
    log.write_entries(vec![entry(1, 0, 40)]).await.unwrap();
    disk.full.store(true, SeqCst);
    let writing = tokio::spawn(async move {
        log.write_entries(vec![entry(1, 1, 4000)]).await.unwrap();
        log
    });
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert!(!writing.is_finished());
    disk.full.store(false, SeqCst);
    let log = writing.await.unwrap();
    assert_eq!(log.last().unwrap().index, 1);
    drop(log);
    assert_eq!(open(&disk).await.unwrap().try_get_log_entries(..).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_log_that_grows_is_read_from_outside_record_by_record() {
    let disk = MemDisk::default();
    let mut log = open(&disk).await.unwrap();
    let name = disk.list().await.unwrap().into_iter().find(|name| Segment::is_one(name)).unwrap();
    let mut segment = Segment::open(&name, &disk.read(&name).await.unwrap(), &DataKey::new(KEY)).unwrap();
    let mut news = |bytes: &[u8]| std::iter::from_fn(|| segment.next(bytes)).collect::<Vec<_>>();
    let begins = Record::Begins { node: me(), purged: None, last: None };
    assert_eq!(news(&disk.read(&name).await.unwrap()), [begins]);
    let (first, second, other) = (entry(1, 0, 10), entry(1, 1, 10), entry(2, 1, 20));
    log.write_entries(vec![first.clone(), second.clone()]).await.unwrap();
    let bytes = disk.read(&name).await.unwrap();
    assert_eq!(news(&bytes[..bytes.len() - 1]), [], "what is cut short is not there yet");
    let [Record::Entries(written)] = &news(&bytes)[..] else { panic!("one record") };
    assert_eq!(
        written.iter().map(|w| w.at).collect::<Vec<_>>(),
        [At::from(first.log_id), At::from(second.log_id)]
    );
    let says = written[1].says;
    log.truncate(second.log_id).await.unwrap();
    log.write_entries(vec![other.clone()]).await.unwrap();
    log.purge(first.log_id).await.unwrap();
    let [Record::Truncated(1), Record::Entries(written), Record::Purged(upto)] =
        &news(&disk.read(&name).await.unwrap())[..]
    else {
        panic!("three records");
    };
    assert_eq!((written[0].at, *upto), (At::from(other.log_id), At::from(first.log_id)));
    assert_ne!(written[0].says, says);
}

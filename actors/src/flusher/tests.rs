use std::collections::BTreeSet;

use treering_engine::memory::{Class, FrameId, Residency};
use treering_engine::{Extent, PageId, Retired, Seq, Stamp};
use treering_io::SimDirectory;

use super::checkpoint::Stage;
use super::step::RETRY_NANOS;
use super::{FileTask, Flusher, FlusherMessage, PublishedPages, WRITES_MAX};
use crate::actor::{Actor, Nanos, Outbox};
use crate::client::Db;
use crate::options::{Durability, Options};
use crate::pager::PagerMessage;
use crate::runtime::{Runtime, SimOptions};

/// A database that isn't closed but ends: the messages that these tests take away would be waited for.
struct Simulated(Option<Db>);

impl Simulated {
    fn runtime(&self) -> &Runtime {
        let Self(Some(db)) = self else {
            panic!("it has ended")
        };
        &db.inner.runtime
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(crate::sim::crash);
    }
}

/// A database at rest with nothing in it.
fn empty() -> Simulated {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    crate::sim::settle(&db);
    Simulated(Some(db))
}

/// A database at rest, all of whose leaves are changed and in memory, while there are no free frames.
fn full_of_changed_leaves() -> Simulated {
    let disk = SimDirectory::new(1);
    let options = Options::new()
        .cache_bytes(512 * 4096)
        .max_dirty_pages(usize::MAX)
        .durability(Durability::Buffered);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    for batch in 0..7_u32 {
        // In one batch each leaf is created once; put one by one, its copies would lie between it and the next.
        let pairs = (0..100).map(|number| ((100 * batch + number).to_be_bytes(), [7; 900]));
        tree.send_batch(pairs).expect("sent").wait().expect("a batch");
    }
    crate::sim::settle(&db);
    let memory = &db.inner.runtime.shared.memory;
    memory.allocate_many(Class::Reserve, memory.frames(), &mut Vec::new());
    Simulated(Some(db))
}

/// Lets the clock run until it writes; what it writes.
fn written(flusher: &mut Flusher, now: Nanos) -> Vec<(PageId, FrameId)> {
    let mut outbox = Outbox::default();
    for _ in 0..10 {
        flusher.end_batch(now, &mut outbox);
    }
    outbox
        .pager
        .iter()
        .map(|message| match message {
            PagerMessage::WritePage { id, frame } => (*id, *frame),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn changed_leaves_are_written_with_their_neighbours() {
    let db = full_of_changed_leaves();
    let memory = &db.runtime().shared.memory;
    let mut flusher = db.runtime().flusher.lock();
    let writes = written(&mut flusher, 0);
    assert_eq!(writes.len(), WRITES_MAX);
    let distinct: BTreeSet<PageId> = writes.iter().map(|(id, _)| *id).collect();
    assert_eq!(distinct.len(), WRITES_MAX, "a page is written twice at a time");
    let neighbours = writes
        .windows(2)
        .filter(|pair| pair[1].0.0 == pair[0].0.0 + 1)
        .count();
    assert!(
        neighbours > WRITES_MAX * 3 / 4,
        "{neighbours} of {WRITES_MAX} follow their neighbour"
    );
    let mut outbox = Outbox::default();
    for (id, frame) in writes {
        assert!(memory.is_writing(frame));
        let result = Ok(());
        flusher.handle(FlusherMessage::PageWritten { id, frame, result }, 0, &mut outbox);
    }
    let gone = distinct
        .iter()
        .filter(|id| memory.state(**id) == Residency::Absent)
        .count();
    assert!(
        (1..WRITES_MAX).contains(&gone),
        "{gone} have left, not those whose turn it was"
    );
    for id in &distinct {
        if let Residency::Resident(frame) = memory.state(*id) {
            assert!(memory.is_written(frame) && !memory.is_writing(frame));
        }
    }
}

#[test]
fn writes_that_fail_leave_their_pages_changed_and_make_room_for_others() {
    let db = full_of_changed_leaves();
    let memory = &db.runtime().shared.memory;
    let mut flusher = db.runtime().flusher.lock();
    let writes = written(&mut flusher, 0);
    assert!(
        written(&mut flusher, 0).is_empty(),
        "more writes than there may be"
    );
    let mut outbox = Outbox::default();
    for (id, frame) in writes {
        let result = Err(std::io::Error::other("planted"));
        flusher.handle(FlusherMessage::PageWritten { id, frame, result }, 0, &mut outbox);
        assert!(!memory.is_written(frame) && !memory.is_writing(frame));
    }
    // Whoever waits looks again when the pause is over, and no sooner.
    flusher.pager_waits = true;
    assert!(written(&mut flusher, 0).is_empty());
    flusher.pager_waits = true;
    let pause = flusher.deadline(0).expect("a time to look again");
    assert!(pause > RETRY_NANOS, "{pause} ns");
    assert!(written(&mut flusher, pause - 1).is_empty());
    let writes = written(&mut flusher, pause);
    assert_eq!(writes.len(), WRITES_MAX);
    for (id, frame) in writes {
        let result = Err(std::io::Error::other("planted"));
        flusher.handle(
            FlusherMessage::PageWritten { id, frame, result },
            pause,
            &mut outbox,
        );
    }
    assert!(written(&mut flusher, pause).is_empty());
    // Who asks now doesn't have to wait.
    flusher.handle(FlusherMessage::Pressure { shard: None }, pause, &mut outbox);
    assert_eq!(written(&mut flusher, pause).len(), WRITES_MAX);
}

#[test]
fn what_a_snapshot_kept_is_free_when_it_ends_though_nothing_else_happens() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    let fill = |value: u8| {
        let pairs = (0..200_u32).map(|number| (number.to_be_bytes(), [value; 900]));
        tree.send_batch(pairs).expect("sent").wait().expect("a batch");
    };
    fill(1);
    let snapshot = db.client().snapshot();
    let entries = tree.range::<&[u8]>(..).expect("a range");
    fill(2);
    // The snapshot's version is not what the next checkpoint keeps.
    db.checkpoint().expect("a checkpoint");
    for _ in 0..100 {
        tree.put(0_u32.to_be_bytes(), [3; 900]).expect("a put");
    }
    crate::sim::settle(&db);
    let kept = db.stats().retained_pages;
    drop(snapshot);
    crate::sim::settle(&db);
    assert!(db.stats().retained_pages + 10 > kept, "a range still keeps them");
    drop(entries);
    crate::sim::settle(&db);
    let left = db.stats().retained_pages;
    assert!(
        kept > 40 && left + 40 < kept,
        "{kept} pages were kept, {left} still are"
    );
}

/// Pages that are in memory after all values of a tree in memory were replaced, beyond those that were before. A snapshot
/// of the checkpoint's version is alive if `holds` says so.
fn left_by_overwriting(holds: bool) -> u64 {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    let fill = |value: u8| {
        for part in 0..4 {
            let pairs = (0..50_u32).map(|number| ((50 * part + number).to_be_bytes(), [value; 900]));
            tree.send_batch(pairs).expect("sent").wait().expect("a batch");
        }
    };
    fill(1);
    db.checkpoint().expect("a checkpoint");
    let snapshot = holds.then(|| db.client().snapshot());
    crate::sim::settle(&db);
    let before = db.stats().frames_resident;
    assert!(before > 50, "{before} pages");
    fill(2);
    crate::sim::settle(&db);
    let left = db.stats().frames_resident.saturating_sub(before);
    if let Some(snapshot) = snapshot {
        let missed = db.stats().misses;
        let old = snapshot.get(&tree, 7_u32.to_be_bytes()).expect("a get");
        assert_eq!(old.as_deref(), Some(&[1; 900][..]));
        assert_eq!(db.stats().misses, missed, "its pages are still in memory");
    }
    left
}

#[test]
fn what_only_the_last_checkpoint_has_leaves_memory() {
    let left = left_by_overwriting(false);
    assert!(left < 10, "{left} pages more");
}

#[test]
fn what_a_snapshot_of_the_last_checkpoint_has_stays_in_memory() {
    let left = left_by_overwriting(true);
    assert!(left > 40, "only {left} pages more");
}

/// Has the flusher believe that it is recovering, and that the log names pages behind the end of the file, the last one
/// `pages` behind it; then that recovery ends, with the last `used` of them in a tree. Returns by how much the space map
/// is longer than before, by how much more is free, and how long the file should become.
fn recovered_behind_the_end(pages: u32, used: u32) -> (u32, u64, Vec<u32>) {
    let db = empty();
    let mut flusher = db.runtime().flusher.lock();
    let mut outbox = Outbox::default();
    let (file_pages, free) = (flusher.space.file_pages(), flusher.space.available_pages());
    (flusher.live, flusher.may_allocate) = (false, false);
    let (reply, answer) = oneshot::channel();
    let last = Extent {
        start: PageId(file_pages + pages - used - 1),
        pages: used + 1,
    };
    let extents = vec![last];
    flusher.handle(FlusherMessage::Reserve { extents, reply }, 0, &mut outbox);
    answer.recv().expect("an answer").expect("reserved");
    assert_eq!(
        flusher.space.available_pages(),
        free,
        "pages that the file hasn't"
    );
    for id in last.ids().skip(1) {
        flusher.reserved.remove(id);
    }
    flusher.handle(FlusherMessage::GoLive, 0, &mut outbox);
    let grown = outbox.file_tasks.iter().filter_map(|task| match task {
        FileTask::Grow { pages } => Some(pages - file_pages),
        _ => None,
    });
    (
        flusher.space.file_pages() - file_pages,
        flusher.space.available_pages() - free,
        grown.collect(),
    )
}

#[test]
fn pages_behind_the_end_of_the_file_are_given_to_nobody_after_recovery() {
    assert_eq!(recovered_behind_the_end(10_000, 0), (0, 0, vec![]));
    // The file was cut by somebody else.
    let (pages, used) = (100, 3);
    let free = u64::from(pages - used);
    assert_eq!(recovered_behind_the_end(pages, used), (pages, free, vec![pages]));
}

#[test]
fn a_checkpoint_tries_for_room_again_whatever_failed_before() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    tree.put(b"k", b"v").expect("written");
    crate::sim::settle(&db);
    {
        let mut flusher = db.inner.runtime.flusher.lock();
        // The file is full, and could not grow when that was last tried.
        let taken = flusher.space.allocate_chunk(u32::MAX);
        assert!(!taken.is_empty());
        let error = std::io::ErrorKind::StorageFull.into();
        flusher.growth_failure = Some(crate::error::Error::io("growing", error));
    }
    db.checkpoint().expect("there is room");
    drop(tree);
    crate::sim::crash(db);
}

#[test]
fn a_snapshot_keeps_nothing_that_came_while_its_checkpoint_was_written() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    tree.put(b"k", b"v").expect("written");
    drop(tree);
    drop(db.create_named_snapshot("named").expect("a snapshot"));
    crate::sim::settle(&db);
    let db = Simulated(Some(db));
    let mut flusher = db.runtime().flusher.lock();
    flusher.space.freeze();
    flusher.checkpoint.stage = Stage::Walking;
    flusher.checkpoint.named = flusher.named.clone();
    let newest = flusher.newest.seq;
    let blob = flusher.space.allocate_contiguous(3).expect("free pages");
    let pages = |added: Vec<Extent>, retired: Vec<Retired>| PublishedPages {
        created: Vec::new(),
        retired,
        loads: false,
        extents_added: added,
        extents_unused: Vec::new(),
        stamp: Stamp(1),
    };
    // Its first group is known to be the next one or a later one; another thread had it that it might be this one.
    let retired = Retired {
        extent: blob,
        born: newest,
    };
    for (seq, pages) in [
        (Seq(newest.0 + 1), pages(vec![blob], Vec::new())),
        (Seq(newest.0 + 2), pages(Vec::new(), vec![retired])),
    ] {
        flusher.note_published(seq, vec![pages]);
    }
    assert!(flusher.waiting.iter().any(|(_, entry)| entry.extent == blob));
    let named = flusher.named.clone();
    let kept: Vec<Retired> = flusher
        .image_snapshots(&named)
        .into_iter()
        .flat_map(|snapshot| snapshot.kept)
        .collect();
    assert_eq!(kept, []);
}

#[test]
fn what_recovery_retires_behind_the_end_of_the_file_is_given_to_nobody_either() {
    let db = empty();
    let mut flusher = db.runtime().flusher.lock();
    let mut outbox = Outbox::default();
    let (file_pages, free) = (flusher.space.file_pages(), flusher.space.available_pages());
    flusher.live = false;
    let blob = Extent {
        start: PageId(file_pages + 2),
        pages: 3,
    };
    flusher.reserve(&[blob]).expect("reserved");
    let seq = flusher.newest.seq.next();
    let retired = Retired {
        extent: blob,
        born: seq,
    };
    let pages = PublishedPages {
        created: Vec::new(),
        retired: vec![retired],
        loads: false,
        extents_added: vec![blob],
        extents_unused: Vec::new(),
        stamp: Stamp(1),
    };
    flusher.note_published(seq, vec![pages]);
    assert_eq!(
        flusher.space.available_pages(),
        free,
        "pages that the file hasn't"
    );
    flusher.handle(FlusherMessage::GoLive, 0, &mut outbox);
    assert_eq!(flusher.space.file_pages(), file_pages);
    assert_eq!(flusher.space.available_pages(), free);
    assert!(outbox.file_tasks.is_empty());
}

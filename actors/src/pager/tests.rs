use std::sync::Arc;

use treering_engine::PageRef;
use treering_engine::memory::{Class, FrameId, Residency};
use treering_engine::page;
use treering_io::SimDirectory;

use super::{Begun, Pager, PagerMessage, Waiter};
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::options::Options;
use crate::runtime::{Runtime, SimOptions};
use crate::shared::{unhold, with_guard};

fn open(disk: &SimDirectory) -> Db {
    let options = Options::new().cache_bytes(256 * 4096);
    crate::sim::open(disk, &options, SimOptions::default()).expect("it opens")
}

/// A database that was opened again, and the root of its tree, which is not in memory.
fn reopened() -> (Db, PageRef) {
    let disk = SimDirectory::new(1);
    let db = open(&disk);
    let tree = db.client().tree("tree").expect("a tree");
    tree.put(b"key", b"value").expect("a put");
    drop(tree);
    db.close().expect("a clean close");
    let db = open(&disk);
    let shared = &db.inner.runtime.shared;
    let root = with_guard(&shared.memory, |guard| {
        let directory = &shared.current.load(guard).directory;
        let tree = directory.by_name("tree").expect("a tree");
        tree.partitions[0].root.reference
    });
    assert_eq!(shared.memory.state(root.id), Residency::Absent);
    (db, root)
}

fn begin(runtime: &Runtime, reference: PageRef, outbox: &mut Outbox) -> Begun {
    let mut pager = runtime.pager.lock();
    let begun = pager.begin(reference);
    pager.end_batch(0, outbox);
    begun
}

fn own(begun: Begun) -> super::read::OwnRead {
    match begun {
        Begun::Own(read) => read,
        Begun::Here(_) | Begun::Wait(_) => panic!("the page was not absent"),
    }
}

/// A second client, and one by message, that miss the page while it is read.
fn join(runtime: &Runtime, reference: PageRef) -> Vec<oneshot::Receiver<Result<FrameId, Error>>> {
    let mut outbox = Outbox::default();
    let Begun::Wait(second) = begin(runtime, reference, &mut outbox) else {
        panic!("the page is read twice");
    };
    let (sender, third) = oneshot::channel();
    let waiter = Waiter::Client(sender);
    runtime
        .pager
        .lock()
        .handle(PagerMessage::Fetch { reference, waiter }, 0, &mut outbox);
    runtime.pager.lock().end_batch(0, &mut outbox);
    assert!(outbox.operations.is_empty(), "the page is read twice");
    vec![second, third]
}

fn told(outbox: &mut Outbox) {
    for (sender, result) in outbox.fetched.drain(..) {
        sender.send(result).expect("somebody waits");
    }
}

#[test]
fn one_read_serves_all_who_miss_the_page() {
    let (db, root) = reopened();
    let runtime = &db.inner.runtime;
    let memory = &runtime.shared.memory;
    let mut outbox = Outbox::default();
    let read = own(begin(runtime, root, &mut outbox));
    let others = join(runtime, root);
    let Residency::Loading(loading) = memory.state(root.id) else {
        panic!("the page is not on its way");
    };
    let frame = runtime
        .pager
        .lock()
        .finish(read.execute(), &mut outbox)
        .expect("the page");
    assert_eq!(frame, loading);
    assert_eq!(memory.state(root.id), Residency::Resident(frame));
    told(&mut outbox);
    for other in others {
        assert_eq!(other.try_recv().expect("an answer").expect("the page"), frame);
    }
    assert_eq!(memory.holds(frame), 3, "each of them holds the page");
    let Begun::Here(found) = begin(runtime, root, &mut outbox) else {
        panic!("a resident page is read again");
    };
    assert_eq!((found, memory.holds(frame)), (frame, 4));
    (0..4).for_each(|_| unhold(memory, frame));
}

#[test]
fn a_page_that_is_not_believed_is_refused_to_all_and_forgotten() {
    let (db, root) = reopened();
    let runtime = &db.inner.runtime;
    let memory = &runtime.shared.memory;
    let free = memory.free_frames();
    let stale = PageRef {
        birth: root.birth + 1,
        ..root
    };
    let mut outbox = Outbox::default();
    let read = own(begin(runtime, stale, &mut outbox));
    let others = join(runtime, stale);
    let refused = runtime.pager.lock().finish(read.execute(), &mut outbox);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    told(&mut outbox);
    for other in others {
        let answer = other.try_recv().expect("an answer");
        assert!(matches!(answer, Err(Error::Corrupt { .. })), "{answer:?}");
    }
    assert_eq!(memory.state(root.id), Residency::Absent);
    assert_eq!(memory.free_frames(), free, "a frame was lost");
}

#[test]
fn a_client_waits_for_a_frame_and_the_device_reads_for_it() {
    let (db, root) = reopened();
    let runtime = &db.inner.runtime;
    let memory = &runtime.shared.memory;
    let mut taken = Vec::new();
    memory.allocate_many(Class::Reserve, memory.frames(), &mut taken);
    let mut outbox = Outbox::default();
    let Begun::Wait(waiting) = begin(runtime, root, &mut outbox) else {
        panic!("there was a frame");
    };
    assert!(matches!(
        outbox.flusher[..],
        [FlusherMessage::Pressure { shard: None }]
    ));
    taken.into_iter().for_each(|frame| memory.release_now(frame));
    let mut pager = runtime.pager.lock();
    pager.handle(PagerMessage::FramesFreed, 0, &mut outbox);
    pager.end_batch(0, &mut outbox);
    let operation = outbox.operations.pop().expect("a read");
    pager.handle(
        PagerMessage::Completed(operation.complete_blocking()),
        0,
        &mut outbox,
    );
    drop(pager);
    told(&mut outbox);
    let frame = waiting.try_recv().expect("an answer").expect("the page");
    assert_eq!(memory.state(root.id), Residency::Resident(frame));
    unhold(memory, frame);
}

#[test]
fn a_page_is_written_from_a_copy_and_left_as_it_is() {
    let db = open(&SimDirectory::new(1));
    let tree = db.client().tree("tree").expect("a tree");
    tree.put(b"key", b"value").expect("a put");
    let shared = &db.inner.runtime.shared;
    let root = with_guard(&shared.memory, |guard| {
        let directory = &shared.current.load(guard).directory;
        directory.by_name("tree").expect("a tree").partitions[0]
            .root
            .reference
    });
    let bytes = |id: FrameId| {
        with_guard(&shared.memory, |guard| {
            let frame = shared.memory.lookup(root.id, guard).expect("resident");
            assert_eq!(frame.id, id);
            frame.bytes.to_vec()
        })
    };
    let Residency::Resident(frame) = shared.memory.state(root.id) else {
        panic!("the page was just made");
    };
    let before = bytes(frame);
    assert_eq!(page::verify(&before, root), Err(page::PageDefect::Checksum));
    // A pager of its own: the flusher has not asked for this write.
    let file = Arc::clone(&db.inner.runtime.pager.lock().file);
    let mut pager = Pager::new(Arc::clone(shared), file);
    let mut outbox = Outbox::default();
    let id = root.id;
    pager.handle(PagerMessage::WritePage { id, frame }, 0, &mut outbox);
    pager.end_batch(0, &mut outbox);
    let written = outbox.operations.pop().expect("a write");
    let written = written.buffer.into_owned().expect("memory of its own");
    assert_eq!(page::verify(&written, root), Ok(()));
    assert_eq!(bytes(frame), before, "readers may be looking at it");
}

/// Bad run: see [`Kept`](super::Kept).
#[test]
fn what_is_asked_for_by_those_who_may_go_stays_alive_until_it_has_come() {
    let (db, root) = reopened();
    let runtime = &db.inner.runtime;
    let memory = &runtime.shared.memory;
    let version: Arc<()> = Arc::new(());
    let (sender, future) = oneshot::channel();
    let waiters = [
        Waiter::Nobody {
            kept: version.clone(),
        },
        Waiter::Future {
            sender: sender.into(),
            kept: version.clone(),
        },
    ];
    drop(future);
    let mut outbox = Outbox::default();
    let mut pager = runtime.pager.lock();
    for waiter in waiters {
        let reference = root;
        pager.handle(PagerMessage::Fetch { reference, waiter }, 0, &mut outbox);
    }
    pager.end_batch(0, &mut outbox);
    assert_eq!(Arc::strong_count(&version), 3, "the page is not here yet");
    let gone = Arc::downgrade(&version);
    drop(version);
    let operation = outbox.operations.pop().expect("one read");
    assert!(gone.upgrade().is_some() && outbox.flusher.is_empty());
    pager.handle(
        PagerMessage::Completed(operation.complete_blocking()),
        0,
        &mut outbox,
    );
    drop(pager);
    // Nobody but the flusher would hear of it.
    assert!(matches!(outbox.flusher[..], [FlusherMessage::Released { .. }]));
    outbox.flusher.clear();
    assert_eq!(gone.strong_count(), 0);
    runtime.finish_step(&mut outbox);
    let Residency::Resident(frame) = memory.state(root.id) else {
        panic!("the page has come");
    };
    assert_eq!(memory.holds(frame), 0, "the future is gone");
}

//! Subscriptions: committed changes in commit order, and writers that never wait for a slow reader.

#![expect(
    clippy::disallowed_methods,
    reason = "real threads are what these tests are about"
)]

mod support;

use support::options;
use treering::{Durability, Error, Event};

/// Key and value of a change.
fn change(event: &Event) -> (Vec<u8>, Option<Vec<u8>>) {
    match event {
        Event::Changed { key, value, .. } => (key.to_vec(), value.as_ref().map(|value| value.to_vec())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_come_in_commit_order_from_now_on() {
    let directory = tempfile::tempdir().unwrap();
    let files = options().open(directory.path()).unwrap();
    let memory = options().open_in_memory().unwrap();
    for db in [files, memory] {
        let tree = db.client().tree("t").unwrap();
        tree.put(b"user/0", b"before").unwrap();
        let mut feed = tree.subscribe(b"user/").unwrap();
        let blob = vec![9; 50_000];
        tree.put(b"user/1", b"one").unwrap();
        tree.put(b"group/1", b"of no interest").unwrap();
        tree.delete(b"user/0").unwrap();
        tree.update(b"user/1", |old| old.map(|old| [old, b"!"].concat()))
            .unwrap();
        tree.with_durability(Durability::Buffered)
            .put(b"user/2", &blob)
            .unwrap();
        // The blob is gone before it is read, but not from under the subscription.
        tree.put(b"user/2", b"small").unwrap();
        let mut batch = db.client().batch();
        batch.put(&tree, b"user/3", b"three");
        batch.put(&tree, b"other", b"");
        batch.commit().unwrap();
        let expected: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"user/1", Some(b"one")),
            (b"user/0", None),
            (b"user/1", Some(b"one!")),
            (b"user/2", Some(&blob)),
            (b"user/2", Some(b"small")),
            (b"user/3", Some(b"three")),
        ];
        let first = feed.first_seq();
        let mut last = first;
        for (key, value) in expected {
            let event = feed.next().unwrap().unwrap();
            let Event::Changed { seq, .. } = &event else {
                panic!("{event:?}");
            };
            assert!(*seq >= last);
            last = *seq;
            assert_eq!(change(&event), (key.to_vec(), value.map(<[u8]>::to_vec)));
        }
        assert_eq!(feed.try_next().unwrap(), None);
        // The newest version is no older than what was told.
        assert!(db.client().snapshot().seq() >= last);
        drop((tree, feed));
        db.close().unwrap();
    }
}

#[test]
fn a_slow_subscriber_is_told_what_it_missed_and_goes_on() {
    let db = options().open_in_memory().unwrap();
    let tree = db.client().tree("t").unwrap();
    let mut feed = tree.subscribe_buffered(b"", 10_000).unwrap();
    for round in 0..1_000u32 {
        tree.put(round.to_be_bytes(), [0; 100]).unwrap();
    }
    let mut told = 0;
    let mut missed = 0;
    while let Some(event) = feed.try_next().unwrap() {
        match event {
            Event::Changed { seq, .. } => {
                assert_eq!(missed, 0, "what fits comes first");
                assert_eq!(seq, feed.first_seq() + told);
                told += 1;
            }
            Event::Missed { from, to } => {
                assert_eq!(from, feed.first_seq() + told);
                missed += to - from + 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(told > 10 && told + missed == 1_000, "{told} + {missed}");
    tree.put(b"again", b"v").unwrap();
    assert_eq!(
        change(&feed.next().unwrap().unwrap()),
        (b"again".to_vec(), Some(b"v".to_vec()))
    );
}

#[test]
fn a_subscription_ends_with_its_tree_and_with_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let (first, second) = (client.tree("first").unwrap(), client.tree("second").unwrap());
    let mut ends = first.subscribe(b"").unwrap();
    let mut closes = second.subscribe(b"").unwrap();
    first.put(b"k", b"v").unwrap();
    client.drop_tree("first").unwrap();
    assert_eq!(
        change(&ends.next().unwrap().unwrap()),
        (b"k".to_vec(), Some(b"v".to_vec()))
    );
    assert!(matches!(ends.next(), Some(Ok(Event::TreeDropped { .. }))));
    assert!(ends.next().is_none());
    second.put(b"k", b"v").unwrap();
    let waiting = std::thread::spawn(move || {
        let told: Vec<_> = closes.by_ref().map(|event| change(&event.unwrap())).collect();
        (told.len(), closes.try_next())
    });
    while db.stats().committed_operations < 2 {
        std::thread::yield_now();
    }
    db.close().unwrap();
    let (told, after) = waiting.join().unwrap();
    assert_eq!(told, 1);
    assert!(matches!(after, Err(Error::Closed)));
}

/// Nothing would ever come, not even the end.
#[test]
fn a_tree_that_was_dropped_before_has_no_subscribers() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let tree = client.tree("t").unwrap();
    let before = client.snapshot().seq();
    tree.put(b"k", b"v").unwrap();
    client.drop_tree("t").unwrap();
    let after = client.snapshot().seq();
    client.tree("another").unwrap();
    let newest = client.snapshot().seq();
    let is_gone = |error: Option<Error>| matches!(error, Some(Error::TreeNotFound { .. }));
    assert!(is_gone(tree.subscribe(b"").err()));
    assert!(is_gone(tree.subscribe_buffered(b"", 1 << 20).err()));
    for seq in [after, newest] {
        assert!(is_gone(tree.subscribe_from(b"", seq, 1 << 20).err()), "{seq}");
    }
    // Its last changes, and its end, are still in the log.
    let told: Vec<Event> = tree
        .subscribe_from(b"", before, 1 << 20)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(change(&told[0]), (b"k".to_vec(), Some(b"v".to_vec())));
    assert!(matches!(told[1], Event::TreeDropped { seq } if seq == after));
    db.close().unwrap();
}

#[test]
fn a_reader_that_waits_is_woken_by_every_writer() {
    let db = options().shards(2).open_in_memory().unwrap();
    let tree = db.client().tree("t").unwrap();
    let feed = tree.subscribe(b"").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let tree = tree.clone();
            scope.spawn(move || {
                (0..500u16).for_each(|number| {
                    let key = [&[writer][..], &number.to_be_bytes()].concat();
                    tree.put(key, [writer]).unwrap();
                });
            });
        }
        let mut last = [None; 4];
        for event in feed.take(2_000) {
            let (key, value) = change(&event.unwrap());
            let writer = usize::from(key[0]);
            let number = u16::from_be_bytes([key[1], key[2]]);
            assert_eq!(value, Some(vec![key[0]]));
            assert_eq!(last[writer].map_or(0, |last: u16| last + 1), number);
            last[writer] = Some(number);
        }
        assert_eq!(last, [Some(499); 4]);
    });
}

#[test]
fn a_subscription_may_begin_in_the_past_that_is_still_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("t").unwrap();
    tree.put(b"0", b"before the checkpoint").unwrap();
    let gone = db.client().snapshot().seq();
    tree.put(b"1", b"at the checkpoint").unwrap();
    db.checkpoint().unwrap();
    let checkpoint = db.client().snapshot().seq();
    let blob = vec![3; 30_000];
    tree.put(b"2", b"two").unwrap();
    let second = db.client().snapshot().seq();
    tree.with_durability(Durability::Buffered)
        .put(b"3", &blob)
        .unwrap();
    let mut batch = db.client().batch();
    batch.put(&tree, b"4", b"four");
    batch.delete(&tree, b"2");
    batch.commit().unwrap();
    assert!(matches!(
        tree.subscribe_from(b"", gone, 1 << 20),
        Err(Error::VersionGone { oldest, .. }) if oldest == checkpoint
    ));
    assert!(matches!(
        tree.subscribe_from(b"", 1 << 40, 1 << 20),
        Err(Error::VersionGone { .. })
    ));
    let mut whole = tree.subscribe_from(b"", checkpoint, 1 << 20).unwrap();
    let mut later = tree.subscribe_from(b"", second, 1 << 20).unwrap();
    let newest = db.client().snapshot().seq();
    let mut none = tree.subscribe_from(b"", newest, 1 << 20).unwrap();
    let mut small = tree.subscribe_from(b"", checkpoint, 100).unwrap();
    assert_eq!(whole.first_seq(), checkpoint + 1);
    // Both the past and what comes now, each change once.
    tree.put(b"5", b"five").unwrap();
    let second_change = (b"2".to_vec(), Some(b"two".to_vec()));
    let last = (b"5".to_vec(), Some(b"five".to_vec()));
    let rest = [
        (b"3".to_vec(), Some(blob)),
        (b"4".to_vec(), Some(b"four".to_vec())),
        (b"2".to_vec(), None),
        last.clone(),
    ];
    assert_eq!(change(&whole.next().unwrap().unwrap()), second_change);
    for expected in &rest {
        assert_eq!(&change(&whole.next().unwrap().unwrap()), expected);
        assert_eq!(&change(&later.next().unwrap().unwrap()), expected);
    }
    assert_eq!(change(&none.next().unwrap().unwrap()), last);
    assert_eq!(change(&small.next().unwrap().unwrap()), second_change);
    let missed = small.next().unwrap().unwrap();
    assert_eq!(
        missed,
        Event::Missed {
            from: second + 1,
            to: newest
        }
    );
    assert_eq!(change(&small.next().unwrap().unwrap()), last);
    for mut feed in [whole, later, none, small] {
        assert_eq!(feed.try_next().unwrap(), None);
    }
    db.close().unwrap();
}

#[test]
fn a_large_value_from_the_log_whose_place_is_no_more_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("t").unwrap();
    let file_bytes = || directory.path().join("data").metadata().unwrap().len();
    let before = db.client().snapshot().seq();
    let length = 16 << 20;
    tree.put(b"large", vec![5; length]).unwrap();
    let mut feed = tree.subscribe_from(b"", before, 1 << 20).unwrap();
    tree.delete(b"large").unwrap();
    // A file that is shorter than the value can't hold all of it. The version that showed the value ends some time.
    for _ in 0..1_000 {
        db.compact().unwrap();
        if file_bytes() < length as u64 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let stats = db.stats();
    assert!(file_bytes() < length as u64, "{} bytes: {stats:#?}", file_bytes());
    let seq = before + 1;
    let missed = Event::Missed { from: seq, to: seq };
    assert_eq!(feed.next().unwrap().unwrap(), missed);
    assert_eq!(change(&feed.next().unwrap().unwrap()), (b"large".to_vec(), None));
    drop((feed, tree));
    db.close().unwrap();
}

#[test]
fn a_bulk_load_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("t").unwrap();
    let mut feed = tree.subscribe(b"").unwrap();
    tree.bulk_load((0..100u32).map(|number| (number.to_be_bytes(), b"v")))
        .unwrap();
    tree.put(b"later", b"v").unwrap();
    let event = feed.next().unwrap().unwrap();
    assert!(
        matches!(event, Event::Missed { from, to } if from == to),
        "{event:?}"
    );
    assert_eq!(
        change(&feed.next().unwrap().unwrap()),
        (b"later".to_vec(), Some(b"v".to_vec()))
    );
    drop(feed);
    db.close().unwrap();
}

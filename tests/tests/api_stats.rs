//! Statistics: every figure that users were promised, with the value that it must have.

mod support;

use std::time::{Duration, Instant};

use support::{copy_directory, in_memory, small, watched};
use treering::{Db, Durability, FigureKind, Options, Stats};

/// Small, but with a log so long that checkpoints come only when they are asked for.
fn unhurried() -> Options {
    small()
        .cache_bytes(16 << 20)
        .log_segment_bytes(1 << 20)
        .checkpoint_log_bytes(64 << 20)
}

/// What the flusher knows comes a moment later than what was answered.
fn wait_for(db: &Db, what: &str, holds: impl Fn(&Stats) -> bool) -> Stats {
    let began = Instant::now();
    loop {
        let stats = db.stats();
        if holds(&stats) {
            return stats;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{what}: {stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn hits_are_lookups_that_found_everything_in_memory() {
    watched(|| {
        let (db, tree) = in_memory(16 << 20);
        let hits = || db.stats().hits;
        let before = hits();
        for number in 0..100_u32 {
            tree.put(number.to_be_bytes(), [1; 50]).expect("a put");
        }
        assert_eq!(hits() - before, 100, "requests at their owner");
        let before = hits();
        for number in 0..10_u32 {
            tree.get(number.to_be_bytes()).expect("a read");
            tree.get_with(number.to_be_bytes(), |value| assert!(value.is_some()))
                .expect("a read");
            assert!(!tree.contains([9; 9]).expect("a read"), "absent is a hit, too");
        }
        assert_eq!(hits() - before, 30);
        let before = hits();
        let keys: Vec<[u8; 4]> = (0..100_u32).map(u32::to_be_bytes).collect();
        tree.get_many(&keys).expect("reads");
        assert_eq!(hits() - before, 100);
        let before = hits();
        let snapshot = db.client().snapshot();
        snapshot.get(&tree, keys[0]).expect("a read");
        assert_eq!(hits() - before, 1);
        // Leaves of a scan, by either way of going through it.
        let before = hits();
        assert_eq!(tree.range(..).expect("a range").count(), 100);
        let leaves = hits() - before;
        tree.scan(.., |_, _| std::ops::ControlFlow::Continue(()))
            .expect("a scan");
        assert_eq!(hits() - before, 2 * leaves);
        assert!((2..=100).contains(&leaves), "{leaves}");
        // Threads that are gone have counted all the same.
        let before = hits();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| drop(tree.get(keys[7]).expect("a read"))));
            }
        });
        assert_eq!(hits() - before, 1000);
        assert_eq!(db.stats().misses, 0);
    });
}

#[test]
fn misses_evictions_and_frames_beyond_the_cache() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        // Without checkpoints: what leaves memory is written for that.
        let options = small().checkpoint_log_bytes(1 << 30).max_dirty_pages(1 << 20);
        let db = options.open(directory.path()).expect("an empty directory");
        let tree = db
            .client()
            .tree("t")
            .expect("a tree")
            .with_durability(Durability::Buffered);
        for number in 0..4_000_u32 {
            tree.put(number.to_be_bytes(), [1; 500]).expect("a put");
        }
        for number in (0..4_000_u32).rev() {
            tree.get(number.to_be_bytes())
                .expect("a read")
                .expect("the value");
        }
        let stats = db.stats();
        assert_eq!(stats.frames, 256);
        assert!(stats.misses > 500 && stats.evictions > 500, "{stats:?}");
        assert!(stats.pages_read >= stats.misses / 2, "{stats:?}");
        assert!(
            stats.flushes + stats.background_flushes <= stats.pages_written,
            "{stats:?}"
        );
        assert!(stats.background_flushes > 0, "{stats:?}");
        let states = stats.frames_free + stats.frames_in_limbo + stats.frames_loading + stats.frames_resident;
        assert!(stats.frames_resident > 100 && states <= 256, "{stats:?}");
        assert!(
            stats.dirty_pages <= 256 && stats.frames_available <= 256,
            "{stats:?}"
        );
        // Either a lookup found all pages, or somebody had to read one for it.
        let before = db.stats();
        for number in 0..4_000_u32 {
            tree.get(number.to_be_bytes())
                .expect("a read")
                .expect("the value");
        }
        let after = db.stats();
        let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
        assert!(hits < 4_000 && hits + misses >= 4_000, "{hits} and {misses}");
    });
}

#[test]
fn the_log_its_groups_and_what_they_hold() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = unhurried().open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let before = db.stats();
        for number in 0..20_u32 {
            tree.put(number.to_be_bytes(), b"v").expect("a put");
        }
        let after = db.stats();
        assert_eq!(after.committed_operations - before.committed_operations, 20);
        assert_eq!(
            after.commit_groups - before.commit_groups,
            20,
            "each was waited for"
        );
        assert!(after.log_groups - before.log_groups >= 20, "{after:?}");
        assert!(after.syncs - before.syncs >= 20, "{after:?}");
        assert!(after.log_bytes - before.log_bytes >= 20 * 4096, "{after:?}");
        assert!(after.log_length_bytes > 0 && after.published_seq >= before.published_seq + 20);
        let sizes = &after.commits_per_group;
        assert_eq!(sizes.count(), after.commit_groups);
        assert_eq!(sizes.quantile(0.5), after.commits_per_group_p50);
        assert_eq!(sizes.max(), after.commits_per_group_max);
        let operations: u64 = sizes.buckets().map(|(size, count)| size * count).sum();
        assert_eq!(operations, after.committed_operations, "small sizes are exact");
        assert_eq!(after.checkpoints, before.checkpoints);
        db.checkpoint().expect("a checkpoint");
        let checkpointed = db.stats();
        assert_eq!(checkpointed.checkpoints, after.checkpoints + 1);
        assert!(checkpointed.flushes > after.flushes);
        assert!(checkpointed.checkpoint_seq >= after.published_seq);
        assert!(checkpointed.checkpoint_age_nanos < after.checkpoint_age_nanos.max(60_000_000_000));
        // What a crash would have to replay.
        for number in 0..30_u32 {
            tree.put(number.to_be_bytes(), b"w").expect("a put");
        }
        let copy = tempfile::tempdir().expect("a directory");
        copy_directory(directory.path(), copy.path());
        let recovered = unhurried().open(copy.path()).expect("a recovery").stats();
        assert_eq!(recovered.records_replayed, 30);
        assert!(recovered.recovery_nanos > 0);
        assert_eq!(recovered.checkpoints, 0);
        assert_eq!(
            recovered.checkpoint_seq, checkpointed.checkpoint_seq,
            "it began from that one"
        );
    });
}

#[test]
fn what_only_snapshots_keep_calls_for_no_checkpoint() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let changed_max = 500;
        let options = unhurried().max_dirty_pages(changed_max as usize);
        let db = options.open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let overwrite = |records: std::ops::Range<u32>, value: u8| {
            for start in records.clone().step_by(100) {
                let some = start..(start + 100).min(records.end);
                tree.batch_set(some.map(|number| (number.to_be_bytes(), [value; 500])))
                    .expect("a batch");
            }
        };
        overwrite(0..2_000, 0);
        let before = db.stats();
        let snapshots: Vec<_> = (1..=4)
            .map(|round| {
                let snapshot = db.client().snapshot();
                overwrite(0..2_000, round);
                snapshot
            })
            .collect();
        let kept = wait_for(&db, "copies for each snapshot", |stats| {
            stats.dirty_pages > 2 * changed_max
        });
        assert_eq!(kept.checkpoints, before.checkpoints, "{kept:?}");
        drop(snapshots);
        // What the newest version reaches still does.
        overwrite(2_000..4_000, 5);
        wait_for(&db, "a checkpoint", |stats| {
            stats.checkpoints > before.checkpoints
        });
    });
}

#[test]
fn what_old_versions_keep() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = unhurried()
            .durability(Durability::Buffered)
            .open(directory.path())
            .expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let rewrite = |fill: u8| {
            for number in 0..200_u32 {
                tree.put(number.to_be_bytes(), [fill; 800]).expect("a put");
            }
        };
        rewrite(1);
        let oldest = db.client().snapshot();
        rewrite(2);
        let newer = db.client().snapshot();
        rewrite(3);
        // What was durable before holds on to its pages, too.
        db.checkpoint().expect("a checkpoint");
        let stats = wait_for(&db, "two snapshots", |stats| {
            stats.oldest_live_seq == oldest.seq() && stats.retained_pages >= 80
        });
        assert!(stats.live_versions >= 3, "{stats:?}");
        assert!(
            stats.oldest_retained_pages >= 40 && stats.oldest_retained_pages < stats.retained_pages,
            "{stats:?}"
        );
        assert_eq!(
            stats.free_pages + stats.retained_pages + stats.live_pages,
            stats.file_pages
        );
        drop(oldest);
        wait_for(&db, "one snapshot", |stats| {
            stats.oldest_live_seq == newer.seq() && stats.retained_pages < 80
        });
        drop(newer);
        wait_for(&db, "no snapshots", |stats| stats.retained_pages < 20);
    });
}

#[test]
fn every_number_is_among_the_figures_by_its_name() {
    let stats = Options::new()
        .cache_bytes(4 << 20)
        .open_in_memory()
        .expect("memory for an empty database")
        .stats();
    let figures: Vec<_> = stats.figures().collect();
    let debug = format!("{stats:?}");
    for figure in &figures {
        let field = format!("{}: {}", figure.name, figure.value);
        assert!(debug.contains(&field), "{field} is not in {debug}");
        assert!(figure.description.len() > 10 && !figure.description.starts_with(' '));
    }
    // All fields but the histogram.
    assert_eq!(debug.matches(": ").count(), figures.len() + 5, "{debug}");
    let kind = |name: &str| {
        figures
            .iter()
            .find(|figure| figure.name == name)
            .map(|figure| figure.kind)
    };
    assert_eq!(kind("hits"), Some(FigureKind::Counter));
    assert_eq!(kind("frames"), Some(FigureKind::Gauge));
    assert_eq!((stats.conflicts, stats.retries), (0, 0));
    assert_eq!(
        stats.shard_queue_depth + stats.commit_queue_depth + stats.pager_queue_depth,
        0,
        "nobody has asked for anything"
    );
    assert!(stats.flusher_queue_depth < 100);
}

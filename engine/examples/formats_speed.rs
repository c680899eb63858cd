//! What the formats and the space bookkeeping cost. `cargo run --release -p treering-engine --example formats_speed`

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use treering_engine::catalog::{Directory, TreeState};
use treering_engine::image::{ImageDecoder, ImageEncoder};
use treering_engine::log::{
    GroupBuilder, GroupStart, LogPosition, ReadLog, Record, RecordWriter, ScanStart, SegmentFile,
    SegmentLayout, scan,
};
use treering_engine::space::{SpaceMap, WaitingLists};
use treering_engine::tree::Root;
use treering_engine::{Extent, PageId, PageRef, Retired, Seq, ShardId, Stamp, TreeId};

/// Runs `work`, which does `count` operations, and prints what one of them took.
fn measure(name: &str, count: u64, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let nanos = start.elapsed().as_nanos() as f64;
    println!(
        "{name:<56} {:>9.1} ns each {:>10.1} M/s",
        nanos / count as f64,
        count as f64 * 1e3 / nanos
    );
}

fn waiting_lists() {
    let (groups, entries) = (10_000u64, 400u32);
    for (name, snapshot) in [
        ("retire and free, no snapshot", false),
        ("the same beside a snapshot", true),
    ] {
        let mut lists = WaitingLists::new();
        let mut freed = Vec::new();
        if snapshot {
            assert!(lists.publish(Seq(1)));
        }
        assert!(lists.publish(Seq(2)));
        let mut batch = Vec::new();
        measure(name, groups * u64::from(entries), || {
            for seq in 3..groups + 3 {
                assert!(lists.publish(Seq(seq)));
                batch.clear();
                batch.extend((0..entries).map(|index| Retired {
                    extent: Extent::single(PageId(2 + index)),
                    born: Seq(seq - 1 - u64::from(index % 2)),
                }));
                lists.retire_all(&batch, Seq(seq), &mut freed);
                lists.version_died(Seq(seq - 1), &mut freed);
                freed.clear();
            }
        });
    }
}

fn space_map() {
    let file_pages = 1 << 28;
    let mut map = SpaceMap::new(file_pages);
    let mut order: Vec<Extent> = Vec::new();
    measure("allocate and mark, chunks of 512, empty file", 4_000_000, || {
        while order.len() < 4_000_000 {
            for extent in map.allocate_chunk(512) {
                for id in extent.ids() {
                    let single = Extent::single(id);
                    map.mark_reachable(single).expect("allocated");
                    order.push(single);
                }
            }
        }
    });
    // A full file with holes all over it, released in an order that has nothing to do with addresses.
    let mut state = 1u64;
    for index in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(index, (state >> 33) as usize % (index + 1));
    }
    let rest = map
        .allocate_contiguous(map.available_pages() as u32)
        .expect("one run");
    measure("unmark and release, random", 2_000_000, || {
        for extent in &order[..2_000_000] {
            map.unmark_reachable(*extent).expect("reachable");
            map.release(*extent).expect("allocated");
        }
    });
    measure(
        "allocate in a file of 1 TiB that is full but for holes",
        1_000_000,
        || {
            let mut taken = 0;
            while taken < 1_000_000 {
                taken += map
                    .allocate_chunk(512)
                    .iter()
                    .map(|extent| extent.pages)
                    .sum::<u32>();
            }
        },
    );
    measure("look for 64 contiguous pages there, in vain", 20, || {
        for _ in 0..20 {
            black_box(map.allocate_contiguous(64));
        }
    });
    map.release(rest).expect("allocated");
    map.freeze();
    let mut encoder = ImageEncoder::new(Directory::new(), Vec::new(), &map);
    let bytes = encoder.encoded_bytes(&map);
    let mut image = vec![0; bytes as usize];
    let blocks = u64::from(file_pages) / 32_768;
    measure("encode the map of 1 TiB, per 128 MiB", blocks, || {
        encoder.fill(&map, &mut image);
    });
    let mut decoder = ImageDecoder::new(file_pages);
    measure("decode it, per 128 MiB", blocks, || {
        for piece in image.chunks(1 << 20) {
            decoder.push(piece).expect("an image");
        }
    });
}

/// One log in memory.
struct Memory(Vec<u8>);

impl ReadLog for Memory {
    type Error = Infallible;

    fn segments(&mut self) -> Result<Vec<SegmentFile>, Infallible> {
        Ok(vec![SegmentFile {
            number: 0,
            bytes: self.0.len() as u64,
        }])
    }

    fn read(&mut self, _: u64, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        buffer.copy_from_slice(&self.0[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

fn log() {
    let puts = 1_000_000u64;
    let (mut key, value) = ([7u8; 24], [9u8; 150]);
    let mut records = Vec::new();
    measure("write a put record, 24 + 150 bytes, reused buffer", puts, || {
        for index in 0..puts {
            if index % 300 == 0 {
                records.clear();
            }
            key[..8].copy_from_slice(&index.to_be_bytes());
            RecordWriter(&mut records).put(TreeId(1), &key, &value);
        }
        black_box(&records);
    });
    let layout = SegmentLayout::new(256 << 20).expect("a legal size");
    let mut log = vec![0; 256 << 20];
    let start = LogPosition {
        lsn: layout.first_lsn(),
        generation: 1,
        previous_crc: 0,
    };
    let mut position = start;
    let mut builder = GroupBuilder::new(1);
    let groups = 3_500u64;
    measure(
        "gather, checksum and place a put, groups of 300",
        groups * 300,
        || {
            for seq in 1..=groups {
                records.clear();
                for index in 0..300u64 {
                    key[..8].copy_from_slice(&(seq * 300 + index).to_be_bytes());
                    RecordWriter(&mut records).put(TreeId(1), &key, &value);
                }
                builder.append_batch(Seq(seq), ShardId(0), Stamp(seq), &records);
                let lsn = layout.place(position.lsn, builder.encoded_bytes()).expect("fits");
                let target = &mut log[lsn.0 as usize..];
                let start = GroupStart {
                    lsn,
                    position,
                    durable_to: position.lsn,
                };
                position = builder.finish_into(&start, target).expect("room");
            }
        },
    );
    let from = ScanStart {
        layout,
        log_id: 1,
        start,
        known: start,
    };
    let mut puts = 0u64;
    let began = Instant::now();
    let end = scan(&mut Memory(log), &from, |group| {
        for record in group.records() {
            puts += u64::from(matches!(record?, Record::Put { .. }));
        }
        Ok(())
    })
    .expect("whole");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "scan {} MB, {puts} puts, then {} MB preallocated: {:.0} MB/s",
        end.bytes >> 20,
        (layout.segment_bytes() - end.bytes) >> 20,
        layout.segment_bytes() as f64 / seconds / 1e6
    );
}

fn directory() {
    for trees in [1u32, 64, 10_000] {
        let mut directory = Directory::new();
        measure(&format!("create one of {trees} trees"), trees.into(), || {
            for id in 0..trees {
                let state = TreeState::new(TreeId(id), &format!("tree {id}"), Root::default(), ShardId(0));
                directory = directory.with_tree(state).expect("new");
            }
        });
        let rounds = 100_000u32;
        measure(
            &format!("new root of one of {trees} trees"),
            rounds.into(),
            || {
                for round in 0..rounds {
                    let reference = PageRef {
                        id: PageId(round + 2),
                        birth: round,
                    };
                    let root = Root {
                        reference,
                        height: 1,
                        entries: 1,
                    };
                    directory = directory
                        .with_roots(&[(TreeId(round % trees), Arc::from([]), root)])
                        .expect("exists");
                }
            },
        );
        measure(&format!("find one of {trees} trees by id"), rounds.into(), || {
            for round in 0..rounds {
                black_box(directory.get(TreeId(round % trees)));
            }
        });
    }
}

fn main() {
    waiting_lists();
    space_map();
    log();
    directory();
}

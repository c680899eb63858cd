use super::*;
use crate::workload::{KEY_BYTES, VALUE_BYTES, Values, index_of, indices_by_key, key_of};

const RECORDS: u64 = 3_000;

fn profile(promise: Promise) -> Profile {
    Profile {
        promise,
        cache_bytes: 64 << 20,
        direct: false,
        keep_log: false,
        records: RECORDS,
    }
}

/// Every engine in turn, with its name for the failure's message.
fn each(promise: Promise, test: impl Fn(Contender, &Path, Box<dyn Store>)) {
    for engine in built() {
        let title = engine.title();
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(engine, directory.path(), &profile(promise)).expect(title);
        test(engine, directory.path(), store);
    }
}

fn count(session: &mut dyn Session) -> u64 {
    let seen = session.scan(&[0; KEY_BYTES], u64::MAX);
    seen.expect("scans").entries
}

#[test]
fn sorted_loads_are_there_after_reopening() {
    let values = Values::default();
    each(Promise::Buffered, |engine, directory, store| {
        let title = engine.title();
        let indices = indices_by_key(RECORDS);
        let mut records = indices.iter().map(|&index| values.record(index, 0));
        store.load_sorted(&mut records).expect(title);
        store.close().expect(title);
        let store = open(engine, directory, &profile(Promise::Synced)).expect(title);
        let mut session = store.session().expect(title);
        assert_eq!(count(&mut *session), RECORDS, "{title}");
    });
}

#[test]
fn every_session_operation_does_what_it_says() {
    let values = Values::default();
    for promise in [Promise::Buffered, Promise::Synced] {
        each(promise, |engine, _, store| {
            let title = engine.title();
            let mut records = values.records(0..RECORDS);
            store.load_random(&mut records).expect(title);
            store.settle().expect(title);
            let mut session = store.session().expect(title);
            assert_eq!(count(&mut *session), RECORDS, "{title}");

            let mut value = [0; VALUE_BYTES];
            assert!(session.get(&key_of(17), &mut value).expect(title), "{title}");
            assert_eq!(value, values.value_of(17, 0), "{title}");
            assert!(!session.get(&key_of(RECORDS), &mut value).expect(title));

            session.put(&values.record(RECORDS, 0)).expect(title);
            session.put(&values.record(17, 1)).expect(title);
            session.read_modify_write(&values.record(18, 1)).expect(title);
            let batch = [values.record(19, 1), values.record(RECORDS + 1, 1)];
            session.put_batch(&batch).expect(title);
            let keys = [17, 18, 19, RECORDS, RECORDS + 1, RECORDS + 2].map(key_of);
            let mut found = [[0; VALUE_BYTES]; 6];
            assert_eq!(session.get_many(&keys, &mut found).expect(title), 5);
            assert_eq!(found[0], values.value_of(17, 1), "{title}");
            assert_eq!(found[1], values.value_of(18, 1), "{title}");
            assert_eq!(index_of(&found[4]), RECORDS + 1, "{title}");

            let ten = session.scan(&key_of(17), 10).expect(title);
            assert_eq!(ten.entries, 10, "{title}");
            session.delete_all(&mut (0..RECORDS).map(key_of)).expect(title);
            assert_eq!(count(&mut *session), 2, "{title}");
            session.put_all(&mut values.records(0..RECORDS)).expect(title);
            assert_eq!(count(&mut *session), RECORDS + 2, "{title}");
            drop(session);
            store.settle().expect(title);
            store.close().expect(title);
        });
    }
}

#[test]
fn scans_see_the_same_everywhere() {
    let values = Values::default();
    let mut seen = Vec::new();
    for engine in built() {
        let title = engine.title();
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(engine, directory.path(), &profile(Promise::Buffered)).expect(title);
        store.load_random(&mut values.records(0..RECORDS)).expect(title);
        let mut session = store.session().expect(title);
        seen.push(session.scan(&key_of(5), 100).expect(title));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

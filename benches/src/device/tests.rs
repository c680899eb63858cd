use super::*;

#[test]
fn both_ways_of_reading_come_to_an_end_at_every_depth() {
    // Beside the test's binary: the temporary directory may lack O_DIRECT.
    let binary = std::env::current_exe().expect("known");
    let beside = binary.parent().expect("a directory");
    let directory = tempfile::tempdir_in(beside).expect("a directory");
    let Ok(file) = RawFile::create(&directory.path().join("raw"), 1 << 20) else {
        eprintln!("skipped: no O_DIRECT here");
        return;
    };
    for in_flight in [1, 2, 16] {
        let rate = file.random_reads(in_flight, Duration::from_millis(20), 1);
        assert!(rate.expect("reads") > 0.0);
    }
    assert!(file.durable_writes(Duration::from_millis(20)).expect("writes") > 0.0);
}

use super::*;

#[test]
fn both_ways_come_to_an_end_at_every_depth_and_mix() {
    // Beside the test's binary: the temporary directory may lack O_DIRECT.
    let binary = std::env::current_exe().expect("known");
    let beside = binary.parent().expect("a directory");
    let directory = tempfile::tempdir_in(beside).expect("a directory");
    let Ok(file) = RawFile::create(&directory.path().join("raw"), 1 << 20) else {
        eprintln!("skipped: no O_DIRECT here");
        return;
    };
    for in_flight in [1, 2, 16] {
        for mix in [Mix::Reads, Mix::HalfUpdates] {
            let rate = file.random(mix, in_flight, Duration::from_millis(20), 1);
            assert!(rate.expect("transfers") > 0.0);
        }
    }
    assert!(file.durable_writes(Duration::from_millis(20)).expect("writes") > 0.0);
}

//! The program itself, on real files: its report, its exit codes, and what it says about directories that a
//! killed run left behind.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const RECORDS: u64 = 3000;
/// Layout of `verify.journal`: header, then for each record its state and its promise.
const JOURNAL_HEADER_BYTES: u64 = 64 << 10;
const JOURNAL_RECORD_BYTES: u64 = 16;
const ISSUED_SHIFT: u32 = 20;

fn loadgen(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args([
        "run",
        "--records",
        &RECORDS.to_string(),
        "--threads",
        "4",
        "--cache-bytes",
        "16m",
    ]);
    command
        .args(arguments.split_whitespace())
        .arg("--dir")
        .arg(directory)
        .stdin(Stdio::null());
    command
}

fn run(directory: &Path, arguments: &str) -> Output {
    loadgen(directory, arguments)
        .output()
        .expect("the program can be started")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// One word of the journal; 0 as long as it isn't there.
fn journal_word(journal: &Path, record: u64, word: u64) -> u64 {
    let mut bytes = [0; 8];
    let offset = JOURNAL_HEADER_BYTES + record * JOURNAL_RECORD_BYTES + word * 8;
    match File::open(journal).and_then(|file| file.read_exact_at(&mut bytes, offset)) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// Waits until the program has written every record and then some of them again.
fn wait_for_updates(child: &mut Child, directory: &Path, beyond: u64) {
    let journal = directory.join("verify.journal");
    let versions = || {
        (0..RECORDS)
            .map(|record| journal_word(&journal, record, 0) >> ISSUED_SHIFT)
            .sum::<u64>()
    };
    while versions() < beyond {
        assert_eq!(
            child.try_wait().expect("it can be asked"),
            None,
            "the program ended by itself"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

fn start(directory: &Path, arguments: &str) -> Child {
    loadgen(directory, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started")
}

fn kill(mut child: Child) -> ExitStatus {
    child.kill().expect("it can be killed");
    child.wait().expect("it has an end")
}

#[test]
fn a_run_reports_in_all_forms() {
    let directory = directory();
    let file = |name: &str| directory.path().join(name);
    let arguments = format!(
        "--workload a --seconds 1 --verify --seed 3 --json {} --hdr {} --plot {}",
        file("report.json").display(),
        file("latency.hgrm").display(),
        file("plot.svg").display()
    );
    let output = run(&file("data"), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("violations    0"), "{}", text(&output));
    let json = fs::read_to_string(file("report.json")).expect("the report is there");
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(
        (&json["workload"], &json["errors"], &json["seed"]),
        (&"a".into(), &0.into(), &3.into())
    );
    assert!(json["ops"].as_u64().is_some_and(|ops| ops > 0), "{json}");
    assert!(
        json["bytes_on_disk"]
            .as_u64()
            .is_some_and(|bytes| bytes > RECORDS * 150),
        "{json}"
    );
    assert!(
        fs::read_to_string(file("latency.hgrm"))
            .expect("it is there")
            .contains("1/(1-Percentile)")
    );
    assert!(
        fs::read_to_string(file("plot.svg"))
            .expect("it is there")
            .contains("</svg>")
    );
}

#[test]
fn every_workload_verifies_on_real_files() {
    let directory = directory();
    for workload in ["load", "a", "b", "c", "d", "e", "f", "put", "get", "scan"] {
        for options in ["--durability sync", "--durability buffered --depth 8"] {
            let output = run(
                directory.path(),
                &format!("--workload {workload} {options} --verify --seconds 0.3"),
            );
            assert_eq!(
                output.status.code(),
                Some(0),
                "{workload} {options}: {}",
                text(&output)
            );
        }
    }
}

#[test]
fn what_cannot_be_run_has_an_exit_code_of_its_own() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").expect("it can be written");
    for output in [run(directory.path(), "--threads 0"), run(&file, "--workload c")] {
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
}

#[test]
fn killed_runs_lose_nothing_that_was_acknowledged() {
    for workload in ["a", "f"] {
        let directory = directory();
        for round in 1..=3 {
            let arguments = format!("--workload {workload} --seconds 600 --verify --seed {round}");
            let mut child = start(directory.path(), &arguments);
            wait_for_updates(&mut child, directory.path(), RECORDS + round * 500);
            assert!(!kill(child).success());
        }
        let output = run(
            directory.path(),
            &format!("--workload {workload} --seconds 1 --verify"),
        );
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("against the journal"), "{}", text(&output));
    }
}

#[test]
fn killed_buffered_runs_go_back_to_a_flush_point_at_most() {
    let directory = directory();
    let mut child = start(
        directory.path(),
        "--workload a --durability buffered --seconds 600 --verify",
    );
    // A flush point after the load: some promise is beyond the first version.
    let journal = directory.path().join("verify.journal");
    while !(0..RECORDS).any(|record| journal_word(&journal, record, 1) > 1) {
        assert_eq!(
            child.try_wait().expect("it can be asked"),
            None,
            "the program ended by itself"
        );
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!kill(child).success());
    let output = run(
        directory.path(),
        "--workload a --durability buffered --seconds 1 --verify",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_promise_that_is_not_kept_is_listed() {
    let directory = directory();
    assert!(
        run(directory.path(), "--workload a --seconds 0.2 --verify")
            .status
            .success()
    );
    // As if the database had lost the last write of record 7.
    let journal = directory.path().join("verify.journal");
    let version = journal_word(&journal, 7, 1) + 1;
    let file = OpenOptions::new()
        .write(true)
        .open(&journal)
        .expect("the journal is there");
    let offset = JOURNAL_HEADER_BYTES + 7 * JOURNAL_RECORD_BYTES;
    file.write_all_at(&(version << ISSUED_SHIFT).to_ne_bytes(), offset)
        .expect("it can be written");
    file.write_all_at(&version.to_ne_bytes(), offset + 8)
        .expect("it can be written");
    for _ in 0..2 {
        let output = run(directory.path(), "--workload a --seconds 0.2 --verify");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains(&format!("record 7 has version {}", version - 1)),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn an_interrupt_ends_the_run_with_its_report() {
    let directory = directory();
    let mut child = start(directory.path(), "--workload a --seconds 600 --verify");
    wait_for_updates(&mut child, directory.path(), RECORDS + 100);
    let process = Pid::from_child(&child);
    kill_process(process, Signal::INT).expect("it can be signalled");
    let output = child.wait_with_output().expect("it has an end");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("the run was interrupted") && text(&output).contains("violations    0"));
}

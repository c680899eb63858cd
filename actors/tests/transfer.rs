//! The example `transfer`, for a second: money moves between shards, processes are killed, and the sum stays.

#[expect(dead_code, reason = "the example's own main")]
#[path = "../examples/transfer.rs"]
mod transfer;

use std::process::Command;

#[test]
fn the_sum_of_all_accounts_never_moves() {
    if let Some(path) = std::env::var_os(transfer::WORKER) {
        let seconds = std::env::var("TRANSFER_SECONDS").unwrap().parse().unwrap();
        transfer::work(path.as_ref(), seconds).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let itself = std::env::current_exe().unwrap();
    let worker = || {
        let mut command = Command::new(&itself);
        command.args(["--exact", "the_sum_of_all_accounts_never_moves", "--nocapture"]);
        command
    };
    transfer::run(&directory.path().join("db"), 2.0, worker).unwrap();
}

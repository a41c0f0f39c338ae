//! What a member says that it has written, beside what the kernel counts.

use std::fs;

use crate::client;
use crate::process::{Cluster, Host};

const PUTS: usize = 40;
/// The kernel counts all of a folio of which a page is written, 64 KiB or so: beside that only what is large can be compared.
const VALUE_BYTES: usize = 256 * 1024;

/// What the member and what the kernel say, in bytes.
fn written(host: &Host) -> (u64, u64) {
    let status: serde_json::Value = serde_json::from_str(&host.must(&["status", "-w", "json"])).unwrap();
    let kinds = ["log", "store", "transfer", "other"];
    let own = kinds.iter().map(|kind| status["disk_written"][kind].as_u64().unwrap()).sum();
    let io = fs::read_to_string(format!("/proc/{}/io", host.pid())).unwrap();
    let kernel = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    (own, kernel.parse().unwrap())
}

#[test]
fn what_a_member_counts_is_about_what_the_kernel_counts() {
    // A file system in memory writes nothing.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut cluster = Cluster::prepare(1);
    let host = &mut cluster.hosts[0];
    host.data_dir = disk.path().join("data");
    host.start(&["--initial-cluster", &host.named()]);
    cluster.wait_ready();
    let host = &cluster.hosts[0];
    let before = written(host);
    let value = "v".repeat(VALUE_BYTES);
    for n in 0..PUTS {
        smol::block_on(client::put(host, &format!("key{n}"), &value)).unwrap();
    }
    let after = written(host);
    let (own, kernel) = (after.0 - before.0, after.1 - before.1);
    assert!(own >= (PUTS * VALUE_BYTES) as u64, "{own}");
    assert!((kernel / 2..kernel * 2).contains(&own), "{own} beside {kernel}");
}

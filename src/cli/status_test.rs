//! What is printed of how a node stands.

use super::*;
use crate::api::verdict::judge;
use crate::api::verdict::tests::{of, pending, three};

#[test]
fn what_was_written_is_said_for_each_revision_and_for_an_idle_hour() {
    let written = pb::DiskWritten { log: 4_150_000, store: 1_000_000, other: 4096, ..Default::default() };
    let all = "written to disk: 5.1 MB (log 4.1 MB, store 1.0 MB, transfer 0.0 MB, other 0.0 MB)";
    assert_eq!(written_line(&written), all);
    let more = pb::DiskWritten { revisions: 1000, idle_hour_known: true, idle_hour: 120_000, ..written };
    assert_eq!(
        written_line(&more),
        format!("{all}; 5150 bytes for each revision; 0.1 MB in the last idle hour")
    );
}

#[test]
fn backups_are_said_with_what_has_become_of_the_last_one() {
    let none = pb::Backups::default();
    assert_eq!(backups_line(&none), "backups: none in this run");
    let some = pb::Backups { written: 4, revision: 99, ago_seconds: 120, ..none };
    assert_eq!(backups_line(&some), "backups: 4 in this run, the last of revision 99, 2 min ago");
    let failing = pb::Backups { failed: 2, trouble: "no room".into(), ..some };
    let line = backups_line(&failing);
    assert!(line.ends_with(" ago; 2 failed; THE LAST TRY HAS FAILED: no room"), "{line}");
}

#[test]
fn the_verdict_comes_first_and_everybody_is_below_it() {
    let mut cluster = three();
    cluster.members[2].reached = false;
    cluster.pending.push(pending());
    (cluster.keys, cluster.bytes_in_use) = (1234, 5_170_000);
    let status = of(cluster);
    let verdict = judge(&status);
    let printed = |format| {
        let mut out = Vec::new();
        write(&mut out, format, &status, &verdict).unwrap();
        String::from_utf8(out).unwrap()
    };
    let simple = printed(Format::Simple);
    let lines: Vec<&str> = simple.lines().collect();
    assert!(lines[0].starts_with("degraded: box3 not reached"), "{simple}");
    assert!(lines[1].starts_with("  next: "), "{simple}");
    for expected in [
        "  box1  voter    this box  0101 0101 0101 0101  https://10.0.0.1:2380",
        "  box2  leader   reached   0202 0202 0202 0202  https://10.0.0.2:2380",
        "  box3  voter    AWAY      0303 0303 0303 0303  https://10.0.0.3:2380",
        "keys: 1234; with their history 5.1 MB",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{simple}");
    }
    assert!(simple.contains(&grouped(&"ab".repeat(32))), "the whole fingerprint, to be compared");
    let json: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();
    assert_eq!(json["healthy"], false);
    assert_eq!(json["cluster"]["members"][1]["leads"], true);
    assert_eq!(json["cluster"]["pending"][0]["name"], "box9");
    assert_eq!(json["cluster"]["keys"], 1234);
}

//! Boxes as the kernel shows them, and which of them are others.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A box: what its kernel shows below a directory of its own, and a disk with a data directory.
struct Box {
    root: tempfile::TempDir,
    data_dir: PathBuf,
}

impl Box {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let data_dir = root.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        Self { root, data_dir }
    }

    fn shows(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn hides(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    /// A network card on a bus.
    fn card(&self, name: &str, bus: &str, address: &str) {
        self.shows(&format!("sys/class/net/{name}/address"), &format!("{address}\n"));
        self.shows(&format!("sys/class/net/{name}/addr_assign_type"), "0\n");
        self.shows(&format!("sys/devices/{bus}/{name}/uevent"), "");
        let device = self.root.path().join(format!("sys/class/net/{name}/device"));
        drop(fs::remove_file(&device));
        symlink(self.root.path().join(format!("sys/devices/{bus}/{name}")), device).unwrap();
    }

    /// The disk that the data directory is on has a partition on it.
    fn disk(&self, serial: &str) {
        let device = fs::metadata(&self.data_dir).unwrap().dev();
        self.shows("sys/devices/mmc/mmcblk0/device/cid", serial);
        self.shows("sys/devices/mmc/mmcblk0/p1/start", "8192\n");
        let link = format!("sys/dev/block/{}:{}", major(device), minor(device));
        let link = self.root.path().join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        drop(fs::remove_file(&link));
        symlink(self.root.path().join("sys/devices/mmc/mmcblk0/p1"), link).unwrap();
    }

    fn start(&self) -> Option<String> {
        look_in(self.root.path(), &self.data_dir)
    }
}

const SERIAL: &str = "proc/device-tree/serial-number";
const MODEL: &str = "sys/class/dmi/id/product_name";

/// One with a number, as small boards have it.
fn board() -> Box {
    let one = Box::new();
    one.shows(SERIAL, "10000000abcdef01\0");
    one.shows("proc/device-tree/model", "Board 4\0");
    one.card("eth0", "platform/soc", "b8:27:eb:00:00:01");
    one.disk("1b534d4542315154");
    one
}

/// One whose numbers only root may read.
fn nameless() -> Box {
    let one = board();
    one.hides(SERIAL);
    one.hides("proc/device-tree/model");
    one.shows(MODEL, "Maker 7\n");
    one
}

#[test]
fn a_copied_disk_is_noticed_once_and_the_first_start_says_nothing() {
    let one = board();
    assert_eq!([one.start(), one.start()], [None, None]);
    one.shows(SERIAL, "10000000abcdef02\0");
    one.card("eth0", "platform/soc", "b8:27:eb:00:00:02");
    assert_eq!(one.start().as_deref(), Some("board number, network card"));
    assert_eq!(one.start(), None, "it is the same as before");
    let file = one.data_dir.join(HARDWARE_NAMES[0]);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&one.data_dir).unwrap().count(), 1);
}

#[test]
fn the_number_of_the_board_decides() {
    let one = board();
    one.start();
    one.card("eth0", "platform/soc", "b8:27:eb:00:00:02");
    one.disk("another");
    one.shows("proc/device-tree/model", "Board 4, as a newer kernel says it");
    assert_eq!(one.start(), None, "it was repaired");
    one.shows("sys/class/dmi/id/product_uuid", "4c4c4544-0032-4c10-8053-b4c04f4a3432");
    assert_eq!(one.start(), None, "more is told than before");
    one.shows(SERIAL, "10000000abcdef02\0");
    assert_eq!(one.start(), None, "one of two numbers is the same");
}

/// What becomes of a box.
type Change = fn(&Box);

#[test]
fn without_a_number_it_takes_another_kind_of_machine_or_another_disk_and_other_cards() {
    let same: [(&str, Change); 4] = [
        ("a disk", |one| one.disk("another")),
        ("a card", |one| one.card("eth0", "platform/soc", "b8:27:eb:00:00:02")),
        ("a disk, and one card more", |one| {
            one.disk("another");
            one.card("eth1", "pci0", "b8:27:eb:00:00:03");
        }),
        ("nothing is told any more", |one| {
            one.hides(MODEL);
            fs::remove_dir_all(one.root.path().join("sys/class/net")).unwrap();
        }),
    ];
    for (what, change) in same {
        let one = nameless();
        one.start();
        change(&one);
        assert_eq!(one.start(), None, "{what}");
    }
    let one = nameless();
    one.start();
    one.disk("another");
    one.card("eth0", "platform/soc", "b8:27:eb:00:00:02");
    assert_eq!(one.start().as_deref(), Some("disk, network card"));
    one.shows(MODEL, "Maker 8\n");
    assert_eq!(one.start().as_deref(), Some("machine"));
}

#[test]
fn what_tells_nothing_is_not_compared() {
    let one = Box::new();
    for serial in
        ["To Be Filled By O.E.M.\n", "0000000000\n", "None\n", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", ""]
    {
        one.shows("sys/class/dmi/id/board_serial", serial);
        one.card("eth0", "pci0", "00:00:00:00:00:00");
        // Plugged in, and made by software.
        one.card("eth1", "pci0/usb1", &format!("b8:27:eb:00:00:{:02x}", serial.len()));
        one.shows("sys/class/net/veth0/address", &format!("b8:27:eb:00:01:{:02x}", serial.len()));
        one.shows("sys/class/net/veth0/addr_assign_type", "0\n");
        assert_eq!(one.start(), None, "{serial}");
    }
    assert!(!one.data_dir.join(HARDWARE_NAMES[0]).exists(), "there is nothing to keep");
}

#[test]
fn in_a_container_nothing_is_looked_at() {
    let one = board();
    one.start();
    one.shows(SERIAL, "10000000abcdef02\0");
    one.shows("run/.containerenv", "");
    assert_eq!(one.start(), None);
    one.hides("run/.containerenv");
    assert!(one.start().is_some());
}

#[test]
fn a_file_that_cannot_be_read_is_made_anew() {
    let one = board();
    for text in ["", "covey hardware 2\nboard number=x\n", "\u{0}\u{0}", "covey hardware 1\nnonsense\n"] {
        fs::write(one.data_dir.join(HARDWARE_NAMES[0]), text).unwrap();
        assert_eq!(one.start(), None, "{text:?}");
        assert!(Hardware::load(&one.data_dir).unwrap().0.contains_key("board number"), "{text:?}");
    }
}

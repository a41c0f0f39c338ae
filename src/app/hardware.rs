//! The hardware that a node runs on, as far as it can be told: a disk that was copied into another box is noticed when that box starts.
//!
//! Owns: what is read of it, when it counts as other hardware, and the file beside the identity that keeps it from one start to the next. Must never: keep
//! a node from starting, tell anybody else, or cry wolf where hardware comes and goes or cannot be told. Driven by `serve`.
//!
//! ```text
//! file     = "covey hardware 1" LF  ( name "=" value LF )*          a part may have several values
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{major, minor};

/// The file, and what it is written as first.
pub(super) const HARDWARE_NAMES: [&str; 2] = ["hardware", "hardware.new"];
/// Its first line.
const HEAD: &str = "covey hardware 1";
/// Bytes of the file that are read, and of a value: more than any serial number has.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const VALUE_BYTES_MAX: u64 = 256;

/// What names one board, and where the kernel has it; most of it is for root alone.
const SERIALS: [(&str, &str); 4] = [
    ("board serial", "sys/class/dmi/id/board_serial"),
    ("machine serial", "sys/class/dmi/id/product_serial"),
    ("machine uuid", "sys/class/dmi/id/product_uuid"),
    ("board number", "proc/device-tree/serial-number"),
];
/// What names a kind of machine.
const MODELS: [(&str, &str); 2] =
    [("machine", "sys/class/dmi/id/product_name"), ("board", "proc/device-tree/model")];
/// What names a disk, from the directory of the block device or of the disk that it is a part of.
const DISK_SERIALS: [&str; 5] = ["wwid", "serial", "device/cid", "device/wwid", "device/serial"];
const DISK: &str = "disk";
const NETWORK: &str = "network card";
/// What makers write who write nothing, in small letters.
const PLACEHOLDERS: [&str; 12] = [
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "system product name",
    "base board serial number",
    "not specified",
    "not applicable",
    "unknown",
    "none",
    "n/a",
    "0123456789",
    "03000200-0400-0500-0006-000700080009",
];
/// What container managers leave where their containers see it. The hardware that is seen there is not that of the container.
const CONTAINER_MARKS: [&str; 3] = [".dockerenv", "run/.containerenv", "run/systemd/container"];
/// What they set in the environment.
const CONTAINER_VARIABLES: [&str; 2] = ["container", "KUBERNETES_SERVICE_HOST"];

/// The parts that can be told, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hardware(BTreeMap<String, BTreeSet<String>>);

/// Looks whether the hardware is that of the last start, and keeps what it is now. Answers what is other than it was, in words, if that is another box.
pub(super) fn look(data_dir: &Path) -> Option<String> {
    if CONTAINER_VARIABLES.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    look_in(Path::new("/"), data_dir)
}

fn look_in(root: &Path, data_dir: &Path) -> Option<String> {
    if CONTAINER_MARKS.iter().any(|mark| root.join(mark).exists()) {
        return None;
    }
    let now = Hardware::read(root, data_dir);
    let before = Hardware::load(data_dir).unwrap_or_default();
    let other = now.other_than(&before);
    // What cannot be read this time is not forgotten.
    let mut kept = before.clone();
    kept.0.extend(now.0);
    if kept != before
        && let Err(error) = kept.save(data_dir)
    {
        tracing::warn!(%error, "cannot note which hardware this is");
    }
    if let Some(other) = &other {
        tracing::warn!(
            "this is other hardware than at the last start ({other}): if the disk was copied, only one of the two boxes may run; if the box was repaired or replaced, all is well"
        );
    }
    other
}

impl Hardware {
    fn read(root: &Path, data_dir: &Path) -> Self {
        let mut parts = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, path) in SERIALS.iter().chain(&MODELS) {
            let value = told(&root.join(path));
            parts.entry((*name).to_owned()).or_default().extend(value);
        }
        parts.entry(DISK.to_owned()).or_default().extend(disk(root, data_dir));
        parts.entry(NETWORK.to_owned()).or_default().extend(network_cards(root));
        parts.retain(|_, values| !values.is_empty());
        Self(parts)
    }

    /// What differs, if it is more than parts that come and go. What was not told both times counts for nothing.
    ///
    /// A board's own number decides, and so does another kind of machine. Where boards have no numbers, or only root may read them, one part alone may have
    /// been replaced; the disk and all network cards together are another box.
    fn other_than(&self, before: &Self) -> Option<String> {
        let both = |name: &str| Some((before.0.get(name)?, self.0.get(name)?));
        let compared = |name: &str| both(name).map(|(before, now)| before.is_disjoint(now));
        let serials: Vec<bool> = SERIALS.iter().filter_map(|(name, _)| compared(name)).collect();
        let is_other = if serials.is_empty() {
            let is_other_model = MODELS.iter().any(|(name, _)| compared(name) == Some(true));
            is_other_model || [DISK, NETWORK].iter().all(|name| compared(name) == Some(true))
        } else {
            serials.iter().all(|differs| *differs)
        };
        let differ = self.0.keys().filter(|name| compared(name) == Some(true));
        is_other.then(|| differ.map(String::as_str).collect::<Vec<_>>().join(", "))
    }

    fn load(data_dir: &Path) -> Option<Self> {
        let file = File::open(data_dir.join(HARDWARE_NAMES[0])).ok()?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut parts = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            parts.entry(name.to_owned()).or_default().insert(value.to_owned());
        }
        Some(Self(parts))
    }

    /// In place of what was there, at once.
    fn save(&self, data_dir: &Path) -> io::Result<()> {
        let [path, new] = HARDWARE_NAMES.map(|name| data_dir.join(name));
        let mut text = format!("{HEAD}\n");
        for (name, value) in
            self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        {
            text.extend([name, "=", value, "\n"]);
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

/// What a file of the kernel's says, if that tells one thing from another.
fn told(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(VALUE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let first = text.chars().next()?;
    let says_nothing = text.chars().all(|c| c == first || c == '-' || c == ':')
        || PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str());
    let is_line = text.chars().all(|c| !c.is_control());
    (is_line && !says_nothing).then(|| text.to_owned())
}

/// The serial number of the disk that a directory is on; nothing where a filesystem hides it.
fn disk(root: &Path, data_dir: &Path) -> Option<String> {
    let device = fs::metadata(data_dir).ok()?.dev();
    let device = root.join(format!("sys/dev/block/{}:{}", major(device), minor(device)));
    let device = fs::canonicalize(device).ok()?;
    let places = [Some(device.as_path()), device.parent()];
    places
        .into_iter()
        .flatten()
        .find_map(|place| DISK_SERIALS.iter().find_map(|name| told(&place.join(name))))
}

/// The addresses that makers gave to the network cards that are built in.
fn network_cards(root: &Path) -> BTreeSet<String> {
    let interfaces = fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten();
    let address = |interface: fs::DirEntry| {
        let path = interface.path();
        // What is no device is made by software, and what is on USB is plugged in and out.
        let device = fs::canonicalize(path.join("device")).ok()?;
        let is_on_usb = device.iter().any(|part| part.to_string_lossy().starts_with("usb"));
        let is_permanent = fs::read_to_string(path.join("addr_assign_type")).ok()?.trim() == "0";
        told(&path.join("address")).filter(|_| is_permanent && !is_on_usb)
    };
    interfaces.filter_map(address).collect()
}

#[cfg(test)]
#[path = "hardware_test.rs"]
mod tests;

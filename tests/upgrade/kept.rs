//! The directories that are kept, packed.
//!
//! Owns: where they are, how they are packed and unpacked. Must never: look into what is packed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What of a directory is the machine's and not the node's: room that is set aside, and what the hardware is.
const LEFT_OUT: [&str; 2] = ["--exclude=./reserve", "--exclude=./hardware*"];
/// All directories of a build take no more, in bytes: they are in the repository for good.
const PACKED_MAX: u64 = 300 * 1024;
/// In a text: what is said to readers alone.
const REMARK: &str = "# ";
/// In a remark: who else was a member.
const OTHERS: &str = "others: ";

/// A directory that an earlier build has made.
pub struct Kept {
    packed: PathBuf,
    remarks: String,
    /// What is in it, as [`describe`](crate::content::describe) says it.
    pub content: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.packed.display())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade")
}

/// That of the build that runs.
pub fn of_this_build() -> PathBuf {
    root().join(env!("CARGO_PKG_VERSION"))
}

/// The directories of this name, one of each build. There is one at least.
pub fn kept(name: &str) -> Vec<Kept> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut builds: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    builds.sort();
    assert!(!builds.is_empty(), "nothing is kept");
    builds.iter().map(|build| Kept::read(build, name)).collect()
}

impl Kept {
    fn read(build: &Path, name: &str) -> Self {
        let text = fs::read_to_string(build.join(name).with_extension("txt")).unwrap();
        let (remarks, content) = text.split_once("\n\n").expect("remarks, and what is in it");
        let packed = build.join(format!("{name}.tar.gz"));
        Self { packed, remarks: remarks.to_owned(), content: content.to_owned() }
    }

    /// Packs the directory of a node that does not run, for good.
    pub fn make(name: &str, data_dir: &Path, remark: &str, others: &[&str], content: &str) {
        let build = of_this_build();
        fs::create_dir_all(&build).unwrap();
        let packed = build.join(format!("{name}.tar.gz"));
        let mut command = Command::new("tar");
        command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
        command
            .args(LEFT_OUT)
            .args(["-I", "gzip -9n", "-S", "-C"])
            .arg(data_dir)
            .arg("-cf")
            .arg(&packed)
            .arg(".");
        assert!(command.status().unwrap().success());
        let others = match others {
            [] => String::new(),
            others => format!("{REMARK}{OTHERS}{}\n", others.join(", ")),
        };
        let text = format!("{REMARK}{remark}\n{others}\n{content}");
        fs::write(packed.with_file_name(name).with_extension("txt"), text).unwrap();
        let sizes = fs::read_dir(build).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= PACKED_MAX, "more than {PACKED_MAX} bytes are kept of a build");
    }

    /// Makes a copy that may be used.
    pub fn unpack(&self, data_dir: &Path) {
        fs::create_dir_all(data_dir).unwrap();
        let mut command = Command::new("tar");
        command.args(["--no-same-owner", "-C"]).arg(data_dir).arg("-xzf").arg(&self.packed);
        assert!(command.status().unwrap().success(), "{self:?}");
    }

    /// The names of the other members that it had.
    pub fn others(&self) -> Vec<&str> {
        let others = self.remarks.split(REMARK).find_map(|remark| remark.strip_prefix(OTHERS));
        others.into_iter().flat_map(|others| others.split(", ")).collect()
    }

    /// The last revision, and the hash of everything up to it, as the build had it that made the directory.
    pub fn hash(&self) -> (i64, u64) {
        let mut words =
            self.content.lines().next().unwrap().split([' ', ',']).filter_map(|word| word.parse().ok());
        let mut next = || words.next().unwrap();
        let (revision, _, hash): (u64, u64, u64) = (next(), next(), next());
        (revision.try_into().unwrap(), hash)
    }
}

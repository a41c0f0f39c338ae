//! What a client is given to connect with: a directory with its key and certificate, the authority of the servers, and where they are.
//!
//! Owns: the files' names, what is in them, who may read them. Must never: write over anything but what is renewed, or show the key to others. Written
//! by the commands that add a client and renew it; read by `args`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::runtime::files::OWNER_ONLY;

/// Whom the servers' certificates must come from, PEM.
pub const CA_FILE: &str = "ca.crt";
/// The client's certificate, PEM.
pub const CERTIFICATE_FILE: &str = "client.crt";
/// Its private key, PEM.
pub const KEY_FILE: &str = "client.key";
/// The URLs of the servers, one in a line.
pub const ENDPOINTS_FILE: &str = "endpoints";
/// The same as variables for etcdctl, to be read by a shell.
pub const ENV_FILE: &str = "env";

const KEY_MODE: u32 = 0o600;
const OPEN_MODE: u32 = 0o644;

/// Why a bundle was not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is something already.
    #[error("{} is not empty: a bundle has a directory of its own", .0.display())]
    NotEmpty(PathBuf),
    /// There is something else.
    #[error("{} is not a client's bundle: there is no {CA_FILE} in it", .0.display())]
    NoBundle(PathBuf),
    /// A file or directory that cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// What a client needs.
pub struct Bundle {
    /// The authority's certificate, PEM.
    pub ca: String,
    /// The client's certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// Where the servers are, `https://host:port` each.
    pub endpoints: Vec<String>,
}

/// What of a bundle changes when another authority signs for the servers.
pub struct Renewal {
    /// The authority's certificate, PEM.
    pub ca: String,
    /// Where the servers are.
    pub endpoints: Vec<String>,
}

impl Renewal {
    /// Whether it may be written there: into a bundle, or where nothing else is.
    pub fn check_place(dir: &Path) -> Result<(), BundleError> {
        match Bundle::check_free(dir) {
            Err(BundleError::NotEmpty(_)) if dir.join(CA_FILE).is_file() => Ok(()),
            Err(BundleError::NotEmpty(_)) => Err(BundleError::NoBundle(dir.to_owned())),
            checked => checked,
        }
    }

    /// Writes it over what is there, each file at once: a client may be reading it.
    pub fn write(&self, dir: &Path) -> Result<(), BundleError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| BundleError::Write { path, error }
        };
        if !dir.exists() {
            DirBuilder::new().mode(OWNER_ONLY).create(dir).map_err(failed(dir))?;
        }
        let endpoints = lines(&self.endpoints);
        for (name, content) in [(CA_FILE, &self.ca), (ENDPOINTS_FILE, &endpoints)] {
            let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(OPEN_MODE).open(&new);
            let written = file.and_then(|mut file| {
                file.write_all(content.as_bytes())?;
                file.sync_all()
            });
            written.and_then(|()| fs::rename(&new, &path)).map_err(failed(&path))?;
        }
        Ok(())
    }
}

fn lines(endpoints: &[String]) -> String {
    endpoints.join("\n") + "\n"
}

/// One file of a bundle.
struct File {
    name: &'static str,
    mode: u32,
    content: Vec<u8>,
}

impl Bundle {
    /// Whether a bundle may be written there: nothing else is.
    pub fn check_free(dir: &Path) -> Result<(), BundleError> {
        match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(BundleError::NotEmpty(dir.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BundleError::Write { path: dir.to_owned(), error }),
        }
    }

    /// Makes the directory, which must not exist or be empty, and writes everything into it.
    pub fn write(&self, dir: &Path) -> Result<(), BundleError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| BundleError::Write { path, error }
        };
        match DirBuilder::new().mode(OWNER_ONLY).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_dir(dir).map_err(failed(dir))?.next().is_some() {
                    return Err(BundleError::NotEmpty(dir.to_owned()));
                }
                fs::set_permissions(dir, Permissions::from_mode(OWNER_ONLY)).map_err(failed(dir))?;
            }
            Err(error) => return Err(failed(dir)(error)),
        }
        let absolute = std::path::absolute(dir).map_err(failed(dir))?;
        for File { name, mode, content } in self.files(&absolute) {
            let path = dir.join(name);
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
            file.and_then(|mut file| file.write_all(&content)).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// All files, for a bundle in this directory.
    fn files(&self, dir: &Path) -> [File; 5] {
        let file = |name, mode, content: &[u8]| File { name, mode, content: content.to_vec() };
        let lines = lines(&self.endpoints);
        [
            file(CA_FILE, OPEN_MODE, self.ca.as_bytes()),
            file(CERTIFICATE_FILE, OPEN_MODE, self.certificate.as_bytes()),
            file(KEY_FILE, KEY_MODE, self.key.as_bytes()),
            file(ENDPOINTS_FILE, OPEN_MODE, lines.as_bytes()),
            file(ENV_FILE, OPEN_MODE, &self.env(dir)),
        ]
    }

    fn env(&self, dir: &Path) -> Vec<u8> {
        let endpoints = self.endpoints.join(",");
        let mut out = b"# For etcdctl: read it into a shell with a dot in front. The paths are those of the place where this was written.\n".to_vec();
        for (variable, file) in
            [("ETCDCTL_CACERT", CA_FILE), ("ETCDCTL_CERT", CERTIFICATE_FILE), ("ETCDCTL_KEY", KEY_FILE)]
        {
            put_export(&mut out, variable, dir.join(file).as_os_str());
        }
        put_export(&mut out, "ETCDCTL_ENDPOINTS", OsStr::new(&endpoints));
        out
    }
}

/// One line for a shell, to which nothing between two quotes means anything but the quote that ends it.
fn put_export(out: &mut Vec<u8>, variable: &str, value: &OsStr) {
    out.extend_from_slice(format!("export {variable}='").as_bytes());
    for byte in value.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.extend_from_slice(b"'\n");
}

/// Where the servers are, by the bundle in this directory: a list as `--endpoints` takes it. One may go without the file.
pub fn read_endpoints(dir: &Path) -> Result<String, BundleError> {
    let path = dir.join(ENDPOINTS_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.join(CA_FILE).exists() => String::new(),
        Err(error) => return Err(BundleError::Read { path, error }),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(lines.join(","))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            ca: "authority\n".into(),
            certificate: "certificate\n".into(),
            key: "key\n".into(),
            endpoints: vec!["https://10.0.0.1:2379".into(), "https://box.local:2379".into()],
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_bundle_is_for_its_owner_alone_and_says_all_that_is_needed() {
        let scratch = tempfile::tempdir().unwrap();
        for (name, exists) in [("new", false), ("empty", true)] {
            let dir = scratch.path().join(name);
            if exists {
                fs::create_dir(&dir).unwrap();
            }
            bundle().write(&dir).unwrap();
            assert_eq!((mode(&dir), mode(&dir.join("client.key"))), (0o700, 0o600));
            let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["ca.crt", "client.crt", "client.key", "endpoints", "env"]);
            assert_eq!(fs::read_to_string(dir.join("client.key")).unwrap(), "key\n");
            assert_eq!(read_endpoints(&dir).unwrap(), "https://10.0.0.1:2379,https://box.local:2379");
        }
    }

    #[test]
    fn nothing_is_written_where_something_is() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("bundle");
        bundle().write(&dir).unwrap();
        let again = bundle().write(&dir).unwrap_err().to_string();
        assert!(again.ends_with("bundle is not empty: a bundle has a directory of its own"), "{again}");
        assert!(matches!(Bundle::check_free(&dir), Err(BundleError::NotEmpty(_))));
        assert!(Bundle::check_free(&scratch.path().join("new")).is_ok());
        fs::remove_file(dir.join("env")).unwrap();
        assert!(matches!(bundle().write(&dir), Err(BundleError::NotEmpty(_))));
        assert!(!dir.join("env").exists());
        let file = dir.join("ca.crt");
        assert!(matches!(bundle().write(&file), Err(BundleError::Write { path, .. }) if path == file));
    }

    #[test]
    fn a_renewal_goes_over_a_bundle_or_where_nothing_is_and_leaves_the_rest_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let renewal = Renewal { ca: "another\n".into(), endpoints: vec!["https://10.0.0.2:2379".into()] };
        let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
        bundle().write(&old).unwrap();
        for dir in [&old, &new] {
            Renewal::check_place(dir).unwrap();
            renewal.write(dir).unwrap();
            assert_eq!((read(dir, "ca.crt"), mode(&dir.join("ca.crt"))), ("another\n".into(), 0o644));
            assert_eq!(read_endpoints(dir).unwrap(), "https://10.0.0.2:2379");
        }
        assert_eq!((read(&old, "client.key"), fs::read_dir(&old).unwrap().count()), ("key\n".into(), 5));
        assert_eq!((mode(&new), fs::read_dir(&new).unwrap().count()), (0o700, 2));
        fs::remove_file(old.join("ca.crt")).unwrap();
        assert!(matches!(Renewal::check_place(&old), Err(BundleError::NoBundle(_))));
    }

    #[test]
    fn a_shell_reads_the_variables_whatever_the_directory_is_called() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("it's $HOME `of` \"a\" box");
        bundle().write(&dir).unwrap();
        let script = r#". "$0/env"; env | sed -n 's/^ETCDCTL_//p' | sort"#;
        let output = Command::new("sh").args(["-euc", script]).arg(&dir).env_clear().output().unwrap();
        let dir = dir.display();
        let expected = format!(
            "CACERT={dir}/ca.crt\nCERT={dir}/client.crt\nENDPOINTS=https://10.0.0.1:2379,https://box.local:2379\nKEY={dir}/client.key\n"
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

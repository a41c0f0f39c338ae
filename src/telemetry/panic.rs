//! The panic hook: a panic becomes an error line, and a damaged store an exit code that a supervisor can tell apart.
//!
//! Owns: what a panic looks like from outside. Must never: let a process with a damaged store go on. Installed by `app`
//! once logging works.
//!
//! redb checks its pages little: a flipped bit in an inner page ends in an out-of-bounds index or a failed assertion inside
//! redb. Restarting alone changes nothing then, so the message says what is wrong and the exit code is one of its own. Where there are members to
//! take the state from, that is noted before (see [`note_store_damage`]), and the next start does.

use std::panic::{self, PanicHookInfo};
use std::path::{Component, Path};
use std::process;
use std::sync::OnceLock;

use super::log::path_end;

/// The exit code of a process whose store is damaged: a restart does not help (`EX_DATAERR` of sysexits).
pub const EXIT_STORE_DAMAGED: i32 = 65;

/// Notes on the disk that the store is damaged; whether that helps the next start.
type DamageNote = Box<dyn Fn() -> bool + Send + Sync>;

static DAMAGE_NOTE: OnceLock<DamageNote> = OnceLock::new();

/// Has this called before the process ends because its store is damaged. It runs in a panic, on whatever thread: it takes no lock. The first one
/// stays.
pub fn note_store_damage(note: impl Fn() -> bool + Send + Sync + 'static) {
    drop(DAMAGE_NOTE.set(Box::new(note)));
}

/// Makes panics log, and those inside redb exit with [`EXIT_STORE_DAMAGED`].
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        if report(info) == Fate::Exit {
            process::exit(EXIT_STORE_DAMAGED);
        }
    }));
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// As the build's panic strategy has it: a release aborts.
    Default,
    /// The store is damaged.
    Exit,
}

fn report(info: &PanicHookInfo<'_>) -> Fate {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("a value that is no text");
    let (file, line) = info.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let caller = format_args!("{}:{line}", path_end(file)).to_string();
    if is_redb(file) {
        tracing::error!(
            caller = %caller,
            thread,
            panic = message,
            "the store is damaged: redb failed on its own file"
        );
        if DAMAGE_NOTE.get().is_some_and(|note| note()) {
            tracing::error!("at the next start another member's state takes the place of the store");
        } else {
            tracing::error!("starting again will not help: restore this member from a backup");
        }
        return Fate::Exit;
    }
    tracing::error!(caller = %caller, thread, panic = message, "panic: this is a defect");
    Fate::Default
}

/// Whether a source file belongs to redb: a registry names the directory of a crate by name and version.
fn is_redb(file: &str) -> bool {
    Path::new(file).components().any(|part| match part {
        Component::Normal(name) => {
            let name = name.to_string_lossy();
            name == "redb"
                || name.strip_prefix("redb-").is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::Mutex;

    use super::super::log::LogFormat;
    use super::super::log::tests::captured;
    use super::{Fate, is_redb, report};

    #[test]
    fn only_redbs_own_files_are_redb() {
        assert!(is_redb("/home/u/.cargo/registry/src/index-0/redb-4.5.0/src/tree_store/btree.rs"));
        assert!(is_redb("/vendor/redb/src/db.rs"));
        for other in [
            "src/store/base.rs",
            "/x/redb-tools/src/a.rs",
            "/x/redb.rs",
            "/rustc/abc/library/core/src/option.rs",
        ] {
            assert!(!is_redb(other), "{other}");
        }
    }

    #[test]
    fn a_panic_becomes_one_error_line() {
        static FATE: Mutex<Option<Fate>> = Mutex::new(None);
        let lines = captured(LogFormat::Json, || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(|info| *FATE.lock().unwrap() = Some(report(info))));
            let caught = panic::catch_unwind(|| panic!("invariant \"x\""));
            panic::set_hook(before);
            assert!(caught.is_err());
        });
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["level"], &line["panic"]), (&"error".into(), &"invariant \"x\"".into()));
        assert!(line["caller"].as_str().unwrap().starts_with("telemetry/panic.rs:"));
        assert_eq!(FATE.lock().unwrap().take(), Some(Fate::Default));
    }
}

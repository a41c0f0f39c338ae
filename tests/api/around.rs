//! What is around a node, as a test says it.
//!
//! Owns: a stand-in for the box and the network that the operator's service asks. Must never: touch either.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use covey::api::{
    AllPending, AskedAround, AskedLately, BackupsMade, ClusterBeside, ComesIn, DiskWritten, GivingUp, Host,
    IssuedClient, PendingNode, SeenNode, YieldRefusal,
};
use covey::command::{self, ClientKey};
use covey::formation::Fingerprint;
use covey::ids::ClusterId;
use covey::telemetry::LogLevel;

/// What is around a node, as a test says it.
#[derive(Default)]
pub struct Around {
    pub pending: Mutex<Vec<PendingNode>>,
    /// Who waits at other members, and which of those do not answer.
    pub elsewhere: Mutex<AllPending>,
    /// To ask the other members takes for ever.
    pub elsewhere_late: AtomicBool,
    pub conflicts: Mutex<Vec<ClusterBeside>>,
    pub seen: Mutex<Vec<SeenNode>>,
    pub comes_in: ComesIn,
    pub other_hardware: Option<String>,
    pub log_level: Mutex<Option<LogLevel>>,
    pub disk_written: DiskWritten,
    pub backups: Option<BackupsMade>,
}

impl Host for Around {
    fn comes_in(&self) -> ComesIn {
        self.comes_in
    }

    fn up(&self) -> Duration {
        Duration::from_secs(77)
    }

    fn disk_written(&self) -> DiskWritten {
        self.disk_written
    }

    fn backups(&self) -> Option<BackupsMade> {
        self.backups.clone()
    }

    fn other_hardware(&self) -> Option<String> {
        self.other_hardware.clone()
    }

    fn pending_anywhere(&self) -> AskedAround {
        let AllPending { mut nodes, silent } = self.elsewhere.lock().unwrap().clone();
        nodes.extend(self.pending.lock().unwrap().clone());
        let late = self.elsewhere_late.load(Ordering::Relaxed);
        Box::pin(
            async move { if late { std::future::pending().await } else { AllPending { nodes, silent } } },
        )
    }

    fn pending_lately(&self) -> AskedLately {
        let mut nodes = self.elsewhere.lock().unwrap().nodes.clone();
        nodes.extend(self.pending.lock().unwrap().clone());
        Box::pin(async move { nodes })
    }

    fn conflicts(&self) -> Vec<ClusterBeside> {
        self.conflicts.lock().unwrap().clone()
    }

    fn seen(&self) -> Vec<SeenNode> {
        self.seen.lock().unwrap().clone()
    }

    fn certificate(&self, authority: &command::Authority) -> Result<String, String> {
        String::from_utf8(authority.certificate.to_vec()).map_err(|error| error.to_string())
    }

    fn issue(&self, _: &command::Authority, name: &str) -> Result<IssuedClient, String> {
        let text = |what: &str| format!("{what} of {name}");
        Ok(IssuedClient {
            certificate: text("certificate"),
            key: text("key"),
            known_by: ClientKey(*Fingerprint::from_bytes([9; 32]).bytes()),
        })
    }

    fn log_level(&self) -> LogLevel {
        self.log_level.lock().unwrap().unwrap_or(LogLevel::Info)
    }

    fn set_log_level(&self, level: LogLevel) {
        *self.log_level.lock().unwrap() = Some(level);
    }

    fn give_up_for(&self, winner: ClusterId) -> GivingUp {
        let known = self.conflicts.lock().unwrap().iter().any(|beside| beside.cluster == winner);
        let outcome = if known { Ok(()) } else { Err(YieldRefusal::NoConflict(winner)) };
        Box::pin(async move { outcome })
    }
}

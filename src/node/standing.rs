//! What a member says of its own log and part.
//!
//! Owns: when that is told. Must never: change anything. Part of [`Core`].

use super::core::{Core, CoreOutput};
use crate::consensus::CoreStatus;
use crate::ids::LogIndex;
use crate::wal::{LogEntry, Position};

impl Core {
    /// The entries after `after`, committed or not, and where the log ends; of a log that begins later, or ends before, none.
    pub fn log_after(&self, after: LogIndex) -> (Vec<LogEntry>, Position) {
        self.consensus.log_after(after)
    }

    /// Reports at once what others decide by; see [`CoreStatus::sole_voter`].
    pub(super) fn report_standing(&mut self) {
        let status = self.consensus.status();
        let CoreStatus { commit, last, last_term, .. } = status;
        let positions = CoreStatus { commit, last, last_term, ..self.reported };
        if status != positions {
            self.report_status();
        }
    }

    pub(super) fn report_status(&mut self) -> bool {
        let status = self.consensus.status();
        let changed = status != self.reported;
        if changed {
            self.reported = status;
            self.outputs.push_back(CoreOutput::Status(status));
        }
        changed
    }
}

//! The accessors that raft calls. Its source has to fit two code generators, and these names are
//! what both have in common. Code outside raft uses the fields; of these it only gains from those
//! that read an absent message as an empty one.
#![expect(missing_docs, reason = "each does to the field what its prefix says")]

use std::mem;

use prost::bytes::Bytes;
use protobuf::Message as _;

use crate::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfState, Entry, EntryType, Message, MessageType, Snapshot,
    SnapshotMetadata,
};

impl Entry {
    #[inline]
    pub fn get_entry_type(&self) -> EntryType {
        self.entry_type
    }

    #[inline]
    pub fn set_entry_type(&mut self, entry_type: EntryType) {
        self.entry_type = entry_type;
    }

    #[inline]
    pub fn get_term(&self) -> u64 {
        self.term
    }

    #[inline]
    pub fn get_index(&self) -> u64 {
        self.index
    }

    #[inline]
    pub fn get_data(&self) -> &[u8] {
        &self.data
    }

    #[inline]
    pub fn take_data(&mut self) -> Bytes {
        mem::take(&mut self.data)
    }
}

impl SnapshotMetadata {
    #[inline]
    pub fn get_conf_state(&self) -> &ConfState {
        self.conf_state.as_ref().unwrap_or_else(|| ConfState::default_instance())
    }

    #[inline]
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = Some(conf_state);
    }

    #[inline]
    pub fn take_conf_state(&mut self) -> ConfState {
        self.conf_state.take().unwrap_or_default()
    }
}

impl Snapshot {
    #[inline]
    pub fn get_metadata(&self) -> &SnapshotMetadata {
        self.metadata.as_ref().unwrap_or_else(|| SnapshotMetadata::default_instance())
    }

    #[inline]
    pub fn mut_metadata(&mut self) -> &mut SnapshotMetadata {
        self.metadata.get_or_insert_default()
    }

    #[inline]
    pub fn take_metadata(&mut self) -> SnapshotMetadata {
        self.metadata.take().unwrap_or_default()
    }

    /// Whether this stands for "no snapshot": one of index 0 covers no entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}

impl Message {
    #[inline]
    pub fn get_msg_type(&self) -> MessageType {
        self.msg_type
    }

    #[inline]
    pub fn set_msg_type(&mut self, msg_type: MessageType) {
        self.msg_type = msg_type;
    }

    #[inline]
    pub fn get_index(&self) -> u64 {
        self.index
    }

    #[inline]
    pub fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    #[inline]
    pub fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    #[inline]
    pub fn mut_entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    #[inline]
    pub fn set_entries(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
    }

    #[inline]
    pub fn take_entries(&mut self) -> Vec<Entry> {
        mem::take(&mut self.entries)
    }

    #[inline]
    pub fn get_snapshot(&self) -> &Snapshot {
        self.snapshot.as_ref().unwrap_or_else(|| Snapshot::default_instance())
    }

    #[inline]
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    #[inline]
    pub fn take_snapshot(&mut self) -> Snapshot {
        self.snapshot.take().unwrap_or_default()
    }

    #[inline]
    pub fn take_context(&mut self) -> Bytes {
        mem::take(&mut self.context)
    }
}

impl ConfState {
    #[inline]
    pub fn get_voters(&self) -> &[u64] {
        &self.voters
    }

    #[inline]
    pub fn set_voters(&mut self, voters: Vec<u64>) {
        self.voters = voters;
    }

    #[inline]
    pub fn get_learners(&self) -> &[u64] {
        &self.learners
    }

    #[inline]
    pub fn set_learners(&mut self, learners: Vec<u64>) {
        self.learners = learners;
    }

    #[inline]
    pub fn get_voters_outgoing(&self) -> &[u64] {
        &self.voters_outgoing
    }

    #[inline]
    pub fn set_voters_outgoing(&mut self, voters_outgoing: Vec<u64>) {
        self.voters_outgoing = voters_outgoing;
    }

    #[inline]
    pub fn get_learners_next(&self) -> &[u64] {
        &self.learners_next
    }

    #[inline]
    pub fn set_learners_next(&mut self, learners_next: Vec<u64>) {
        self.learners_next = learners_next;
    }
}

impl ConfChangeSingle {
    #[inline]
    pub fn get_change_type(&self) -> ConfChangeType {
        self.change_type
    }
}

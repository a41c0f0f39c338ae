//! A core among peers that do not answer, or answer late.

use super::*;
use crate::command::{Command, Envelope, MemberAttributes};
use crate::consensus::{MessageClass, Pace, Start};
use crate::ids::Term;
use crate::limits::{DISK_STUCK, GATHERING_MAX, HEARTBEAT};
use crate::node::Target;
use crate::prng::Prng;
use crate::wal::{EntryKind, HardState, Position};

/// Three cores, their disks instant, joined by a network that a test can cut.
struct Trio {
    cores: Vec<Core>,
    now: Instant,
    cut_off: Option<usize>,
    /// Hears the others and is not heard.
    mute: Option<usize>,
    /// Nothing of it arrives that is neither a sign of life nor part of the log: no candidacy, no transfer of leadership. What was lost so, and when.
    curt: Option<usize>,
    unsaid: Vec<(Instant, MemberId)>,
    /// Its disk syncs nothing; what it was given.
    stuck: Option<usize>,
    unsynced: Vec<PersistId>,
    applied: Vec<Vec<Bytes>>,
    others: Vec<Vec<CoreOutput>>,
}

impl Trio {
    fn new() -> Self {
        Self::with_suspect(None)
    }

    /// One may have found its state damaged, and asks for another one.
    fn with_suspect(suspect: Option<u64>) -> Self {
        let begin = Position { index: LogIndex(1), term: Term(1) };
        let voters: Vec<MemberId> = (1..=3).map(MemberId).collect();
        let core = |id: u64| {
            let start = Start {
                member: MemberId(id),
                boot_nonce: id,
                applied: begin,
                conf_state: ConfState { voters: voters.clone(), ..ConfState::default() },
                hard_state: HardState::default(),
                log_start: begin,
                entries: Vec::new(),
                pace: Pace::default(),
                suspect: suspect == Some(id),
                removed: false,
            };
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            Core::new(Instant(0), Consensus::start(Instant(0), start, Prng::new(id), &logger).unwrap())
        };
        let cores = (1..=3).map(core).collect();
        let none = || std::iter::repeat_with(Vec::new).take(3);
        Self {
            cores,
            now: Instant(0),
            cut_off: None,
            mute: None,
            curt: None,
            unsaid: Vec::new(),
            stuck: None,
            unsynced: Vec::new(),
            applied: none().collect(),
            others: std::iter::repeat_with(Vec::new).take(3).collect(),
        }
    }

    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for at in 0..3 {
                while let Some(output) = self.cores[at].poll_output() {
                    busy = true;
                    self.carry_out(at, output);
                }
            }
        }
    }

    fn carry_out(&mut self, at: usize, output: CoreOutput) {
        match output {
            CoreOutput::Persist(persist) if self.stuck == Some(at) => self.unsynced.push(persist.id),
            CoreOutput::Persist(persist) => self.cores[at].handle_persisted(self.now, persist.id),
            CoreOutput::Apply(entries) => {
                let (last, bytes) = (entries.last().unwrap().index, bytes_of(&entries));
                for entry in entries {
                    if entry.kind != EntryKind::Normal {
                        self.cores[at].apply_conf_change(self.now, &entry).unwrap();
                    } else if !entry.data.is_empty() {
                        self.applied[at].push(entry.data);
                    }
                }
                self.cores[at].handle_applied(self.now, last, bytes);
            }
            CoreOutput::Send(messages) => {
                for message in messages {
                    if self.curt == Some(at) && message.class() == MessageClass::Control {
                        self.unsaid.push((self.now, message.to()));
                        continue;
                    }
                    let to = usize::try_from(message.to().0 - 1).unwrap();
                    if ![self.cut_off, self.mute].contains(&Some(at))
                        && self.cut_off != Some(to)
                        && let Some(core) = self.cores.get_mut(to)
                    {
                        let _ = core.handle_message(self.now, message);
                    }
                }
            }
            other => self.others[at].push(other),
        }
    }

    /// The disk that is stuck gets this far.
    fn sync(&mut self, id: PersistId) {
        self.cores[self.stuck.unwrap()].handle_persisted(self.now, id);
        self.settle();
    }

    fn propose(&mut self, at: usize, seq: u64, text: &str) {
        self.cores[at].handle_proposal(self.now, id(seq), command(text));
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self.cores.iter().filter_map(Core::poll_timeout).min().unwrap_or(end);
            self.now = next.max(self.now).min(end);
            for core in &mut self.cores {
                core.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// One that has a leader, which all have heard.
    fn led() -> (Self, usize) {
        let mut trio = Self::new();
        let leader = trio.elect();
        trio.pass(HEARTBEAT * 2);
        (trio, leader)
    }

    fn elect(&mut self) -> usize {
        for _ in 0..100 {
            self.pass(HEARTBEAT);
            let leads =
                |at: &usize| Some(*at) != self.cut_off && self.cores[*at].status().role == Role::Leader;
            if let Some(leader) = (0..3).find(leads) {
                return leader;
            }
        }
        panic!("no leader in ten seconds");
    }

    fn reads_ready(&self, at: usize) -> Vec<ReadId> {
        let ready = self.others[at].iter().filter_map(|output| match output {
            CoreOutput::ReadReady(reads, _) => Some(reads.clone()),
            _ => None,
        });
        ready.flatten().collect()
    }

    fn refused(&self, at: usize) -> Vec<(Request, RefusedWhy)> {
        let refused = self.others[at].iter().filter_map(|output| match output {
            CoreOutput::Refused { request, why } => Some((*request, *why)),
            _ => None,
        });
        refused.collect()
    }
}

fn id(seq: u64) -> ProposalId {
    ProposalId { boot: 1, seq }
}

/// Some command, told from others by `text`.
fn command(text: &str) -> Bytes {
    let attributes = MemberAttributes { name: text.to_owned(), ..MemberAttributes::default() };
    codec::encode(&Envelope { id: id(0), caller: None, command: Command::Publish(attributes) })
}

#[test]
fn proposals_wait_for_an_election_but_not_for_ever() {
    let mut trio = Trio::new();
    trio.cores[0].handle_proposal(trio.now, id(1), command("early"));
    trio.settle();
    trio.elect();
    trio.pass(HEARTBEAT * 2);
    assert_eq!(trio.applied, vec![vec![command("early")]; 3]);
    assert!(trio.refused(0).is_empty());

    let mut trio = Trio::new();
    trio.cut_off = Some(0);
    trio.cores[0].handle_proposal(trio.now, id(1), command("never"));
    trio.settle();
    trio.pass(LEADER_PATIENCE / 2);
    assert!(trio.refused(0).is_empty());
    trio.pass(LEADER_PATIENCE / 2);
    assert_eq!(trio.refused(0), [(Request::Proposal(id(1)), RefusedWhy::NoLeader)]);
    // Nothing is left that would wake the core beyond raft's own timeouts.
    assert!(trio.cores[0].poll_timeout().is_none_or(|at| at > trio.now));
}

#[test]
fn a_lost_read_round_is_asked_again_with_those_that_joined_meanwhile() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    trio.cut_off = Some(follower);
    trio.cores[follower].handle_read(trio.now, ReadId(1));
    trio.settle();
    trio.cut_off = None;
    trio.cores[follower].handle_read(trio.now, ReadId(2));
    trio.settle();
    assert!(
        trio.reads_ready(follower).is_empty(),
        "the first round is lost, and one is on its way at a time"
    );
    trio.pass(READ_RETRY);
    assert_eq!(trio.reads_ready(follower), [ReadId(1), ReadId(2)]);
}

#[test]
fn a_read_is_not_served_by_a_round_that_began_before_it() {
    let (mut trio, leader) = Trio::led();
    trio.cores[leader].handle_read(trio.now, ReadId(1));
    // The round's heartbeats are on their way when the second read comes.
    let mut held = Vec::new();
    while let Some(output) = trio.cores[leader].poll_output() {
        held.push(output);
    }
    trio.cores[leader].handle_read(trio.now, ReadId(2));
    for output in held {
        trio.carry_out(leader, output);
    }
    let follower = (leader + 1) % 3;
    while let Some(output) = trio.cores[follower].poll_output() {
        trio.carry_out(follower, output);
    }
    while let Some(output) = trio.cores[leader].poll_output() {
        if let CoreOutput::ReadReady(reads, _) = &output {
            assert_eq!(reads, &[ReadId(1)]);
            trio.others[leader].push(output);
            break;
        }
        trio.carry_out(leader, output);
    }
    trio.settle();
    assert_eq!(trio.reads_ready(leader), [ReadId(1), ReadId(2)]);
}

/// What followers ask for while a round is on its way is answered by the next one, and that one serves them all.
#[test]
fn requests_of_followers_join_the_next_round_of_the_leader() {
    let (mut trio, leader) = Trio::led();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let outputs = |core: &mut Core| std::iter::from_fn(|| core.poll_output()).collect::<Vec<_>>();

    trio.cores[leader].handle_read(trio.now, ReadId(1));
    let first_round = outputs(&mut trio.cores[leader]);
    for at in followers {
        trio.cores[at].handle_read(trio.now, ReadId(2));
        for output in outputs(&mut trio.cores[at]) {
            trio.carry_out(at, output);
        }
    }
    assert_eq!(outputs(&mut trio.cores[leader]).len(), 0, "one round is on its way at a time");
    for output in first_round {
        trio.carry_out(leader, output);
    }
    for at in followers {
        for output in outputs(&mut trio.cores[at]) {
            trio.carry_out(at, output);
        }
    }
    let mut heartbeats = 0;
    for output in outputs(&mut trio.cores[leader]) {
        if let CoreOutput::Send(messages) = &output {
            heartbeats += messages.len();
        }
        trio.carry_out(leader, output);
    }
    assert_eq!(trio.reads_ready(leader), [ReadId(1)]);
    assert_eq!(heartbeats, 2, "the second round, to each follower");
    for at in followers {
        assert!(trio.reads_ready(at).is_empty(), "the first round began before this read");
    }
    trio.settle();
    for at in followers {
        assert_eq!(trio.reads_ready(at), [ReadId(2)]);
    }
}

/// Members that ask again and again, as one whose answers are lost does, cost a leader without a quorum no more than this.
#[test]
fn a_leader_that_confirms_nothing_keeps_few_requests() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    trio.cores[leader].handle_read(trio.now, ReadId(1));
    while trio.cores[leader].poll_output().is_some() {}
    for read in 0..READ_REQUESTS_MAX as u64 * 2 {
        trio.cores[follower].handle_read(trio.now, ReadId(read));
        let again = trio.cores[follower].round.take();
        trio.cores[follower].joining.extend(again.into_iter().flat_map(|round| round.reads));
        while let Some(output) = trio.cores[follower].poll_output() {
            trio.carry_out(follower, output);
        }
    }
    assert_eq!(trio.cores[leader].requested.len(), READ_REQUESTS_MAX);
}

#[test]
fn an_isolated_leader_confirms_no_read_and_forgets_its_own_proposals() {
    let (mut trio, old) = Trio::led();
    trio.cut_off = Some(old);
    trio.cores[old].handle_read(trio.now, ReadId(1));
    for seq in 0..100 {
        trio.cores[old].handle_proposal(trio.now, id(seq), command("lost"));
    }
    trio.settle();
    assert_eq!(trio.cores[old].appended_count, 100);
    let new = trio.elect();
    trio.cores[new].handle_proposal(trio.now, id(200), command("kept"));
    trio.pass(ELECTION_TIMEOUT * 2);
    assert!(trio.reads_ready(old).is_empty());
    assert_eq!((trio.cores[old].appended_count, trio.cores[old].appended_bytes), (0, 0));
    trio.cut_off = None;
    trio.pass(ELECTION_TIMEOUT * 2);
    assert_eq!(trio.applied, vec![vec![command("kept")]; 3]);
    assert_eq!(trio.reads_ready(old), [ReadId(1)], "another leader's round serves it");
}

/// Without this a member that finds no leader would keep its reads, and in the end refuse new ones.
#[test]
fn a_read_that_finds_no_leader_is_given_up_in_time() {
    let (mut trio, leader) = Trio::led();
    let alone = (leader + 1) % 3;
    trio.cut_off = Some(alone);
    trio.pass(ELECTION_TIMEOUT * 3);
    assert_eq!(trio.cores[alone].status().leader, None);
    let (first, second) = (trio.now, trio.now + HEARTBEAT);
    trio.cores[alone].handle_read(trio.now, ReadId(1));
    trio.pass(HEARTBEAT);
    trio.cores[alone].handle_read(trio.now, ReadId(2));
    assert_eq!(trio.now, second);
    trio.pass(REQUEST_TIMEOUT.saturating_sub(HEARTBEAT + Duration::from_millis(1)));
    assert!(trio.refused(alone).is_empty());
    trio.pass(Duration::from_millis(1));
    assert_eq!(trio.now, first + REQUEST_TIMEOUT);
    assert_eq!(trio.refused(alone), [(Request::Read(ReadId(1)), RefusedWhy::TimedOut)]);
    trio.pass(HEARTBEAT);
    assert_eq!(trio.refused(alone)[1..], [(Request::Read(ReadId(2)), RefusedWhy::TimedOut)]);
    trio.cut_off = None;
    trio.pass(ELECTION_TIMEOUT * 3);
    assert!(trio.reads_ready(alone).is_empty(), "an answer is given once");
    trio.cores[alone].handle_read(trio.now, ReadId(3));
    trio.pass(READ_RETRY * 2);
    assert_eq!(trio.reads_ready(alone), [ReadId(3)]);
}

/// A read is asked again of the next leader; one that gets no answer there either is told that leadership moved.
#[test]
fn a_read_that_outlives_its_leader_in_vain_is_told_so() {
    let (mut trio, old) = Trio::led();
    trio.cut_off = Some(old);
    trio.cores[old].handle_read(trio.now, ReadId(1));
    assert!(trio.elect() != old);
    (trio.cut_off, trio.mute) = (None, Some(old));
    trio.pass(REQUEST_TIMEOUT);
    assert!(trio.cores[old].status().leader.is_some());
    assert_eq!(trio.refused(old), [(Request::Read(ReadId(1)), RefusedWhy::LeaderChanged)]);
}

#[test]
fn a_removed_member_refuses_everything() {
    let (mut trio, leader) = Trio::led();
    let changes = vec![(MemberId(leader as u64 + 1), crate::consensus::MemberChange::Remove)];
    trio.cores[leader].propose_conf_change(trio.now, &ConfChange { changes, context: Bytes::new() }).unwrap();
    trio.settle();
    let gone = leader;
    assert_eq!(trio.cores[gone].status().role, Role::Removed);
    trio.cores[gone].handle_proposal(trio.now, id(1), command("x"));
    trio.cores[gone].handle_read(trio.now, ReadId(1));
    trio.settle();
    let refused = trio.refused(gone);
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|(_, why)| *why == RefusedWhy::Removed));
}

#[test]
fn too_many_reads_are_refused() {
    let mut trio = Trio::new();
    for read in 0..READS_PENDING_MAX as u64 {
        trio.cores[0].handle_read(trio.now, ReadId(read));
    }
    trio.settle();
    assert!(trio.refused(0).is_empty());
    trio.cores[0].handle_read(trio.now, ReadId(u64::MAX));
    trio.settle();
    assert_eq!(trio.refused(0), [(Request::Read(ReadId(u64::MAX)), RefusedWhy::TooManyRequests)]);
}

#[test]
fn followers_hear_of_a_commit_with_the_next_entry_or_a_moment_later() {
    let mut trio = Trio::new();
    let leader = trio.elect();
    let followers: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    trio.pass(HEARTBEAT);
    let put = |trio: &mut Trio, seq, command: &'static str| {
        trio.cores[leader].handle_proposal(trio.now, id(seq), Bytes::from_static(command.as_bytes()));
        trio.settle();
    };
    put(&mut trio, 1, "one");
    assert_eq!(trio.applied[leader], ["one"]);
    assert!(followers.iter().all(|at| trio.applied[*at].is_empty()), "not for that alone");
    put(&mut trio, 2, "two");
    assert!(followers.iter().all(|at| trio.applied[*at] == ["one"]));
    trio.pass(Duration::from_millis(3));
    assert!(followers.iter().all(|at| trio.applied[*at] == ["one", "two"]));
}

#[test]
fn who_passes_something_on_is_not_kept_waiting() {
    let mut trio = Trio::new();
    let leader = trio.elect();
    trio.pass(HEARTBEAT);
    let (busy, quiet) = ((leader + 1) % 3, (leader + 2) % 3);
    trio.cores[busy].handle_proposal(trio.now, id(1), command("passed on"));
    trio.settle();
    assert_eq!(trio.applied[busy], [command("passed on")]);
    assert!(trio.applied[quiet].is_empty());
    // Nor for a read, of what was committed before it came.
    trio.cores[quiet].handle_read(trio.now, ReadId(1));
    trio.settle();
    assert_eq!(trio.reads_ready(quiet), [ReadId(1)]);
    assert_eq!(trio.applied[quiet], [command("passed on")]);
    trio.cores[leader].handle_proposal(trio.now, id(2), command("next"));
    trio.settle();
    assert!(
        [busy, quiet].iter().all(|at| trio.applied[*at] == [command("passed on"), command("next")]),
        "as long as it may ask again"
    );
    trio.pass(ASKED_LATELY_AND_MORE);
    trio.cores[leader].handle_proposal(trio.now, id(3), command("last"));
    trio.settle();
    assert_eq!(trio.applied[busy].len(), 2);
}

const ASKED_LATELY_AND_MORE: Duration = Duration::from_millis(1100);

/// What comes while the leader's disk syncs leaves together, also what followers have passed on, and waits for no later sync.
#[test]
fn proposals_gather_while_the_disk_of_the_leader_is_busy() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    let last = |trio: &Trio| trio.cores[follower].status().last.0 - 2;
    let before = last(&trio);
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    assert_eq!(last(&trio), before + 1, "the disk had nothing to do");
    let first = trio.unsynced[0];
    trio.propose(leader, 2, "b");
    trio.propose(follower, 3, "c");
    trio.propose(leader, 4, "d");
    assert_eq!(last(&trio), before + 1);
    // Something that does not gather goes to the disk meanwhile.
    let changes = vec![(MemberId(9), crate::consensus::MemberChange::Learner)];
    trio.cores[leader].propose_conf_change(trio.now, &ConfChange { changes, context: Bytes::new() }).unwrap();
    trio.settle();
    assert_eq!(trio.unsynced.len(), 2);
    trio.sync(first);
    assert_eq!(last(&trio), before + 5, "those behind that one were not waited for");
    trio.sync(*trio.unsynced.last().unwrap());
    let expected = ["a", "c", "b", "d"].map(command);
    assert_eq!(trio.applied[leader], expected);
}

/// The others may have disks that are well.
#[test]
fn a_disk_that_is_stuck_is_not_waited_for() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    trio.propose(leader, 2, "b");
    trio.propose(follower, 3, "c");
    trio.pass(GATHERING_MAX.saturating_sub(Duration::from_millis(1)));
    assert_eq!(trio.cores[follower].status().commit.0, 3);
    trio.pass(Duration::from_millis(5));
    assert_eq!(trio.applied[follower], ["a", "c", "b"].map(command), "by the disks of the two others");
    assert!(trio.applied[leader].is_empty());
}

/// Nothing wakes a core for proposals that have gathered and wait for something else by now.
#[test]
fn gathered_proposals_wait_for_the_end_of_a_hand_over_without_a_wake_up() {
    let (mut trio, leader) = Trio::led();
    let (heir, other) = ((leader + 1) % 3, (leader + 2) % 3);
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    trio.propose(leader, 2, "b");
    trio.propose(other, 3, "c");
    trio.cut_off = Some(heir);
    trio.cores[leader].transfer_leader(trio.now, MemberId(heir as u64 + 1));
    trio.settle();
    trio.pass(GATHERING_MAX * 2);
    assert!(trio.cores[leader].poll_timeout().unwrap() > trio.now);
    assert!(trio.cores[leader].consensus.is_handing_over());
    assert_eq!(trio.applied[other], [command("a")]);
    trio.pass(ELECTION_TIMEOUT * 2);
    trio.cut_off = None;
    trio.pass(ELECTION_TIMEOUT);
    assert_eq!(trio.applied[other], ["a", "c", "b"].map(command), "it came to nothing, and they go on");
}

/// Else a leader or a follower would keep in memory all that the others write.
#[test]
fn what_waits_for_the_disk_is_bounded() {
    let large = |n: u64| {
        let attributes =
            MemberAttributes { name: n.to_string().repeat(1_000_000 / 2), ..MemberAttributes::default() };
        codec::encode(&Envelope { id: id(n), caller: None, command: Command::Publish(attributes) })
    };
    for (stuck_leads, through, kept) in [(true, 0, 80), (true, 1, 17 + 33 + 3), (false, 0, 80)] {
        let mut trio = Trio::new();
        let leader = trio.elect();
        trio.pass(HEARTBEAT * 2);
        let stuck = if stuck_leads { leader } else { (leader + 1) % 3 };
        trio.stuck = Some(stuck);
        for n in 10..90 {
            if n == 70 {
                // A little of it gets to the disk: no more than a little comes behind.
                let id = trio.unsynced[2];
                trio.cores[stuck].handle_persisted(trio.now, id);
            }
            trio.cores[(leader + through) % 3].handle_proposal(trio.now, id(n), large(n));
            trio.pass(GATHERING_MAX * 2);
            let unsynced = trio.cores[stuck].consensus.unsynced_bytes();
            assert!(unsynced <= UNSYNCED_BYTES_MAX + 2 * WAL_BATCH_BYTES, "{unsynced}");
        }
        // A follower that lacks what it has refused asks for that once its disk has the rest.
        assert!(trio.cores[stuck].is_behind() || !stuck_leads, "{through}");
        let id = *trio.unsynced.last().unwrap();
        trio.stuck = None;
        trio.cores[stuck].handle_persisted(trio.now, id);
        trio.pass(ELECTION_TIMEOUT);
        assert_eq!(trio.cores[stuck].consensus.unsynced_bytes(), 0);
        // Nothing is lost but what was passed on to a leader that had no room for more, or what it refused.
        let refused = trio.refused(leader).len();
        assert_eq!(trio.applied[stuck].len() + refused, kept, "{stuck_leads} {through}");
    }
}

/// In the log it would stop every member that applies it, at every start.
#[test]
fn a_leader_takes_no_proposal_from_others_that_nobody_could_apply() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    let mut forward = |envelopes: &[&Bytes]| {
        for envelope in envelopes {
            trio.cores[follower].handle_proposal(trio.now, id(1), (*envelope).clone());
        }
        let mut answers = Vec::new();
        while let Some(output) = trio.cores[follower].poll_output() {
            let CoreOutput::Send(messages) = output else { continue };
            for message in messages {
                answers.push(trio.cores[leader].handle_message(trio.now, message));
            }
        }
        trio.settle();
        answers
    };
    let good = command("good");
    for bad in [good.slice(..good.len() - 1), Bytes::from_static(b"\xff"), Bytes::from(vec![0; 1000])] {
        assert_eq!(forward(&[&bad]), [Err(Refusal::Unreadable)]);
        assert_eq!(forward(&[&good, &bad]), [Err(Refusal::Unreadable)], "they come in one message");
    }
    assert_eq!(forward(&[&good]), [Ok(())]);
    trio.pass(HEARTBEAT * 2);
    assert_eq!(trio.applied, vec![vec![good]; 3]);
}

/// While a transfer is on its way nothing is written: one that fails must not be followed by another one at once, nor always by the same.
#[test]
fn a_leader_that_is_to_go_lets_each_of_the_others_try_and_writes_in_between() {
    let (mut trio, leader) = Trio::led();
    let others: Vec<MemberId> = (1..=3).map(MemberId).filter(|id| id.0 != leader as u64 + 1).collect();
    let target =
        |member: &MemberId| Target { member: *member, bound: true, votes: true, came: true, overdue: false };
    let targets = others.iter().map(target).collect();
    trio.cores[leader].handle_membership(trio.now, Membership { targets, ..Membership::default() });

    trio.curt = Some(leader);
    let (begin, mut written) = (trio.now, 0);
    while trio.now < begin + ELECTION_TIMEOUT * 8 {
        trio.cores[leader].handle_proposal(trio.now, id(written), command("between"));
        trio.pass(HEARTBEAT);
        written += 1;
    }
    assert_eq!(trio.cores[leader].status().role, Role::Leader);
    assert!(trio.unsaid[0].0 >= begin + HEARTBEAT, "the others know first that it is to go");
    let tried: Vec<MemberId> = trio.unsaid.iter().map(|(_, to)| *to).collect();
    assert!(tried.len() >= 3, "{tried:?}");
    assert!(tried.iter().zip(others.iter().cycle()).all(|(tried, next)| tried == next), "{tried:?}");
    let pauses = trio.unsaid.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(pauses.min().unwrap() > ELECTION_TIMEOUT, "{:?}", trio.unsaid);
    assert!(trio.refused(leader).is_empty(), "they wait for less than what they may");
    assert!(trio.applied[leader].len() as u64 > written / 2, "{} of {written}", trio.applied[leader].len());

    trio.curt = None;
    trio.pass(ELECTION_TIMEOUT * 3);
    assert_ne!(trio.cores[leader].status().role, Role::Leader);
}

/// Its state may be the wrong one, and would make a majority with the one that asks. Who has another one and asks itself has none to be right with any more.
#[test]
fn a_state_that_somebody_contradicts_is_sent_only_where_all_who_do_ask_for_it() {
    for (contradicted_by, is_sent) in
        [(vec![], true), (vec![3], true), (vec![1, 2], false), (vec![1, 2, 3], false)]
    {
        let mut trio = Trio::with_suspect(Some(3));
        for core in &mut trio.cores {
            core.set_contradicted_by(contradicted_by.iter().copied().map(MemberId).collect());
        }
        let leader = trio.elect();
        trio.pass(20 * HEARTBEAT);
        let serves = |output: &CoreOutput| {
            matches!(output, CoreOutput::Store(CheckpointJob::Serve { to: MemberId(3), .. }))
        };
        assert_eq!(trio.others[leader].iter().any(serves), is_sent, "{contradicted_by:?}");
    }
}

#[path = "stall_test.rs"]
mod stall;

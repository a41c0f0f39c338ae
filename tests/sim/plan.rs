//! What a seed decides before the world begins: sizes, speeds, and how much goes wrong.
//!
//! Owns: the draws. Must never: depend on anything but the seed. Read by everything.

use std::ops::Range;
use std::time::Duration;

use covey::consensus::Pace;
use covey::formation::DiskOptions;
use covey::limits::{DISK_STUCK, LOG_CACHE_BYTES, OVERLAY_BYTES, QUOTA_BYTES, TRANSFER_PIECE_BYTES};
use covey::node::VotePolicy;
use covey::prng::Prng;
use covey::store::StoreOptions;
use covey::wal;

/// How long things take, and how large the portions of the background's work are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    hop: Duration,
    sync: Duration,
    fold: Duration,
    pub(crate) slice: usize,
    /// Applied entries that a member keeps for its followers, in bytes.
    pub(crate) log_tail_bytes: usize,
    /// Changes or leases in one piece of a state on its way to another member, in bytes.
    pub(crate) piece_bytes: usize,
    /// The overlay is folded at this size.
    pub(crate) overlay_bytes: usize,
    /// How long it takes to apply a batch of entries.
    apply: Duration,
    /// One batch in so many takes seconds.
    stall_one_in: u64,
    /// One sync in so many takes seconds, as one of a flash card that tidies up does.
    sync_stall_one_in: u64,
    /// How long that one takes, about.
    sync_stall: Duration,
    /// What the log holds at a start takes about so long to apply.
    replay: Duration,
}

/// Where all is slow, what comes every few seconds elsewhere comes every few minutes.
const SLOWER: u32 = 60;

/// A batch that takes long to apply, or a sync, takes about so long.
const STALL: Duration = Duration::from_secs(2);

impl Timing {
    /// From one thread to another.
    pub(crate) fn hop(&self, prng: &mut Prng) -> Duration {
        draw(prng, self.hop)
    }

    /// From a write to the end of its sync.
    pub(crate) fn sync(&self, prng: &mut Prng) -> Duration {
        let stalls = self.sync_stall_one_in > 0 && prng.one_in(self.sync_stall_one_in);
        draw(prng, if stalls { self.sync_stall } else { self.sync })
    }

    /// How long a disk is stuck at most, where one is at all: that ends by itself, also after the last fault.
    pub(crate) fn longest_stall(&self) -> Duration {
        if self.sync_stall > STALL { self.sync_stall * 2 } else { Duration::ZERO }
    }

    /// A fold.
    pub(crate) fn fold(&self, prng: &mut Prng) -> Duration {
        draw(prng, self.fold)
    }

    /// A batch of entries.
    pub(crate) fn apply(&self, prng: &mut Prng) -> Duration {
        let stalls = self.stall_one_in > 0 && prng.one_in(self.stall_one_in);
        draw(prng, if stalls { STALL } else { self.apply })
    }

    /// All entries that the log holds at a start.
    pub(crate) fn replay(&self, prng: &mut Prng) -> Duration {
        draw(prng, self.replay)
    }

    /// From now on nothing takes long.
    pub(crate) fn calm_down(&mut self) {
        (self.apply, self.stall_one_in, self.replay) = (Duration::ZERO, 0, Duration::ZERO);
        self.sync_stall_one_in = 0;
    }
}

/// Evenly between nothing and twice the mean.
pub(crate) fn draw(prng: &mut Prng, mean: Duration) -> Duration {
    let nanos = u64::try_from(mean.as_nanos()).expect("short");
    Duration::from_nanos(prng.range(0, 2 * nanos + 1))
}

/// One of the range once in so many draws, else nothing.
fn sometimes(prng: &mut Prng, one_in: u64, range: Range<u64>) -> u64 {
    if prng.one_in(one_in) { prng.range(range.start, range.end) } else { 0 }
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: u64,
    pub(crate) operations: u64,
    pub(crate) keys: u64,
    /// Of a hundred requests, how many are about leases.
    pub(crate) leases: u64,
    /// The mean time between two bursts of one client.
    pub(crate) think: Duration,
    /// Bytes of the largest values.
    pub(crate) value_bytes: u64,
    /// How long the view of a read is held at most before it is read from.
    pub(crate) hold: Duration,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    /// The mean time between two faults; `None`: nothing goes wrong.
    pub(crate) gap: Option<Duration>,
    /// One start in so many is itself cut off.
    pub(crate) cut_start_one_in: u64,
    /// The clients rest, long enough for an idle fold, once in so many faults.
    pub(crate) lull_one_in: u64,
    /// One fault in so many spoils a member's state behind its back, and that is found out; 0: none does.
    pub(crate) spoil_one_in: u64,
}

/// Cuts of any shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    /// The mean time from the end of one to the next.
    pub(crate) gap: Duration,
    /// How long they last on average.
    pub(crate) length: Duration,
}

/// What the network does in some worlds, beside what it does in all that have trouble.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Net {
    /// `None`: only single hosts are cut off.
    pub(crate) cuts: Option<Cuts>,
    /// One message in so many comes seconds late; 0: none does.
    pub(crate) late_one_in: u64,
}

impl Net {
    /// Drawn beside the rest, which stays what it is.
    fn draw(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x0e7);
        let cuts = prng.one_in(4).then(|| Cuts {
            gap: Duration::from_millis(prng.range(200, 3000)),
            length: Duration::from_millis(prng.range(100, 4000)),
        });
        Self { cuts, late_one_in: sometimes(&mut prng, 2, 6..40) }
    }

    /// The same for worlds in which all is slow.
    fn slowed_down(self) -> Self {
        let slow = |cuts: Cuts| Cuts { gap: cuts.gap * SLOWER, length: cuts.length * SLOWER };
        Self { cuts: self.cuts.map(slow), ..self }
    }
}

/// Clocks that are not equally fast, and members that stand still together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// The mean time between two times that some stand still.
    pub(crate) gap: Duration,
}

/// What becomes of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// An empty one takes its place.
    Emptied,
    /// It is what it was at some time before.
    PutBack,
}

/// A cluster that begins with one node, takes in the others, and decides by itself who votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growing {
    pub(crate) policy: VotePolicy,
    /// A user has written.
    pub(crate) committed: bool,
}

/// Everything that the seed fixes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The first members.
    pub(crate) hosts: usize,
    /// Hosts beside them whose nodes may become members.
    pub(crate) spare: usize,
    /// The mean time between two looks of whoever adds and removes members; `None`: the members stay as they are.
    pub(crate) admin: Option<Duration>,
    pub(crate) loss: Option<Loss>,
    pub(crate) grows: Option<Growing>,
    pub(crate) pace: Pace,
    pub(crate) timing: Timing,
    pub(crate) load: Load,
    pub(crate) trouble: Trouble,
    pub(crate) net: Net,
    pub(crate) clocks: Option<Clocks>,
    pub(crate) quota: u64,
    pub(crate) disk: DiskOptions,
    /// The last host hears nothing and is not heard between these two moments.
    pub(crate) absence: Option<(Duration, Duration)>,
    /// Look inside the members, too, and not only at what clients are shown.
    pub(crate) look_inside: bool,
    pub(crate) verbose: bool,
}

impl Plan {
    /// A lone node among clients and faults.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let prng = &mut prng;
        let mut slow = Prng::new(seed ^ 0x510e);
        let slow = &mut slow;
        let bulky = prng.one_in(16);
        let slow_disk = prng.one_in(4);
        let overlay =
            if bulky { OVERLAY_BYTES } else { usize::try_from(prng.range(1000, 16_000)).expect("small") };
        let overlay = if prng.one_in(6) { OVERLAY_BYTES } else { overlay };
        let timing = Timing {
            hop: Duration::from_micros(if prng.one_in(3) {
                prng.range(100, 3000)
            } else {
                prng.range(1, 40)
            }),
            sync: Duration::from_micros(if slow_disk {
                prng.range(5_000, 60_000)
            } else {
                prng.range(50, 3000)
            }),
            fold: Duration::from_millis(prng.range(1, if bulky { 800 } else { 60 })),
            slice: usize::try_from(prng.range(1, 12)).expect("small"),
            overlay_bytes: overlay,
            log_tail_bytes: LOG_CACHE_BYTES,
            piece_bytes: TRANSFER_PIECE_BYTES,
            apply: Duration::from_micros(if slow.one_in(3) { slow.range(100, 20_000) } else { 20 }),
            stall_one_in: sometimes(slow, 3, 30..200),
            replay: Duration::from_millis(sometimes(slow, 2, 500..6000)),
            sync_stall_one_in: sometimes(slow, 4, 20..300),
            sync_stall: STALL,
        };
        let load = Load {
            clients: prng.range(1, 9),
            operations: if bulky { prng.range(40, 90) } else { prng.range(60, 260) },
            keys: prng.range(3, 24),
            leases: 14,
            think: Duration::from_micros(prng.range(300, 80_000)),
            value_bytes: if bulky { 800_000 } else { prng.range(8, 900) },
            hold: Duration::from_millis(if prng.one_in(3) { 4000 } else { 20 }),
        };
        // About how long the clients are at it.
        let span = load.think * u32::try_from(load.operations / (2 * load.clients) + 1).expect("small");
        let gap = span / u32::try_from(prng.range(1, 14)).expect("small") + Duration::from_millis(1);
        let trouble = Trouble {
            gap: (!prng.one_in(12)).then_some(gap),
            cut_start_one_in: prng.range(2, 6),
            lull_one_in: prng.range(2, 7),
            spoil_one_in: 0,
        };
        Self {
            seed,
            hosts: 1,
            spare: 0,
            admin: None,
            loss: None,
            grows: None,
            pace: Pace::default(),
            timing,
            load,
            trouble,
            net: Net::default(),
            clocks: None,
            quota: if prng.one_in(5) { prng.range(20_000, 60_000) } else { QUOTA_BYTES },
            disk: DiskOptions {
                wal: wal::Options { segment_bytes: 4096 * prng.range(2, 12), prefill: !prng.one_in(4) },
                store: StoreOptions { cache_bytes: 1 << prng.range(16, 23) },
            },
            absence: None,
            look_inside: true,
            verbose: std::env::var_os("COVEY_SIM_LOG").is_some(),
        }
    }

    /// Three, five or seven members that vote from the start, on a network that loses, repeats, delays and parts them. Their logs are so
    /// short that who misses a little needs a whole state.
    pub(crate) fn draw_cluster(seed: u64) -> Self {
        let plan = Self::draw(seed);
        let mut prng = Prng::new(seed ^ 0xc105);
        let hosts = [3, 3, 3, 3, 5, 5, 7][usize::try_from(prng.range(0, 7)).expect("small")];
        let mut small = |max| usize::try_from(prng.range(0, max)).expect("small");
        let (log_tail_bytes, piece_bytes) = (small(1500), 1000 + small(9000));
        // The few leases that there are go one by one as well, or by twos.
        let tiny = Prng::new(seed ^ 0x1ea5e).one_in(3);
        let timing = Timing {
            log_tail_bytes,
            piece_bytes: if tiny { piece_bytes / 100 } else { piece_bytes },
            overlay_bytes: plan.timing.overlay_bytes.min(600 + small(4000)),
            ..plan.timing
        };
        let load = Load {
            operations: 3 * plan.load.operations,
            value_bytes: plan.load.value_bytes.min(400),
            think: plan.load.think * 4,
            ..plan.load
        };
        let trouble = Trouble { lull_one_in: 1_000_000, ..plan.trouble };
        let net = trouble.gap.map_or_else(Net::default, |_| Net::draw(seed));
        let mut prng = Prng::new(seed ^ 0x71c5);
        let differ = prng.one_in(4) && trouble.gap.is_some();
        let clocks = differ.then(|| Clocks { gap: Duration::from_millis(prng.range(1000, 8000)) });
        Self { hosts, timing, load, trouble, net, clocks, ..plan }
    }

    /// Three members and clients that are mostly busy with leases, for as long as those live; now and then they rest for minutes.
    pub(crate) fn draw_leases(seed: u64) -> Self {
        let plan = Self::draw_cluster(seed);
        let load =
            Load { clients: 4, operations: 150, leases: 60, think: Duration::from_millis(1200), ..plan.load };
        // In some worlds a disk is stuck now and then, which shows where little else goes wrong.
        let mut prng = Prng::new(seed ^ 0x57c4);
        let stuck = prng.one_in(2) && plan.trouble.gap.is_some();
        let timing = if stuck {
            let sync_stall_one_in = prng.range(100, 500);
            Timing { sync_stall_one_in, sync_stall: DISK_STUCK, ..plan.timing }
        } else {
            plan.timing
        };
        let gap = plan
            .trouble
            .gap
            .map(|gap| gap + if stuck { timing.longest_stall() } else { Duration::from_secs(5) });
        let trouble = Trouble { gap, lull_one_in: 8, ..plan.trouble };
        Self { timing, load, trouble, ..plan }
    }

    /// Three members at first. Others are added, promoted and removed while clients ask and things go wrong. In most worlds a disk is lost.
    pub(crate) fn draw_members(seed: u64) -> Self {
        let plan = Self::draw_cluster(seed);
        let admin = Some(Duration::from_millis(800));
        let think = plan.load.think.max(Duration::from_millis(150));
        let gap = plan.trouble.gap.map(|gap| gap.max(Duration::from_millis(1500)));
        let load = Load { operations: 400, think, ..plan.load };
        let trouble = Trouble { gap, ..plan.trouble };
        let loss = [None, Some(Loss::Emptied), Some(Loss::PutBack), Some(Loss::PutBack)]
            [usize::try_from(Prng::new(seed ^ 0x1057).range(0, 4)).expect("small")];
        Self { hosts: 3, spare: 3, admin, loss, load, trouble, ..plan }
    }

    /// One node at first, to which others come: three to seven in the end.
    pub(crate) fn draw_growing(seed: u64) -> Self {
        let plan = Self::draw_members(seed);
        let mut prng = Prng::new(seed ^ 0x6406);
        let spare = [2, 3, 4, 4, 5, 6][usize::try_from(prng.range(0, 6)).expect("small")];
        let voters = if prng.one_in(3) { 5 } else { 3 };
        let policy = VotePolicy { voters, ..VotePolicy::default() };
        let grows = Growing { policy, committed: !prng.one_in(3) };
        let plan = Self { hosts: 1, spare, loss: None, grows: Some(grows), ..plan };
        if prng.one_in(4) { plan.slow_down(&mut prng) } else { plan.hurry(grows, &mut prng) }
    }

    /// All is slow, so that half an hour is soon over: a member that fails for good is missed for minutes before anything follows from that.
    fn slow_down(self, prng: &mut Prng) -> Self {
        let pace = Pace {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1500),
            election_max: Duration::from_secs(5),
        };
        let load =
            Load { clients: 2, operations: 120, leases: 40, think: Duration::from_secs(30), ..self.load };
        let gap = self.trouble.gap.map(|_| Duration::from_secs(prng.range(30, 400)));
        let trouble = Trouble { gap, ..self.trouble };
        let (admin, net) = (Some(Duration::from_secs(2)), self.net.slowed_down());
        let clocks = self.clocks.map(|clocks| Clocks { gap: clocks.gap * SLOWER });
        Self { admin, pace, load, trouble, net, clocks, ..self }
    }

    /// Votes move so soon that it happens among all that goes wrong.
    fn hurry(self, grows: Growing, prng: &mut Prng) -> Self {
        let probation = Duration::from_millis(prng.range(0, 3000));
        let absence_max = Duration::from_millis(prng.range(500, 6000));
        let policy = VotePolicy { probation, absence_max, ..grows.policy };
        let load = Load { clients: 3, think: Duration::from_millis(prng.range(300, 2000)), ..self.load };
        let gap = self.trouble.gap.map(|_| Duration::from_millis(prng.range(1500, 12_000)));
        let trouble = Trouble { gap, ..self.trouble };
        Self { grows: Some(Growing { policy, ..grows }), load, trouble, ..self }
    }

    /// A cluster of which a minority finds out now and then that its state is not what it should be.
    pub(crate) fn draw_spoiled(seed: u64) -> Self {
        let plan = Self::draw_cluster(seed);
        let mut prng = Prng::new(seed ^ 0x5901);
        let gap = plan.trouble.gap.map(|gap| gap.max(Duration::from_millis(400)));
        let trouble = Trouble { gap, spoil_one_in: prng.range(2, 6), ..plan.trouble };
        Self { trouble, ..plan }
    }

    /// A short history in which nothing goes wrong by itself: writes, a fold, a compaction, writes.
    pub(crate) fn script(seed: u64) -> Self {
        let plan = Self::draw(seed);
        let timing = Timing {
            sync: Duration::from_micros(200),
            fold: Duration::from_millis(5),
            slice: 3,
            overlay_bytes: 2500,
            apply: Duration::ZERO,
            stall_one_in: 0,
            replay: Duration::ZERO,
            sync_stall_one_in: 0,
            ..plan.timing
        };
        let load = Load {
            clients: 2,
            operations: 130,
            keys: 4,
            leases: 14,
            think: Duration::from_millis(2),
            value_bytes: 24,
            hold: Duration::from_millis(2),
        };
        let trouble = Trouble { gap: None, cut_start_one_in: u64::MAX, lull_one_in: 1, spoil_one_in: 0 };
        let disk = DiskOptions {
            wal: wal::Options { segment_bytes: 8192, prefill: true },
            store: StoreOptions { cache_bytes: 1 << 20 },
        };
        Self { timing, load, trouble, quota: QUOTA_BYTES, disk, ..plan }
    }
    /// The same with so little room that deletions of intervals are left to the store.
    pub(crate) fn script_sweeps(seed: u64) -> Self {
        let plan = Self::script(seed);
        let timing = Timing { overlay_bytes: 100, ..plan.timing };
        Self { timing, load: Load { keys: 6, operations: 300, ..plan.load }, ..plan }
    }

    /// A short history of three members: one misses so much that it needs the state, in several pieces.
    pub(crate) fn script_exchange(seed: u64) -> Self {
        let plan = Self::script(seed);
        let timing = Timing { log_tail_bytes: 0, piece_bytes: 1500, overlay_bytes: 1500, ..plan.timing };
        let load = Load { operations: 160, think: Duration::from_millis(130), ..plan.load };
        let absence = Some((Duration::from_millis(2200), Duration::from_millis(4200)));
        Self { hosts: 3, timing, load, absence, ..plan }
    }
}

//! What a seed decides before boxes are switched on: how many, when, and how much goes wrong until when.
//!
//! Owns: the draws. Must never: depend on anything but the seed. Read by `world`.

use std::time::Duration;

use covey::formation::gathering::Timers;
use covey::prng::Prng;

const SECOND: Duration = Duration::from_secs(1);

/// The shape of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All boxes are switched on together, and nothing goes wrong.
    Together,
    /// Anything goes wrong until some moment.
    Chaos,
    /// Two halves of a network that meet later.
    Halves,
    /// Some pairs never reach each other, in one direction or both.
    Apart,
}

/// What happens in clusters, and between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meets {
    /// All boxes have the same secret: nobody is ever closed out.
    pub(crate) fleet: bool,
    /// In so many parts does the network begin, and the mean time until it falls into others.
    pub(crate) parts: u64,
    pub(crate) regroup_gap: Duration,
    /// The mean time between two things that users and operators do; none: nobody is there.
    pub(crate) users_gap: Option<Duration>,
    /// One of those in so many makes time go by, or closes the window for good; 0: none.
    pub(crate) closes_one_in: u64,
    /// Users write everywhere, and operators give up clusters that were written to.
    pub(crate) orders: bool,
    /// How long an entry takes at most to be committed, and a member to look for new ones.
    pub(crate) commit: Duration,
    pub(crate) apply: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) hosts: usize,
    pub(crate) timers: Timers,
    /// When each box is switched on, and how long after that its interface is up.
    pub(crate) power: Vec<(Duration, Duration)>,
    /// One message in so many is lost, comes twice, or is slow; 0: none.
    pub(crate) lost_one_in: u64,
    pub(crate) twice_one_in: u64,
    pub(crate) slow_one_in: u64,
    /// How long a slow message takes at most.
    pub(crate) slow: Duration,
    /// How long a write takes at most, and one in eight on a bad day.
    pub(crate) write: Duration,
    pub(crate) slow_write: Duration,
    /// One step that is on disk in so many is followed, or preceded, by a crash.
    pub(crate) crash_one_in: u64,
    /// The mean time between two faults.
    pub(crate) fault_gap: Option<Duration>,
    /// From then on nothing goes wrong any more.
    pub(crate) heal: Duration,
    /// Nodes are found by configured addresses, too.
    pub(crate) hints: bool,
    /// Somebody is announced who is not there.
    pub(crate) phantoms: bool,
    /// One request to join in so many is not granted at once.
    pub(crate) reluctant_one_in: u64,
    /// Clusters that meet become one. None: a cluster is no more than what lets others in.
    pub(crate) meets: Option<Meets>,
    pub(crate) verbose: bool,
}

impl Plan {
    pub(crate) fn together(seed: u64, hosts: usize) -> Self {
        let mut prng = Prng::new(seed ^ 0x6a74_0001);
        let millis = |prng: &mut Prng, max| Duration::from_millis(prng.range(0, max));
        let power = (0..hosts).map(|_| (millis(&mut prng, 2000), millis(&mut prng, 500))).collect();
        Self {
            seed,
            kind: Kind::Together,
            hosts,
            timers: Timers::default(),
            power,
            lost_one_in: 0,
            twice_one_in: 0,
            slow_one_in: 0,
            slow: Duration::ZERO,
            write: Duration::from_millis(60),
            slow_write: Duration::from_millis(300),
            crash_one_in: 0,
            fault_gap: None,
            heal: Duration::ZERO,
            hints: false,
            phantoms: false,
            reluctant_one_in: 0,
            meets: None,
            verbose: false,
        }
    }

    pub(crate) fn draw(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x6a74_0002);
        let prng = &mut prng;
        let hosts = usize::try_from(prng.range(2, 8)).expect("a few");
        let kind = match prng.range(0, 8) {
            0 => return Self::together(seed, hosts),
            1 => Kind::Halves,
            2 => Kind::Apart,
            _ => Kind::Chaos,
        };
        let heal = SECOND * u32::try_from(prng.range(5, 90)).expect("seconds");
        let quiet = kind != Kind::Chaos && prng.one_in(2);
        let often =
            |prng: &mut Prng, from, to| if quiet || prng.one_in(3) { 0 } else { prng.range(from, to) };
        let spread = [2000, 12_000, 60_000][usize::try_from(prng.range(0, 3)).expect("small")];
        let power = (0..hosts)
            .map(|_| {
                let up = if prng.one_in(4) { prng.range(0, 40_000) } else { prng.range(0, 1500) };
                (Duration::from_millis(prng.range(0, spread)), Duration::from_millis(up))
            })
            .collect();
        let mut timers = Timers::default();
        let patient_driver = prng.one_in(4);
        if patient_driver {
            timers.ask_timeout = SECOND * 60;
        }
        Self {
            seed,
            kind,
            hosts,
            timers,
            power,
            lost_one_in: often(prng, 3, 40),
            twice_one_in: often(prng, 4, 40),
            slow_one_in: often(prng, 4, 60),
            slow: if patient_driver { SECOND * 40 } else { SECOND * 8 },
            write: Duration::from_millis(prng.range(2, 200)),
            slow_write: Duration::from_millis(prng.range(200, 9000)),
            crash_one_in: often(prng, 2, 20),
            fault_gap: (!quiet).then(|| Duration::from_millis(prng.range(500, 15_000))),
            heal,
            hints: prng.one_in(4),
            phantoms: prng.one_in(4),
            reluctant_one_in: often(prng, 2, 8),
            meets: None,
            verbose: false,
        }
    }

    /// Clusters that have been founded apart from each other, and meet, again and again.
    pub(crate) fn meeting(seed: u64) -> Self {
        let plan = Self::draw(seed);
        let mut prng = Prng::new(seed ^ 0x6a74_0003);
        let prng = &mut prng;
        let millis = |prng: &mut Prng, from, to| Duration::from_millis(prng.range(from, to));
        let meets = Meets {
            fleet: prng.one_in(2),
            parts: prng.range(2, 5),
            regroup_gap: millis(prng, 8000, 90_000),
            users_gap: prng.one_in(2).then(|| millis(prng, 5000, 90_000)),
            closes_one_in: if prng.one_in(2) { 0 } else { prng.range(2, 6) },
            orders: false,
            commit: millis(prng, 5, 3000),
            apply: millis(prng, 20, 2000),
        };
        let orders = prng.one_in(4);
        let users_gap = if orders { Some(millis(prng, 500, 4000)) } else { meets.users_gap };
        let meets = Meets { users_gap, orders, ..meets };
        let fault_gap = prng.one_in(4).then(|| millis(prng, 500, 15_000));
        Self {
            kind: if prng.one_in(8) { Kind::Chaos } else { Kind::Halves },
            hosts: plan.hosts.max(3),
            power: (0..plan.hosts.max(3)).map(|_| (millis(prng, 0, 12_000), millis(prng, 0, 1500))).collect(),
            fault_gap: plan.fault_gap.and(fault_gap),
            heal: SECOND * u32::try_from(prng.range(40, 200)).expect("seconds"),
            // How long a promise takes is not of interest here.
            slow_write: Duration::from_millis(300),
            reluctant_one_in: 0,
            meets: Some(meets),
            ..plan
        }
    }
}

//! What a seed decides before boxes are switched on: how many, when, and how much goes wrong until when.
//!
//! Owns: the draws. Must never: depend on anything but the seed. Read by `world`.

use std::time::Duration;

use covey::command::CommandVersion;
use covey::formation::gathering::Timers;
use covey::prng::Prng;

const SECOND: Duration = Duration::from_secs(1);
/// Most disks have a bad day now and then.
const SLOW_WRITE_ONE_IN: u64 = 8;
/// Longer than a promise is held.
const REST: Duration = Duration::from_secs(40);

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
    /// Two that never reach each other want to found with the same others, who take long to promise and often begin anew.
    Rivals,
}

/// By what a node comes into a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enters {
    /// With whomever is there.
    Plain,
    /// By a claim: it founds none.
    Invited,
    /// It is to trust nobody, and stays outside where somebody is there.
    Guarded,
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
    /// Somebody has the key of one member of each cluster, and says with it that the cluster has ended.
    pub(crate) taken: bool,
    /// Who is given a vote is cut off at once, with what users write then in its log.
    pub(crate) cuts: bool,
    /// How long an entry takes at most to be committed, and a member to look for new ones.
    pub(crate) commit: Duration,
    pub(crate) apply: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) hosts: usize,
    /// By what each comes in; one is plain.
    pub(crate) enters: Vec<Enters>,
    /// The newest commands that each understands.
    pub(crate) understands: Vec<CommandVersion>,
    pub(crate) timers: Timers,
    /// When each box is switched on, and how long after that its interface is up.
    pub(crate) power: Vec<(Duration, Duration)>,
    /// One message in so many is lost, comes twice, or is slow; 0: none.
    pub(crate) lost_one_in: u64,
    pub(crate) twice_one_in: u64,
    pub(crate) slow_one_in: u64,
    /// How long a slow message takes at most.
    pub(crate) slow: Duration,
    /// How long a write takes at most, and one in so many on a bad day.
    pub(crate) write: Duration,
    pub(crate) slow_write: Duration,
    pub(crate) slow_write_one_in: u64,
    /// One step that is on disk in so many is followed, or preceded, by a crash.
    pub(crate) crash_one_in: u64,
    /// How long a box that has crashed is off at most.
    pub(crate) rest: Duration,
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

fn draw_below(prng: &mut Prng, bound: u64) -> usize {
    usize::try_from(prng.range(0, bound)).expect("small")
}

/// Somebody has keys, where users write soon, members hear late that it counts, and are cut off before they do.
fn taken(meets: Meets, prng: &mut Prng) -> Meets {
    let millis = |prng: &mut Prng, from, to| Duration::from_millis(prng.range(from, to));
    Meets {
        taken: true,
        cuts: prng.one_in(2),
        parts: 2,
        regroup_gap: millis(prng, 10_000, 30_000),
        users_gap: Some(millis(prng, 2000, 20_000)),
        closes_one_in: 0,
        apply: millis(prng, 2000, 15_000),
        ..meets
    }
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
            enters: vec![Enters::Plain; hosts],
            understands: vec![CommandVersion::understood(); hosts],
            timers: Timers::default(),
            power,
            lost_one_in: 0,
            twice_one_in: 0,
            slow_one_in: 0,
            slow: Duration::ZERO,
            write: Duration::from_millis(60),
            slow_write: Duration::from_millis(300),
            slow_write_one_in: SLOW_WRITE_ONE_IN,
            crash_one_in: 0,
            rest: REST,
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
        // Drawn beside the rest, which stays what it is.
        let mut prng = Prng::new(seed ^ 0x6a74_0004);
        if prng.one_in(8) { Self::rivals(seed, &mut prng) } else { Self::mixed(seed) }
    }

    /// Everything that is not made for one purpose.
    fn mixed(seed: u64) -> Self {
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
        // Through one that trusts nobody, nodes that do not see each other would not come together.
        let mixed = kind != Kind::Apart && prng.one_in(3);
        let mut enters = vec![Enters::Plain; hosts];
        for enters in enters.iter_mut().skip(1).filter(|_| mixed) {
            *enters = [Enters::Plain, Enters::Invited, Enters::Guarded][draw_below(prng, 3)];
        }
        Self {
            seed,
            kind,
            hosts,
            enters,
            understands: vec![CommandVersion::understood(); hosts],
            timers,
            power,
            lost_one_in: often(prng, 3, 40),
            twice_one_in: often(prng, 4, 40),
            slow_one_in: often(prng, 4, 60),
            slow: if patient_driver { SECOND * 40 } else { SECOND * 8 },
            write: Duration::from_millis(prng.range(2, 200)),
            slow_write: Duration::from_millis(prng.range(200, 9000)),
            slow_write_one_in: SLOW_WRITE_ONE_IN,
            crash_one_in: often(prng, 2, 20),
            rest: REST,
            fault_gap: (!quiet).then(|| Duration::from_millis(prng.range(500, 15_000))),
            heal,
            hints: prng.one_in(4),
            phantoms: prng.one_in(4),
            reluctant_one_in: often(prng, 2, 8),
            meets: None,
            verbose: false,
        }
    }

    /// What a promise is for has to be about to happen: that an attempt is still being made when another node asks, or after the giver has begun anew, is rare where
    /// promises are quick and boxes are long off.
    fn rivals(seed: u64, prng: &mut Prng) -> Self {
        let hosts = 3 + draw_below(prng, 3);
        let patience = Duration::from_millis(prng.range(1000, 8000));
        Self {
            timers: Timers { patience, ..Timers::default() },
            kind: Kind::Rivals,
            slow_write: Duration::from_millis(prng.range(1000, 9000)),
            slow_write_one_in: 1,
            rest: SECOND * 3,
            fault_gap: Some(Duration::from_millis(prng.range(1000, 10_000))),
            heal: SECOND * u32::try_from(prng.range(40, 90)).expect("seconds"),
            ..Self::together(seed, hosts)
        }
    }

    /// Clusters that meet while somebody has keys of theirs.
    #[cfg(feature = "planted")]
    pub(crate) fn taken(seed: u64) -> Self {
        let plan = Self::meeting(seed);
        let meets = plan.meets.map(|meets| taken(meets, &mut Prng::new(seed)));
        Self { meets, ..plan }
    }

    /// Clusters that have been founded apart from each other, and meet, again and again.
    pub(crate) fn meeting(seed: u64) -> Self {
        let plan = Self::mixed(seed);
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
            taken: false,
            cuts: false,
            commit: millis(prng, 5, 3000),
            apply: millis(prng, 20, 2000),
        };
        let orders = prng.one_in(4);
        let users_gap = if orders { Some(millis(prng, 500, 4000)) } else { meets.users_gap };
        // Drawn beside the rest, which stays what it is.
        let mut beside = Prng::new(seed ^ 0x6a74_0005);
        let meets = Meets { users_gap, orders, ..meets };
        let meets = if beside.one_in(4) { taken(meets, &mut beside) } else { meets };
        let fault_gap = prng.one_in(4).then(|| millis(prng, 500, 15_000));
        let hosts = plan.hosts.max(3);
        let is_mixed = !meets.taken && beside.one_in(4);
        let mut understands = |_| {
            let is_older = is_mixed && beside.one_in(3);
            if is_older { CommandVersion::FIRST } else { CommandVersion::understood() }
        };
        Self {
            understands: (0..hosts).map(&mut understands).collect(),
            kind: if prng.one_in(8) { Kind::Chaos } else { Kind::Halves },
            hosts,
            enters: vec![Enters::Plain; hosts],
            power: (0..hosts).map(|_| (millis(prng, 0, 12_000), millis(prng, 0, 1500))).collect(),
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

//! `kill -9` at seeded points of a storm of alerts, on one process with SQLite and on three replicas with PostgreSQL. The sender
//! keeps the ledger: what it was told 200 for has its incident and its messages, no step that must not be repeated is done
//! twice, and a kill doubles one message in a channel at most.
//!
//! `make test` runs a short form, `make chaos` the long one. `KILLS` says how many points there are, `KILLS_SEED` which ones.

mod check;
mod house;
mod sender;

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::peers::Postgres;
use house::House;
use sender::Storm;

/// What one storm is made of; the same seed, the same plan.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub kills: usize,
    /// All different.
    pub alerts: usize,
    /// Each with an incident of its own. Those with odd numbers recover.
    pub services: usize,
}

/// Alerts of one service, at least.
const OF_ONE: usize = 5;
/// The long form has so many alerts, however many kills.
const STORM: usize = 2000;
/// Every so many kills, so many alerts: the storm lasts as long as the killing.
const FOR_EACH_KILL: usize = 10;
/// Two services in so many are critical, and every channel hears of them.
const CRITICAL: usize = 16;

impl Plan {
    fn from_environment(salt: u64) -> Self {
        let number = |name: &str, usual: u64| {
            std::env::var(name).map_or(usual, |v| v.parse().unwrap_or_else(|e| panic!("{name}={v}: {e}")))
        };
        let kills = usize::try_from(number("KILLS", 20)).expect("a reasonable number");
        let alerts = (kills * FOR_EACH_KILL).clamp(OF_ONE, STORM);
        Self { seed: number("KILLS_SEED", 1) ^ salt, kills, alerts, services: alerts / OF_ONE }
    }

    pub fn recovers(service: usize) -> bool {
        service % 2 == 1
    }
    pub fn is_critical(service: usize) -> bool {
        service % CRITICAL < 2
    }
}

/// When a process was killed: it was alive before the first time, and gone after the second.
pub type Kill = (SystemTime, SystemTime);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_a_storm_lose_nothing_and_repeat_nothing_on_sqlite() {
    soak(Plan::from_environment(0), 1, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_a_storm_lose_nothing_and_repeat_nothing_on_three_replicas() {
    let url = Postgres::database().await;
    soak(Plan::from_environment(1 << 32), 3, Some(url)).await;
}

async fn soak(plan: Plan, replicas: usize, url: Option<String>) {
    println!(
        "{plan:?}, replicas: {replicas}; again: KILLS={} KILLS_SEED={}",
        plan.kills,
        plan.seed & 0xffff_ffff
    );
    let begun = SystemTime::now();
    let mut house = House::build(&plan, replicas, url).await;
    let (progress, follow) = watch::channel(0);
    let mut storm = Storm::begin(&plan, house.doors(), follow);
    let kills = kill_again_and_again(&mut house, &plan, &progress).await;
    for replica in &mut house.replicas {
        replica.child.wait_ready().await;
    }
    let ledger = storm.ends().await;
    house.settles(&plan).await;
    check::all(&mut house, &plan, &ledger, &kills).await;
    println!("it took {:?}", begun.elapsed().unwrap_or_default());
}

/// Kills one, sometimes two, after a while that is sometimes too short for it to have started at all.
async fn kill_again_and_again(house: &mut House, plan: &Plan, progress: &watch::Sender<usize>) -> Vec<Kill> {
    let mut random = Random(plan.seed);
    let mut kills = Vec::new();
    let count = house.replicas.len();
    // A machine that needs long for a start needs long for everything: there it lives longer, too.
    let mut longest = Duration::from_secs(1);
    while kills.len() < plan.kills {
        tokio::time::sleep(longest.mul_f64(random.below(1000) as f64 / 1000.0)).await;
        let first = random.below(count as u64) as usize;
        let both = count > 1 && random.below(8) == 0;
        for victim in [first, (first + 1) % count].into_iter().take(1 + usize::from(both)) {
            let child = &mut house.replicas[victim].child;
            assert!(!child.has_ended(), "{plan:?}: it ended by itself\n{}", child.log());
            let before = SystemTime::now();
            child.kill();
            kills.push((before, SystemTime::now()));
            child.start_again();
        }
        if count == 1 && random.below(4) > 0 {
            let begun = Instant::now();
            house.replicas[0].child.wait_ready().await;
            longest = (begun.elapsed() * 3).max(Duration::from_secs(1));
        }
        progress.send_replace(kills.len());
    }
    kills
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same storm.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

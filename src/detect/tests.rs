//! The detectors in simulated time: deterministic, seeded, no sleeping.

use jiff::Timestamp;

use super::{partition::Partition, templates::mix};
use crate::{
    bus::Record,
    config::Detect,
    model::{AnomalyEvent, AnomalyKind, Coverage, Gap, LogLevel, LogRecord, Sample, TraceSpan},
};

struct Sim {
    partition: Partition,
    /// Milliseconds since the beginning.
    now: i64,
    seed: u64,
    events: Vec<AnomalyEvent>,
}

impl Sim {
    fn new(settings: &Detect) -> Self {
        Self { partition: Partition::new(settings, 1), now: 0, seed: 7, events: Vec::new() }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_255_200_000 + ms).expect("in range")
    }

    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((mix(self.seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A Poisson count (Knuth).
    fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }

    fn log(&mut self, level: LogLevel, message: &str) {
        self.log_at(self.now, level, message);
    }

    fn log_at(&mut self, at: i64, level: LogLevel, message: &str) {
        let record = LogRecord {
            at: Self::at(at),
            service: "shop".into(),
            host: "h1".into(),
            level,
            message: message.into(),
            trace_id: None,
        };
        self.partition.record(&Record::Log(record), Self::at(self.now), &mut self.events);
    }

    fn sample(&mut self, name: &str, value: f64) {
        self.sample_of("shop", name, value);
    }

    fn sample_of(&mut self, service: &str, name: &str, value: f64) {
        let sample = Sample {
            at: Self::at(self.now),
            name: name.into(),
            service: service.into(),
            labels: [].into(),
            value,
        };
        self.partition.record(&Record::Sample(sample), Self::at(self.now), &mut self.events);
    }

    /// Lets `seconds` pass in tenths; `each` is called at every tenth with its number.
    fn run(&mut self, seconds: i64, mut each: impl FnMut(&mut Self, i64)) {
        for tenth in 0..seconds * 10 {
            each(self, tenth);
            if tenth % 5 == 0 {
                self.partition.tick(Self::at(self.now), &mut self.events);
            }
            self.now += 100;
        }
    }

    fn onsets(&self, kind: AnomalyKind) -> Vec<&AnomalyEvent> {
        self.events.iter().filter(|e| e.kind == kind && e.ended_at.is_none()).collect()
    }

    fn ends(&self, kind: AnomalyKind) -> Vec<&AnomalyEvent> {
        self.events.iter().filter(|e| e.kind == kind && e.ended_at.is_some()).collect()
    }

    fn unknown(&self) -> Option<String> {
        let now = Self::at(self.now);
        match self.partition.recent("shop", Self::at(0), now, now).coverage {
            Coverage::Known => None,
            Coverage::Unknown { reason } => Some(reason.to_string()),
        }
    }
}

/// Ten lines a second of ordinary business.
fn business(sim: &mut Sim, tenth: i64) {
    let name = ["ann", "bob", "carol", "dave", "erin"][tenth as usize % 5];
    match tenth % 3 {
        0 => sim.log(LogLevel::Info, &format!("GET /items/{tenth} 200 in {}ms", tenth % 40)),
        1 => sim.log(LogLevel::Info, &format!("user {name} put item {tenth} into the cart")),
        _ => sim.log(LogLevel::Info, "cache refreshed"),
    }
}

#[test]
fn unseen_error_is_new_and_a_burst_within_three_seconds() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(12, business);
    assert_eq!(sim.events, [], "nothing to tell while all is well");
    let began = sim.now;
    sim.run(3, |sim, tenth| {
        business(sim, tenth);
        if tenth % 2 == 0 {
            sim.log(LogLevel::Error, &format!("connection refused to 10.0.0.{tenth}:5432"));
        }
    });
    let novelty = sim.onsets(AnomalyKind::LogNovelty);
    assert_eq!(novelty.len(), 1);
    assert_eq!(novelty[0].title, "New error: `connection refused to <*>`, never seen in 12s of shop's logs");
    assert_eq!(novelty[0].detail["sample"], "connection refused to 10.0.0.0:5432");
    let burst = sim.onsets(AnomalyKind::LogBurst);
    assert_eq!(burst.len(), 1, "{:?}", sim.events);
    assert!(burst[0].title.starts_with("`connection refused to <*>`: "), "{}", burst[0].title);
    assert!(burst[0].started_at >= Sim::at(began - 3000));
    sim.run(90, business);
    assert_eq!(sim.ends(AnomalyKind::LogNovelty).len(), 1);
    assert_eq!(sim.ends(AnomalyKind::LogBurst).len(), 1);
    assert_eq!(sim.ends(AnomalyKind::LogBurst)[0].detail["ended"], "back to the usual rate");
}

#[test]
fn errors_while_warming_up_teach_and_the_source_says_so() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(5, |sim, _| sim.log(LogLevel::Error, "cannot reach the mail server"));
    assert_eq!(sim.unknown().as_deref(), Some("its logs are known for 5 s only; still learning"));
    sim.run(60, |sim, _| sim.log(LogLevel::Error, "cannot reach the mail server"));
    assert_eq!((sim.events.len(), sim.unknown()), (0, None));
}

#[test]
fn known_warning_that_multiplies_is_a_burst_with_its_usual_range() {
    let mut sim = Sim::new(&Detect::default());
    let slow = |sim: &mut Sim, mean: f64| {
        for i in 0..sim.poisson(mean) {
            sim.log(LogLevel::Warn, &format!("slow query took {i}7 ms"));
        }
    };
    sim.run(600, |sim, tenth| {
        business(sim, tenth);
        slow(sim, 0.01);
    });
    assert_eq!(sim.events, []);
    sim.run(5, |sim, _| slow(sim, 2.0));
    let onsets = sim.onsets(AnomalyKind::LogBurst);
    assert_eq!(onsets.len(), 1);
    let title = &onsets[0].title;
    assert!(title.starts_with("`slow query took <*>`: ") && title.ends_with("s, usually 0–1"), "{title}");
}

#[test]
fn an_hour_away_is_no_anomaly_and_what_was_usual_before_still_is() {
    let settings = Detect::default();
    let mut sim = Sim::new(&settings);
    let usual = |sim: &mut Sim, tenth: i64| {
        business(sim, tenth);
        if tenth % 50 == 0 {
            sim.log(LogLevel::Info, "scheduler heartbeat ok");
        }
        if tenth % 100 == 0 {
            let latency = 0.2 + 0.01 * sim.normal();
            sim.sample("latency_seconds", latency);
        }
        if tenth % 1000 == 0 {
            sim.log(LogLevel::Warn, "slow query took 17 ms");
        }
    };
    sim.run(3600, usual);
    let (since, saved) = (Sim::at(sim.now), sim.partition.save().expect("packed"));
    sim.now += 3_600_000;
    sim.partition = Partition::restore(&saved, &settings, 1).expect("unpacked");
    sim.partition.resume(since, Sim::at(sim.now));
    assert!(sim.unknown().is_some_and(|why| why.contains("aiops was restarted")), "{:?}", sim.unknown());
    sim.run(300, usual);
    assert_eq!(sim.events, []);
    sim.run(5, |sim, _| sim.log(LogLevel::Warn, "slow query took 17 ms"));
    let onsets = sim.onsets(AnomalyKind::LogBurst);
    assert_eq!(onsets.len(), 1, "{:?}", sim.events);
    let title = &onsets[0].title;
    assert!(title.starts_with("`slow query took <*>`: ") && title.ends_with("s, usually 0–1"), "{title}");
}

#[test]
fn burst_that_lasts_becomes_usual() {
    let settings = Detect { adapt_after: std::time::Duration::from_secs(120), ..Detect::default() };
    let mut sim = Sim::new(&settings);
    sim.run(60, |sim, tenth| {
        if tenth % 10 == 0 {
            sim.log(LogLevel::Warn, "queue is long");
        }
    });
    sim.run(400, |sim, _| sim.log(LogLevel::Warn, "queue is long"));
    assert_eq!(sim.onsets(AnomalyKind::LogBurst).len(), 1);
    assert_eq!(sim.ends(AnomalyKind::LogBurst)[0].detail["ended"], "this rate is usual now");
}

#[test]
fn heartbeat_that_stops_is_silence_only_while_its_source_goes_on() {
    let mut sim = Sim::new(&Detect::default());
    let beat = |sim: &mut Sim, tenth: i64| {
        business(sim, tenth);
        if tenth % 50 == 0 {
            sim.log(LogLevel::Info, "scheduler heartbeat ok");
        }
    };
    sim.run(120, beat);
    assert_eq!(sim.events, []);
    sim.run(60, business);
    let onsets = sim.onsets(AnomalyKind::LogSilence);
    assert_eq!(onsets.len(), 1);
    assert!(onsets[0].title.starts_with("`scheduler heartbeat ok`: silent for "), "{}", onsets[0].title);
    assert!(onsets[0].title.ends_with(" s, usually every 5.0 s"), "{}", onsets[0].title);
    sim.run(10, beat);
    assert_eq!(sim.ends(AnomalyKind::LogSilence)[0].detail["ended"], "it is back");
}

#[test]
fn source_that_stops_is_unknown_and_no_anomaly() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(120, business);
    assert_eq!(sim.unknown(), None);
    sim.run(300, |_, _| {});
    assert_eq!(sim.events, [], "nobody knows");
    assert_eq!(
        sim.unknown().as_deref(),
        Some("no log line for 300 s; it never was silent for more than 1 s")
    );
    sim.run(60, business);
    assert_eq!(sim.events, [], "the hole teaches nothing");
    let (from, now) = (Sim::at(sim.now - 30_000), Sim::at(sim.now));
    assert_eq!(sim.partition.recent("shop", from, now, now).coverage, Coverage::Known);
    let told = sim.unknown().expect("the longer window has a hole");
    assert_eq!(told, "no log line between 2026-11-21T10:01:59.9Z and 2026-11-21T10:07:00Z");
}

#[test]
fn shipper_that_sends_every_five_seconds_causes_nothing() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(600, |sim, tenth| {
        if tenth % 50 == 49 {
            for back in (0..50).rev() {
                sim.log_at(sim.now - back * 100, LogLevel::Info, "GET /health 200");
                if back % 10 == 0 {
                    sim.log_at(sim.now - back * 100, LogLevel::Warn, "retrying soon");
                }
            }
        }
    });
    assert_eq!((sim.events.len(), sim.unknown()), (0, None));
}

/// Errors of a dozen statements, one of them at a time.
fn error(sim: &mut Sim, i: usize) {
    let lines = [
        "cannot load the cart",
        "payment gateway said no: card expired",
        "mail to the customer bounced",
        "stock of the item is negative, correcting it",
        "image resize failed: out of memory",
        "session token is malformed",
        "coupon service returned garbage",
        "search index is out of date by far too much",
        "label printer is offline again",
        "tax table has no entry",
        "address lookup timed out",
        "webhook of the shipper was refused",
    ];
    sim.log(LogLevel::Error, lines[i % lines.len()]);
}

#[test]
fn errors_of_many_statements_are_told_once_as_a_share_of_all_lines() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(9, |sim, tenth| {
        business(sim, tenth);
        if tenth % 7 == 0 {
            error(sim, tenth as usize / 7);
        }
    });
    let now_and_then = |sim: &mut Sim, tenth: i64| {
        business(sim, tenth);
        if tenth % 50 == 0 {
            error(sim, tenth as usize / 50);
        }
    };
    sim.run(900, now_and_then);
    assert_eq!(sim.events, [], "a few errors are usual");
    sim.run(15, |sim, tenth| {
        business(sim, tenth);
        if tenth % 3 == 0 {
            error(sim, tenth as usize / 3);
        }
    });
    let onsets = sim.onsets(AnomalyKind::LogErrors);
    assert_eq!((onsets.len(), sim.onsets(AnomalyKind::LogBurst).len()), (1, 0), "{:?}", sim.events);
    let title = &onsets[0].title.to_string();
    assert!(title.contains("% of shop's ") && title.contains(" in 10 s are errors, usually 0–"), "{title}");
    assert!(!onsets[0].detail["sample"].as_str().expect("a line").is_empty());
    sim.run(60, now_and_then);
    assert_eq!(sim.ends(AnomalyKind::LogErrors)[0].detail["ended"], "back to the usual share");
}

#[test]
fn durations_that_grow_tenfold_are_told_with_what_is_usual() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(600, business);
    assert_eq!(sim.events, []);
    sim.run(45, |sim, tenth| {
        sim.log(LogLevel::Info, &format!("GET /items/{tenth} 200 in {}ms", 400 + tenth))
    });
    let onsets = sim.onsets(AnomalyKind::LogValues);
    assert_eq!(onsets.len(), 1, "{:?}", sim.events);
    let title = &onsets[0].title.to_string();
    assert!(
        title.starts_with("`GET <*> in <*>`: value 2 is mostly 380–") && title.contains(", usually "),
        "{title}"
    );
    assert!(onsets[0].detail["sample"].as_str().expect("a line").contains(" in 4"), "{:?}", onsets[0].detail);
    sim.run(30, business);
    assert_eq!(sim.ends(AnomalyKind::LogValues)[0].detail["ended"], "back to the usual values");
}

#[test]
fn identifiers_that_only_grow_are_no_change_of_values() {
    let mut sim = Sim::new(&Detect::default());
    let mut id = 1.0_f64;
    sim.run(1200, |sim, tenth| {
        id += 1.0 + id / 2000.0;
        business(sim, tenth);
        sim.log(LogLevel::Info, &format!("order {} is stored", id as u64));
    });
    assert_eq!(sim.events, [], "the last id was {id}");
}

#[test]
fn what_bursts_every_night_is_usual_at_that_hour() {
    let mut sim = Sim::new(&Detect::default());
    let hour = 3_600_000;
    let night = |sim: &mut Sim, export: bool| {
        sim.run(300, |sim, tenth| {
            if tenth % 10 == 0 {
                business(sim, tenth);
            }
            if export && (2000..2040).contains(&tenth) {
                sim.log(LogLevel::Warn, &format!("export is slow: row {tenth}"));
            }
        });
        std::mem::take(&mut sim.events).iter().filter(|e| e.kind == AnomalyKind::LogBurst).count()
    };
    let mut bursts = Vec::new();
    for _ in 0..4 {
        bursts.push(night(&mut sim, true));
        sim.now += 2 * hour - 300_000;
        night(&mut sim, false);
        sim.now += 22 * hour - 300_000;
    }
    assert_eq!(bursts, [2, 2, 0, 0], "an onset and an end on the first two days");
}

#[test]
fn what_bursts_every_monday_is_usual_on_mondays_and_more_is_not() {
    let mut sim = Sim::new(&Detect::default());
    let day = |sim: &mut Sim, seconds: i64, rows: i64| {
        let morning = sim.now;
        sim.run(seconds, |sim, tenth| {
            if tenth % 10 == 0 {
                business(sim, tenth);
            }
            if (2000..2000 + rows).contains(&tenth) {
                sim.log(LogLevel::Warn, &format!("report is slow: row {tenth}"));
            }
        });
        sim.now = morning + 86_400_000;
        let told = std::mem::take(&mut sim.events);
        told.iter().filter(|e| e.kind == AnomalyKind::LogBurst && e.ended_at.is_none()).count()
    };
    let mut onsets = Vec::new();
    // What is usual of the hour that was watched last must have forgotten the Monday before.
    for (rows, rest) in [(40, 1200), (40, 1200), (40, 1200), (40, 6000), (400, 60)] {
        onsets.push(day(&mut sim, 300, rows));
        assert_eq!((1..7).map(|_| day(&mut sim, rest, 0)).sum::<usize>(), 0);
    }
    assert_eq!(
        onsets,
        [1, 1, 0, 0, 1],
        "what came on two Mondays is usual on the third, but not ten times as much"
    );
}

#[test]
fn a_heartbeat_of_weekdays_is_missed_on_weekdays() {
    let mut sim = Sim::new(&Detect::default());
    let mut onsets = Vec::new();
    for day in 0..33 {
        sim.now = day * 86_400_000;
        let beats = day % 7 < 5 && day != 28;
        for second in 0..3 * 3600 {
            if second % 4 == 0 {
                sim.log(LogLevel::Info, "cache refreshed");
            }
            if second % 10 == 0 && beats {
                sim.log(LogLevel::Info, "scheduler heartbeat ok");
            }
            sim.now += 1000;
            if second % 4 == 0 {
                sim.partition.tick(Sim::at(sim.now), &mut sim.events);
            }
        }
        let told = std::mem::take(&mut sim.events);
        if told.iter().any(|e| e.kind == AnomalyKind::LogSilence && e.ended_at.is_none()) {
            onsets.push(day);
        }
    }
    // Nobody knows of weekends before two have passed. The fifth Monday is really quiet.
    assert_eq!(onsets, [5, 12, 28]);
}

#[test]
fn stationary_logs_stay_within_the_false_alarm_budget() {
    // This seed had false silences and bursts before the uncertainty of few gaps and clumps was counted in.
    let mut sim = Sim { seed: 3 * 7919, ..Sim::new(&Detect::default()) };
    let levels = [LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let names = ["alpha", "beta", "gamma", "delta", "eta", "iota", "kappa", "mu", "nu", "xi", "pi", "rho"];
    for _ in 0..3 * 3600 {
        for (i, name) in names.iter().enumerate() {
            // From one line in 20 minutes to three a second; every third template comes in clumps.
            let mean = 3.0 / 1.9_f64.powi(i as i32);
            let count = if i % 3 == 2 { sim.poisson(mean / 4.0) * 4 } else { sim.poisson(mean) };
            for _ in 0..count {
                sim.log(levels[i % 3], &format!("{name} {name} did its thing in {count} ms"));
            }
        }
        sim.now += 1000;
        sim.partition.tick(Sim::at(sim.now), &mut sim.events);
    }
    // Errors rarer than the warm-up are honestly new when they first come, once.
    let unexpected: Vec<_> = sim
        .events
        .iter()
        .filter(|e| e.ended_at.is_none() && e.kind != AnomalyKind::LogNovelty)
        .map(|e| &e.title)
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(sim.onsets(AnomalyKind::LogNovelty).len() <= 4);
}

#[test]
fn metric_shift_is_found_within_three_samples_of_twelve() {
    let mut sim = Sim::new(&Detect::default());
    let seconds = |sim: &mut Sim, count: i64, level: f64| {
        sim.run(count, |sim, tenth| {
            if tenth % 10 == 0 {
                let value = level * (1.0 + 0.05 * sim.normal());
                sim.sample("latency_seconds", value);
            }
        });
    };
    seconds(&mut sim, 12, 0.1);
    assert_eq!(sim.events, []);
    seconds(&mut sim, 3, 2.0);
    let onset = sim.onsets(AnomalyKind::Metric)[0];
    assert!(onset.title.starts_with("`latency_seconds` is "), "{}", onset.title);
    assert!(onset.title.contains(", usually 0.0"), "{}", onset.title);
    assert_eq!(
        (onset.detail["direction"].as_str(), onset.detail["reason"].as_str()),
        (Some("up"), Some("left its range"))
    );
    seconds(&mut sim, 10, 0.1);
    assert_eq!(sim.ends(AnomalyKind::Metric)[0].detail["ended"], "back in its range");
}

#[test]
fn noise_stays_within_the_false_alarm_budget() {
    let mut sim = Sim::new(&Detect::default());
    let mut drift = 0.0;
    for second in 0..6 * 3600 {
        let noise = sim.normal();
        drift = 0.9 * drift + noise;
        let requests = f64::from(sim.poisson(3.0));
        sim.sample("normal", 100.0 + 5.0 * noise);
        sim.sample("heavy", noise.exp());
        sim.sample("slow", 50.0 + drift);
        sim.sample("count", requests);
        sim.sample("constant", 4.0);
        sim.sample("wave", (f64::from(second) / 300.0).sin() + 0.05 * noise);
        sim.now += 1000;
    }
    let titles: Vec<_> = sim.onsets(AnomalyKind::Metric).iter().map(|e| e.title.clone()).collect();
    // The budget is one a day for the service; a quarter of a day has one at most.
    assert!(titles.len() <= 1, "{titles:?}");
}

#[test]
fn constants_spikes_and_few_points() {
    let mut sim = Sim::new(&Detect::default());
    let feed = |sim: &mut Sim, name: &str, values: &[f64]| {
        for value in values {
            sim.sample(name, *value);
            sim.now += 1000;
        }
    };
    feed(&mut sim, "few", &[1.0, 900.0, 1.0, 900.0]);
    feed(&mut sim, "young", &[1.0; 40]);
    feed(&mut sim, "young", &[0.0, 1.0]);
    feed(&mut sim, "up", &[1.0; 300]);
    feed(&mut sim, "up", &[0.0, 1.0]);
    assert_eq!(sim.events, [], "one odd value of a constant proves nothing");
    feed(&mut sim, "up", &[1.0; 100]);
    feed(&mut sim, "up", &[0.0; 6]);
    assert_eq!(sim.events[0].title, "`up` is 0, always 1");
    feed(&mut sim, "flag", &[7.0; 20]);
    feed(&mut sim, "flag", &[8.0, 8.0]);
    assert_eq!(sim.events[1].title, "`flag` is 8, always 7");
    let wave: Vec<f64> = (0..120).map(|i| f64::from(i % 7)).collect();
    feed(&mut sim, "queue", &wave);
    feed(&mut sim, "queue", &[500.0]);
    let title = &sim.events.last().expect("the spike").title;
    assert!(title.starts_with("`queue` is 500, usually "), "{title}");
}

#[test]
fn series_that_are_gone_make_room_for_others() {
    let mut sim = Sim::new(&Detect { max_series: 3, ..Detect::default() });
    let feed = |sim: &mut Sim, pods: std::ops::Range<i64>| {
        for pod in pods {
            sim.sample(&format!("pod_{pod}"), 1.0);
        }
    };
    feed(&mut sim, 0..4);
    assert!(sim.unknown().is_some_and(|told| told.contains("detect.max_series")), "{:?}", sim.unknown());
    sim.now += 3_700_000;
    feed(&mut sim, 4..7);
    let now = Sim::at(sim.now);
    let names = sim.partition.recent("shop", Sim::at(sim.now - 1000), Sim::at(sim.now + 1), now).series;
    assert_eq!(names.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["pod_4", "pod_5", "pod_6"]);
}

#[test]
fn all_series_together_have_a_bound() {
    let mut sim = Sim::new(&Detect { max_all_series: 5, ..Detect::default() });
    let feed = |sim: &mut Sim, services: std::ops::Range<i64>| {
        services.for_each(|service| sim.sample_of(&format!("service-{service}"), "up", 1.0));
    };
    let watched = |sim: &Sim, service: i64| {
        let (from, now) = (Sim::at(sim.now - 1000), Sim::at(sim.now));
        !sim.partition
            .recent(&format!("service-{service}"), from, Sim::at(sim.now + 1), now)
            .series
            .is_empty()
    };
    feed(&mut sim, 0..10);
    assert_eq!(sim.partition.sizes(Sim::at(sim.now))[2], 5);
    sim.now += 1_800_000;
    feed(&mut sim, 3..5);
    sim.now += 1_900_000;
    feed(&mut sim, 20..30);
    assert_eq!(sim.partition.sizes(Sim::at(sim.now))[2], 5);
    assert!((20..23).all(|s| watched(&sim, s)), "what other services sent long ago makes room");
    sim.now += 1000;
    feed(&mut sim, 3..5);
    assert!((3..5).all(|s| watched(&sim, s)), "what is not silent for so long does not");
}

#[test]
fn what_makes_room_leaves_nothing_open() {
    let mut sim = Sim::new(&Detect { max_services: 1, ..Detect::default() });
    let calm = |sim: &mut Sim, seconds: i64, level: f64| {
        sim.run(seconds, |sim, tenth| {
            business(sim, tenth);
            if tenth % 10 == 0 {
                sim.sample("latency_seconds", level);
            }
        });
    };
    calm(&mut sim, 60, 0.1);
    calm(&mut sim, 3, 9.0);
    sim.run(5, |sim, tenth| {
        business(sim, tenth);
        sim.log(LogLevel::Error, "connection refused");
    });
    let kinds = [AnomalyKind::Metric, AnomalyKind::LogNovelty, AnomalyKind::LogBurst];
    assert!(kinds.iter().all(|kind| sim.onsets(*kind).len() == 1), "{:?}", sim.events);
    sim.now += 700_000;
    sim.sample_of("other", "up", 1.0);
    assert!(kinds.iter().all(|kind| sim.ends(*kind).len() == 1), "{:?}", sim.events);
    let why = sim.ends(AnomalyKind::Metric)[0].detail["ended"].as_str();
    assert!(why.is_some_and(|why| why.contains("made room")), "{why:?}");
}

#[test]
fn counters_are_rates_and_a_restart_is_no_anomaly() {
    let mut sim = Sim::new(&Detect::default());
    let mut total = 5000.0;
    for second in 0..300 {
        let rise = f64::from(sim.poisson(20.0));
        total = if second == 150 { 3.0 } else { total + rise };
        sim.sample("requests_total", total);
        sim.now += 1000;
    }
    assert_eq!(sim.events, []);
    for _ in 0..5 {
        total += 400.0;
        sim.sample("requests_total", total);
        sim.now += 1000;
    }
    assert!(
        sim.events[0].title.starts_with("`requests_total` is 400/s, usually "),
        "{}",
        sim.events[0].title
    );
}

#[test]
fn a_gauge_with_a_counters_name_and_a_wrong_clock_do_not_blind_a_series() {
    let mut sim = Sim::new(&Detect::default());
    for second in 0..200 {
        sim.sample("jobs_count", f64::from(20 + second % 7));
        sim.now += 1000;
    }
    let range = |sim: &Sim| {
        let now = Sim::at(sim.now);
        sim.partition.recent("shop", Sim::at(0), now, now).series[0].usual
    };
    let (low, high) = range(&sim).expect("learned");
    assert!((15.0..21.0).contains(&low) && (25.0..31.0).contains(&high), "not a rate: {low} to {high}");
    let sample = Sample {
        at: Sim::at(sim.now + 540_000),
        name: "jobs_count".into(),
        service: "shop".into(),
        labels: [].into(),
        value: 23.0,
    };
    sim.partition.record(&Record::Sample(sample), Sim::at(sim.now), &mut sim.events);
    for _ in 0..10 {
        sim.sample("jobs_count", 400.0);
        sim.now += 1000;
    }
    assert_eq!(sim.onsets(AnomalyKind::Metric).len(), 1);
}

#[test]
fn a_counter_that_begins_anew_every_day_stays_one() {
    let mut sim = Sim::new(&Detect::default());
    let mut total = 0.0;
    for minute in 0..20 * 1440 {
        total = if minute % 1440 == 700 { 0.0 } else { total + f64::from(sim.poisson(20.0)) };
        if minute % 10 == 0 {
            sim.sample("requests_total", total);
        }
        sim.now += 60_000;
    }
    let now = Sim::at(sim.now);
    let (_, high) = sim.partition.recent("shop", Sim::at(0), now, now).series[0].usual.expect("learned");
    assert!(high < 1.0, "a rate, not {high}");
}

#[test]
fn what_was_told_of_a_counter_that_is_none_is_over() {
    let mut sim = Sim::new(&Detect::default());
    let feed = |sim: &mut Sim, value: i64| {
        sim.sample("jobs_count", value as f64);
        sim.now += 1000;
    };
    (0..40).for_each(|value| feed(&mut sim, value));
    (0..3).for_each(|step| feed(&mut sim, 1000 + step * 1000));
    assert_eq!(sim.onsets(AnomalyKind::Metric).len(), 1, "{:?}", sim.events);
    (0..40).for_each(|step| feed(&mut sim, 3000 - step));
    assert_eq!(sim.ends(AnomalyKind::Metric).len(), 1, "{:?}", sim.events);
}

#[test]
fn secrets_are_masked_in_what_people_read() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(12, business);
    sim.run(3, |sim, _| sim.log(LogLevel::Error, "login failed, password=hunter2"));
    let text = serde_json::to_string(&sim.events).expect("JSON");
    assert!(!sim.events.is_empty() && !text.contains("hunter2"), "{text}");
}

#[test]
fn missing_samples_and_unanswered_questions_are_unknown() {
    let mut sim = Sim::new(&Detect::default());
    for _ in 0..60 {
        sim.sample("latency", 1.0);
        sim.now += 1000;
    }
    assert_eq!(sim.unknown(), None);
    let gap = |sim: &mut Sim, reason: Option<&str>| {
        let gap = Gap {
            until: None,
            at: Sim::at(sim.now),
            service: Some("shop".into()),
            source: "watch p99".into(),
            reason: reason.map(Into::into),
        };
        sim.partition.record(&Record::Gap(gap), Sim::at(sim.now), &mut Vec::new());
    };
    gap(&mut sim, Some("timed out"));
    assert_eq!(sim.unknown().as_deref(), Some("watch p99 since 2026-11-21T10:01:00Z: timed out"));
    gap(&mut sim, None);
    assert_eq!(sim.unknown(), None);
    sim.now += 60_000;
    assert_eq!(sim.unknown().as_deref(), Some("no sample of latency since 2026-11-21T10:00:59Z"));
    assert_eq!(sim.events, []);
    let nobody = sim.partition.recent("nobody", Sim::at(0), Sim::at(1), Sim::at(1));
    assert!(matches!(nobody.coverage, Coverage::Unknown { .. }));
}

#[test]
fn a_service_that_is_only_missed_makes_room_for_one_that_is_there() {
    let mut sim = Sim::new(&Detect { max_services: 2, ..Detect::default() });
    let missed = |sim: &mut Sim, service: &str| {
        let gap = Gap {
            until: None,
            at: Sim::at(sim.now),
            service: Some(service.into()),
            source: "watch p99".into(),
            reason: Some("the answer has no series of it".into()),
        };
        sim.partition.record(&Record::Gap(gap), Sim::at(sim.now), &mut Vec::new());
    };
    sim.sample_of("gone", "up", 1.0);
    for _ in 0..100 {
        sim.sample_of("there", "up", 1.0);
        missed(&mut sim, "gone");
        missed(&mut sim, "never seen");
        sim.now += 15_000;
    }
    sim.sample_of("new", "up", 1.0);
    let now = Sim::at(sim.now);
    for service in ["there", "new"] {
        assert!(
            !sim.partition.recent(service, Sim::at(0), Sim::at(sim.now + 1), now).series.is_empty(),
            "{service}"
        );
    }
    missed(&mut sim, "gone");
    assert_eq!(sim.partition.sizes(now)[0], 2, "what is missed takes no room from what is there");
}

#[test]
fn memory_is_bounded_and_what_is_dropped_is_told() {
    let settings = Detect { max_services: 2, max_series: 3, max_templates: 10, ..Detect::default() };
    let mut sim = Sim::new(&settings);
    for i in 0..10 {
        sim.sample(&format!("series_{i}"), 1.0);
        let record = Record::Sample(Sample {
            at: Sim::at(sim.now),
            name: "up".into(),
            service: format!("service-{i}"),
            labels: [].into(),
            value: 1.0,
        });
        sim.partition.record(&record, Sim::at(sim.now), &mut sim.events);
    }
    for i in 0..2000_u32 {
        let word: String = i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        sim.log(LogLevel::Error, &format!("{word} {}", "x ".repeat(i as usize % 40)));
    }
    let [services, templates, series, _] = sim.partition.sizes(Sim::at(sim.now));
    assert!(services <= 2 && templates <= 10 && series <= 4, "{services} {templates} {series}");
    sim.now += 20_000;
    let unknown = sim.unknown().expect("it says what is missing");
    assert!(unknown.contains("no log line") || unknown.contains("max_series"), "{unknown}");
}

#[test]
fn evidence_shows_templates_errors_and_series_of_the_window() {
    let mut sim = Sim::new(&Detect::default());
    sim.run(120, |sim, tenth| {
        business(sim, tenth);
        if tenth % 10 == 0 {
            sim.sample("latency", 1.0);
        }
    });
    sim.log(LogLevel::Error, "payment declined for order 17");
    let recent = sim.partition.recent("shop", Sim::at(60_000), Sim::at(sim.now + 1), Sim::at(sim.now));
    assert_eq!(recent.coverage, Coverage::Known);
    assert_eq!(recent.templates[0].template, "payment declined for order <*>", "the serious ones come first");
    let items = recent.templates.iter().find(|t| t.template == "GET <*> in <*>").expect("it was busy");
    assert_eq!(items.count, 200);
    assert!((items.usual.expect("learned") - 200.0).abs() < 20.0, "{items:?}");
    assert_eq!(recent.errors.len(), 1);
    assert_eq!((recent.series[0].count, recent.series[0].usual), (60, Some((1.0, 1.0))));
    sim.log(LogLevel::Error, &format!("dump: {}", "я".repeat(30_000)));
    let recent = sim.partition.recent("shop", Sim::at(60_000), Sim::at(sim.now + 1), Sim::at(sim.now));
    assert_eq!(recent.errors[1].message.len(), 4096, "all that is kept together has a bound");
}

#[test]
fn a_clock_set_back_makes_nothing_late_for_an_hour() {
    let mut sim = Sim::new(&Detect::default());
    sim.now = 7_200_000;
    sim.run(30, business);
    sim.now -= 3_600_000;
    sim.run(30, business);
    assert_eq!(sim.unknown(), None, "it is heard and learned anew");
    let from = Sim::at(sim.now - 20_000);
    let recent = sim.partition.recent("shop", from, Sim::at(sim.now), Sim::at(sim.now));
    assert!(recent.templates.iter().all(|t| t.last_seen_at <= Sim::at(sim.now)), "{:?}", recent.templates);
    assert!(recent.templates.iter().any(|t| t.count > 50), "{:?}", recent.templates);
}

#[test]
fn a_clock_set_back_makes_no_span_late() {
    let mut sim = Sim::new(&Detect::default());
    let span = |sim: &mut Sim, trace: u64| {
        let span = TraceSpan {
            at: Sim::at(sim.now),
            service: "shop".into(),
            operation: "GET /".into(),
            trace,
            id: 1,
            parent: 0,
            duration_us: 10,
            error: false,
            peer: None,
        };
        sim.partition.record(&Record::Span(span), Sim::at(sim.now), &mut sim.events);
    };
    sim.now = 20_000_000;
    span(&mut sim, 1);
    sim.now -= 500_000;
    span(&mut sim, 2);
    assert_eq!(sim.partition.requests.len(), 2, "a host may be ahead");
    sim.now = 0;
    (3..6).for_each(|trace| span(&mut sim, trace));
    assert_eq!(sim.partition.requests.len(), 3);
}

use super::*;
use crate::detect::templates::mix;

const MINUTE: i64 = 60_000_000;

fn allowed() -> Allowed {
    Allowed::new(&Detect::default(), 1)
}

fn wave(row: i64) -> f64 {
    100.0 + (row as f64 / 20.0).sin() + ((row * 7919) % 101) as f64 / 101.0
}

fn onset(verdict: &Verdict) -> Option<&Onset> {
    match &verdict.change {
        Some(Change::Onset(onset)) => Some(onset),
        _ => None,
    }
}

fn run(values: impl IntoIterator<Item = f64>) -> Vec<Verdict> {
    let mut metric = Metric::default();
    (0..).zip(values).map(|(row, value)| metric.push(row * 5 * MINUTE, value, &allowed())).collect()
}

#[test]
fn values_to_come_change_nothing() {
    let value = |k: i64, change: f64| match k {
        0..=500 => wave(k),
        501..600 => wave(k) + 9.0,
        _ => wave(k) * change,
    };
    let whole = run((0..900).map(|k| value(k, 5.0)));
    assert_eq!(run((0..600).map(|k| value(k, 1.0))), whole[..600]);
    let shift = onset(&whole[501]).expect("the level shift is an onset");
    assert!(shift.value > shift.high && whole[501].score >= 0.5, "{shift:?}");
}

#[test]
fn a_constant_series_is_quiet_until_it_has_changed() {
    let blip = [0.1; 500].into_iter().chain([0.2]).chain([0.1; 50]);
    assert!(run(blip).iter().all(|v| onset(v).is_none()), "one odd value of a constant proves nothing");
    let step = run([0.1; 500].into_iter().chain([0.2; 5]));
    let found = onset(&step[501]).expect("two do");
    assert!(found.low > 0.09 && found.high < 0.11, "{found:?}");
}

#[test]
fn a_missing_value_changes_nothing() {
    let mut metric = Metric::default();
    for k in 0..500 {
        metric.push(k * MINUTE, wave(k), &allowed());
    }
    let mut other = metric.clone();
    assert_eq!(other.push(500 * MINUTE, f64::NAN, &allowed()), Verdict { score: 0.0, change: None });
    let next = |metric: &mut Metric| metric.push(501 * MINUTE, 120.0, &allowed());
    assert_eq!(next(&mut other), next(&mut metric));
}

#[test]
fn an_anomaly_ends_when_values_are_back_or_have_stayed() {
    let ended = |values: Vec<f64>| {
        run(values).into_iter().rev().find_map(|verdict| match verdict.change {
            Some(Change::End { detail }) => Some(detail["ended"].as_str().map(str::to_owned)),
            _ => None,
        })
    };
    let calm = || (0..500).map(wave);
    let spike = calm().chain([300.0; 3]).chain((503..520).map(wave)).collect();
    assert_eq!(ended(spike), Some(Some("back in its range".into())));
    let shift = calm().chain((500..600).map(|k| wave(k) + 200.0)).collect();
    assert_eq!(ended(shift), Some(Some("this level is usual now".into())));
}

#[test]
fn values_of_any_size_are_judged() {
    let sizes = [1e-300, 1.0, 1e12, 1e300, f64::MAX];
    for size in sizes {
        let verdicts =
            run((0..600).map(|k| size * (wave(k) - 100.0) / 4.0 * if k == 550 { -1.0 } else { 1.0 }));
        assert!(verdicts.iter().all(|v| (0.0..=1.0).contains(&v.score)), "{size}");
    }
    let extremes = run((0..400).map(|k| if k % 100 == 99 { f64::MAX } else { f64::MIN }));
    assert!(extremes.iter().all(|v| (0.0..=1.0).contains(&v.score)));
}

#[test]
fn what_was_learned_survives_being_saved() {
    let mut metric = Metric::default();
    for k in 0..777 {
        metric.push(k * MINUTE, wave(k), &allowed());
    }
    let saved = rmp_serde::to_vec_named(&metric).expect("it can be saved");
    let mut restored: Metric = rmp_serde::from_slice(&saved).expect("and restored");
    for k in 777..1000 {
        let value = wave(k) + if k > 900 { 5.0 } else { 0.0 };
        assert_eq!(restored.push(k * MINUTE, value, &allowed()), metric.push(k * MINUTE, value, &allowed()));
    }
}

#[test]
fn a_smaller_budget_asks_for_more_evidence() {
    let metric = Metric::default();
    let at = |per_day: f64| metric.strict(&Allowed { false_alarms_per_day: per_day, ..allowed() });
    assert_eq!((at(1e4), at(1.0)), (0.0, 0.0));
    assert!(at(0.1) > 2.0 && at(0.01) > at(0.1) + 2.0);
    let many = Allowed::new(&Detect::default(), 100);
    assert_eq!(metric.strict(&many), at(0.01), "a hundred series share the budget of their service");
}

#[test]
fn noise_at_any_pace_stays_within_the_budget() {
    let noise = |seed: u64, k: i64| {
        let uniform =
            |i: u64| (mix(seed.wrapping_mul(77) ^ (k as u64 * 16 + i)) >> 11) as f64 / (1_u64 << 53) as f64;
        (0..12).map(uniform).sum::<f64>() - 6.0
    };
    for (step_s, days) in [(15, 4), (60, 10), (300, 40), (3600, 200)] {
        let mut onsets = 0;
        for seed in 0..4 {
            let (mut metric, mut drift) = (Metric::default(), 0.0);
            for k in 0..days * 86_400 / step_s {
                drift = 0.9 * drift + noise(seed, k);
                let value = if seed % 2 == 0 { noise(seed, k) } else { drift };
                let verdict = metric.push(k * step_s * 1_000_000, value, &allowed());
                onsets += i64::from(onset(&verdict).is_some());
            }
        }
        assert!(onsets <= 2 * days, "{onsets} in {days} days of four series, each {step_s} s");
    }
}

#[test]
fn a_series_that_stops_changing_is_told_and_one_that_often_repeats_itself_is_not() {
    let stuck = |usual: &dyn Fn(i64) -> f64| {
        let verdicts = run((0..1000).map(|k| usual(if k < 900 { k } else { 900 })));
        verdicts.iter().skip(900).position(|verdict| onset(verdict).is_some())
    };
    assert!(stuck(&wave).is_some_and(|after| after < 15), "{:?}", stuck(&wave));
    let whole = |k: i64| wave(k).round();
    assert!(stuck(&whole).is_some_and(|after| after < 40), "{:?}", stuck(&whole));
    // Each value for an hour: 12 equal ones are nothing new.
    let steps = run((0..1000).map(|k| wave(k / 12 * 12)));
    assert!(steps.iter().skip(400).all(|verdict| onset(verdict).is_none()));
}

#[test]
fn a_clock_that_is_set_back_is_no_anomaly_and_hides_none() {
    const HOUR: i64 = 60 * MINUTE;
    let told = |back: i64| {
        let mut metric = Metric::default();
        let verdicts = (0..3000).map(|k| {
            let at = k * 5 * MINUTE - if k >= 1500 { back } else { 0 };
            metric.push(at, wave(k) + if k >= 2500 { 9.0 } else { 0.0 }, &allowed())
        });
        verdicts
            .enumerate()
            .filter(|(_, verdict)| onset(verdict).is_some())
            .map(|(k, _)| k)
            .collect::<Vec<_>>()
    };
    let unmoved = told(0);
    for back in [1, HOUR, 24 * HOUR, 10_000 * HOUR] {
        let set_back = told(back);
        assert!(
            set_back.iter().all(|k| !(1500..2400).contains(k) || unmoved.contains(k)),
            "{back}: {set_back:?}"
        );
        assert!(set_back.iter().any(|k| (2500..2510).contains(k)), "{back}: {set_back:?}");
    }
}

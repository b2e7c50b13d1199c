use std::path::Path;

use aiops::{
    config::Detect,
    detect::{Allowed, Change, Metric},
};

use super::{
    series::{Fault, make},
    weeks::{self, Users, WEEK_S, Weeks, Wrong},
};
use crate::cli::run;

/// A daily wave with noise, one value each five minutes, and a shift that lasts.
fn series(rows: u32) -> String {
    let row = |k: u32| {
        let noise = f64::from(k.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        let day = (f64::from(k) / 288.0 * std::f64::consts::TAU).sin();
        let value = 100.0 + 20.0 * day + 3.0 * noise + if k >= 1500 { 60.0 } else { 0.0 };
        let (day, minute) = (k / 288, k % 288 * 5);
        format!("2026-03-{:02}T{:02}:{:02}:00Z,{value:.3}\n", day + 1, minute / 60, minute % 60)
    };
    (0..rows).fold("timestamp,value\n".into(), |text, k| text + &row(k))
}

fn backtest(dir: &Path, input: &str) -> (i32, String, String, Vec<String>) {
    std::fs::write(dir.join("in.csv"), input).expect("written");
    let _ = std::fs::remove_file(dir.join("out.csv"));
    let (code, out, err) = run(dir, &["backtest", "metrics", "--input", "in.csv", "--output", "out.csv"]);
    let rows = std::fs::read_to_string(dir.join("out.csv")).unwrap_or_default();
    (code, out, err, rows.lines().map(str::to_owned).collect())
}

#[test]
fn every_row_is_judged_by_the_rows_before_it_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (whole, part) = (series(2000), series(1600));
    let (code, out, err, rows) = backtest(dir.path(), &whole);
    assert_eq!((code, err.as_str(), rows.len()), (0, "", 2001));
    assert_eq!(rows[0], "timestamp,value,score,anomaly");
    for (row, given) in rows.iter().zip(whole.lines()).skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!(fields[..2].join(","), given);
        assert!((0.0..=1.0).contains(&fields[2].parse::<f64>().expect("a score")), "{row}");
        assert!(["0", "1"].contains(&fields[3]), "{row}");
    }
    let found: Vec<usize> = (1..rows.len()).filter(|k| rows[*k].ends_with(",1")).collect();
    assert!(found.iter().any(|k| (1501..1510).contains(k)), "{found:?}");
    assert!(out.contains("`value` is 1") && out.contains(", usually "), "{out}");
    assert!(out.trim_end().ends_with(&format!("2000 values, {} anomalies", found.len())), "{out}");
    assert_eq!(backtest(dir.path(), &part).3, rows[..1601], "what is still to come changes nothing");
}

#[test]
fn a_bad_row_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, err, rows) = backtest(dir.path(), &(series(5) + "2026-03-01T00:30:00Z,many\n"));
    assert_eq!((code, out.as_str(), rows.len()), (1, "", 0));
    assert_eq!(err, "aiops: in.csv:7: \"many\" is no number\n");
}

#[test]
fn scores_go_to_standard_output_too_and_to_a_file_only_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, told, _, rows) = backtest(dir.path(), &series(300));
    let to =
        |output: &str| run(dir.path(), &["backtest", "metrics", "--input", "in.csv", "--output", output]);
    let (code, out, err) = to("-");
    assert_eq!((code, err), (0, told));
    assert_eq!(out.lines().collect::<Vec<_>>(), rows);
    assert_eq!(to("in.csv").0, 0, "the input has been read when its name is taken");
    std::fs::write(dir.path().join("in.csv"), "timestamp,value\nyesterday,1\n").expect("written");
    assert_eq!(to("out.csv").0, 1);
    let kept = std::fs::read_to_string(dir.path().join("out.csv")).expect("there");
    assert_eq!(kept.lines().collect::<Vec<_>>(), rows, "what failed leaves what was there");
}

/// Values after the onset in which an anomaly must be found.
const SOON: usize = 120;
const SEEDS: u64 = 9;

/// Found of `SEEDS`, the median delay in values, and false alarms in a thousand values before the onset.
fn score(fault: Fault) -> (usize, usize, f64) {
    let allowed = Allowed::new(&Detect::default(), 1);
    let (mut delays, mut false_alarms, mut before) = (Vec::new(), 0, 0);
    for seed in 0..SEEDS {
        let made = make(fault, seed);
        let mut metric = Metric::default();
        let at = |row: usize| (1_600_000_000 + row as i64 * made.step_s) * 1_000_000;
        let alarms: Vec<usize> = (0..made.values.len())
            .filter(|row| {
                let verdict = metric.push(at(*row), made.values[*row], &allowed);
                matches!(verdict.change, Some(Change::Onset(_)))
            })
            .collect();
        let onset = made.onset.unwrap_or(made.values.len());
        before += onset;
        false_alarms += alarms.iter().filter(|row| **row < onset).count();
        let soon = onset..onset + SOON;
        delays.extend(alarms.iter().find(|row| soon.contains(*row)).map(|row| row - onset));
    }
    delays.sort_unstable();
    let median = delays.get(delays.len() / 2).copied().unwrap_or(SOON);
    (delays.len(), median, f64::from(false_alarms as u32) * 1000.0 / before as f64)
}

#[test]
fn faults_of_every_kind_are_found_soon_and_calm_is_left_alone() {
    let mut table = String::new();
    let mut wrong = Vec::new();
    let (mut all_found, mut all_false) = (0, 0.0);
    for fault in Fault::ALL {
        let (found, delay, false_alarms) = score(fault);
        table += &format!(
            "{fault:?}: {found} of {SEEDS}, after {delay} values, {false_alarms:.2} false in 1,000\n"
        );
        if found < least(fault) || delay > slowest(fault) || false_alarms > 1.6 {
            wrong.push(fault);
        }
        all_found += found;
        all_false += false_alarms / Fault::ALL.len() as f64;
    }
    assert!(
        wrong.is_empty() && all_found >= 121 && all_false <= 1.1,
        "{wrong:?}, {all_found}, {all_false:.2}\n{table}"
    );
}

/// How many of `SEEDS` must be found.
fn least(fault: Fault) -> usize {
    if fault == Fault::Nothing { 0 } else { 8 }
}

/// After how many values at most, in the median.
fn slowest(fault: Fault) -> usize {
    match fault {
        Fault::Nothing => SOON,
        Fault::SmallLevel | Fault::SwingsMore | Fault::WaveMissing => 12,
        Fault::Flat => 14,
        Fault::Drift | Fault::Bursts => 55,
        _ => 2,
    }
}

/// Onsets, in seconds after the first Monday.
fn told(weeks: &Weeks) -> Vec<i64> {
    let (mut metric, allowed) = (Metric::default(), Allowed::new(&Detect::default(), 1));
    let rows = weeks.values.iter().zip((0..).map(|row| row * weeks.step_s));
    rows.filter(|(value, at_s)| {
        let verdict = metric.push((weeks::MONDAY + at_s) * 1_000_000, **value, &allowed);
        matches!(verdict.change, Some(Change::Onset(_)))
    })
    .map(|(_, at_s)| at_s)
    .collect()
}

/// Of six series of offices, five weeks long: how many tell of what is wrong within six hours.
fn found(wrong: Wrong, step_s: i64) -> usize {
    let finds = |seed: &u64| {
        let weeks = weeks::make(Users::Offices, wrong, 5, step_s, *seed);
        let from = weeks.wrong_s.expect("something is wrong");
        told(&weeks).iter().any(|at| (from..from + 6 * 3600).contains(at))
    };
    (0..6).filter(finds).count()
}

#[test]
fn weekdays_and_weekends_are_usual_from_the_third_week_on() {
    for users in Users::ALL {
        let mut alarms = Vec::new();
        for seed in 0..6 {
            let weeks = weeks::make(users, Wrong::Nothing, 5, 300, seed);
            let late = told(&weeks).into_iter().filter(|at| *at >= 2 * WEEK_S);
            // By the day of those whose weeks these are, Monday being 0.
            alarms.extend(late.map(|at| (at + weeks.east_s).rem_euclid(WEEK_S) / 86_400));
        }
        let on = |day: i64| alarms.iter().filter(|at| **at == day).count();
        // Eighteen weeks of one series each.
        assert!(alarms.len() <= 6 && on(0) <= 4 && on(5) <= 1, "{users:?}: {alarms:?}");
    }
}

#[test]
fn a_day_that_is_wrong_for_its_weekday_is_found() {
    let wrong = [Wrong::High, Wrong::Collapse, Wrong::Quiet, Wrong::BusySaturday];
    for step_s in [300, 900] {
        let found = wrong.map(|wrong| found(wrong, step_s));
        assert!(found.iter().all(|of_six| *of_six >= 5), "{step_s} s, {wrong:?}: {found:?}");
    }
}

//! `aiops backtest` on made-up data: what it writes, what it refuses, and scores that may not fall.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::cli::run;

/// A line and the statement that it came of.
type Labelled = (String, String);

type Perturb = fn(&[Labelled]) -> Vec<Labelled>;

/// Each set of `tests/regression/templates`.
fn sets() -> Vec<(String, Vec<Labelled>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regression/templates");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let set = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let row = |row: &str| row.split_once('\t').map(|(truth, line)| (line.to_owned(), truth.to_owned()));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, text.lines().map(|line| row(line).expect("statement, tab, line")).collect())
    };
    files.into_iter().map(set).collect()
}

/// The template ids that the command gives to lines, with the templates.
fn mine(lines: &[Labelled]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    std::fs::write(dir.path().join("lines.txt"), text).expect("written");
    let args = ["backtest", "templates", "--input", "lines.txt", "--output", "out.csv"];
    assert_eq!(run(dir.path(), &args), (0, String::new(), String::new()));
    let csv = std::fs::read_to_string(dir.path().join("out.csv")).expect("it was written");
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("line,template_id,template"));
    let row = |(i, row): (usize, &str)| {
        let mut fields = row.splitn(3, ',');
        assert_eq!(fields.next(), Some(&*(i + 1).to_string()));
        let mut field = || fields.next().expect("three fields").to_owned();
        (field(), field())
    };
    let rows: Vec<_> = rows.enumerate().map(row).collect();
    assert_eq!(rows.len(), lines.len());
    rows
}

/// Grouping accuracy and its F1 over groups (Jiang et al., "A Large-Scale Evaluation for Log Parsing", 2024): the share of lines,
/// and of groups, that are grouped exactly as the statements do.
fn score(lines: &[Labelled]) -> [f64; 2] {
    let ids = mine(lines);
    let (mut truth, mut found, mut both) = (HashMap::new(), HashMap::new(), HashMap::new());
    for ((_, statement), (id, _)) in lines.iter().zip(&ids) {
        *truth.entry(statement).or_insert(0_usize) += 1;
        *found.entry(id).or_insert(0_usize) += 1;
        *both.entry((statement, id)).or_insert(0_usize) += 1;
    }
    let exact: Vec<usize> =
        both.iter().filter(|((t, f), n)| truth[t] == **n && found[f] == **n).map(|(_, n)| *n).collect();
    let share = exact.iter().sum::<usize>() as f64 / lines.len() as f64;
    [share, 2.0 * exact.len() as f64 / (truth.len() + found.len()) as f64]
}

fn changed(lines: &[Labelled], change: impl Fn(&str) -> String) -> Vec<Labelled> {
    lines.iter().map(|(line, truth)| (change(line), truth.clone())).collect()
}

#[test]
fn templates_are_found_as_well_as_they_were() {
    let perturbations: [(&str, [f64; 2], Perturb); 5] = [
        ("as they are", [0.93, 0.87], <[Labelled]>::to_vec),
        ("backwards", [0.92, 0.86], |lines| lines.iter().rev().cloned().collect()),
        ("in small letters", [0.91, 0.83], |lines| changed(lines, str::to_lowercase)),
        ("with : for =", [0.89, 0.80], |lines| changed(lines, |line| line.replace('=', ": "))),
        ("with a prefix", [0.93, 0.85], |lines| changed(lines, |line| format!("app-server worker: {line}"))),
    ];
    let (sets, mut low) = (sets(), Vec::new());
    for (name, floor, perturb) in perturbations {
        let scores: Vec<[f64; 2]> = sets.iter().map(|(_, lines)| score(&perturb(lines))).collect();
        let mean: [f64; 2] =
            std::array::from_fn(|i| scores.iter().map(|s| s[i]).sum::<f64>() / scores.len() as f64);
        println!("{name}: GA {:.3} FGA {:.3} {scores:.2?}", mean[0], mean[1]);
        if mean[0] < floor[0] || mean[1] < floor[1] {
            low.push(format!("{name}: {mean:.3?} is below {floor:?}"));
        }
    }
    assert!(low.is_empty(), "{low:#?}");
}

#[test]
fn lines_before_and_after_a_template_was_understood_have_the_same_id() {
    let users = ["ann", "bob", "carol", "dave", "erin", "frank"];
    let lines: Vec<Labelled> =
        users.iter().map(|user| (format!("user {user} has logged in, \"welcome\""), String::new())).collect();
    let rows = mine(&lines);
    assert!(rows.iter().all(|row| row == &rows[0]), "{rows:?}");
    assert_eq!(rows[0].1, "\"user <*> has logged in, <*>\"");
}

#[test]
fn any_bytes_are_a_line_and_an_empty_file_has_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let long = "word ".repeat(100_000);
    let text = [b"\xff\xfe\x00 one\r\n\n\x1b[31mred 7\x1b[0m\nred 8\n", long.as_bytes(), b"\nred 9"].concat();
    std::fs::write(dir.path().join("lines.txt"), text).expect("written");
    std::fs::write(dir.path().join("empty.txt"), "").expect("written");
    let args = |input| ["backtest", "templates", "--input", input, "--output", "-"];
    let (code, out, err) = run(dir.path(), &args("lines.txt"));
    assert_eq!((code, err.as_str()), (0, ""));
    let rows: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(rows.len(), 6, "{out}");
    let id = |row: &str| row.split(',').nth(1).expect("an id").to_owned();
    assert_eq!((id(rows[2]), id(rows[2])), (id(rows[3]), id(rows[5])), "colours and numbers do not count");
    assert_eq!(run(dir.path(), &args("empty.txt")).1, "line,template_id,template\n");
}

#[test]
fn what_cannot_be_read_or_written_is_said_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("lines.txt"), "one\n").expect("written");
    std::fs::create_dir(dir.path().join("folder")).expect("made");
    for (input, output, expected) in [
        ("absent.txt", "out.csv", "aiops: reading absent.txt: No such file or directory"),
        ("folder", "out.csv", "aiops: reading folder: it is a directory"),
        ("lines.txt", "nowhere/out.csv", "aiops: writing nowhere/out.csv: No such file or directory"),
        ("lines.txt", "folder", "aiops: writing folder: "),
        ("lines.txt", "/dev/full", "aiops: writing /dev/full: No space left on device"),
    ] {
        let args = ["backtest", "templates", "--input", input, "--output", output];
        let (code, out, err) = run(dir.path(), &args);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with(expected), "{err}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("readable").file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder", "lines.txt"]);
    let same = ["backtest", "templates", "--input", "lines.txt", "--output", "lines.txt"];
    assert_eq!(run(dir.path(), &same).0, 0, "the input has been read when its name is taken");
}

//! How fast templates are mined on one core, and what one costs in memory, from a hundred to a hundred thousand of them:
//! `cargo bench --bench templates`, or `cargo bench --bench templates -- FILE` for the lines of a file. CPU time, Linux only.
//! `cargo test --benches` only tries it out.

use std::{fs, hint::black_box};

use aiops::detect::templates::{Miner, mix};

const LINES: usize = 2_000_000;
const TO_TRY: usize = 5000;
/// Lines of each template before the clock starts: the values of its first ones are all summed up.
const LEARNING: usize = 4;

fn main() {
    let file = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if let Some(path) = file {
        let data = fs::read(&path).expect("a file of lines");
        let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
        return measure(&path, &lines, 0, (LINES / lines.len()).max(1));
    }
    let (sizes, lines): (&[usize], _) = match std::env::args().any(|arg| arg == "--bench") {
        true => (&[100, 1000, 10_000, 100_000], LINES),
        false => (&[100], TO_TRY),
    };
    for &templates in sizes {
        let data = made_up(templates, lines);
        let lines: Vec<&[u8]> = data.lines().map(str::as_bytes).collect();
        measure(&format!("{templates} templates"), &lines, LEARNING * templates, 1);
    }
}

/// Lines of so many statements of 6 to 12 words and 4 numbers each: each statement in turn at first, then at random.
fn made_up(templates: usize, lines: usize) -> String {
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_add(1);
        (mix(seed) % below as u64) as usize
    };
    let mut word = || -> String {
        let mut letter = |of: &[u8]| char::from(of[random(of.len())]);
        (0..3).flat_map(|_| [letter(b"bcdfglmnprst"), letter(b"aeiou")]).collect()
    };
    let words: Vec<String> = (0..3000).map(|_| word()).collect();
    let mut statement =
        |i: usize| (0..6 + i % 7).map(|_| &*words[random(words.len())]).collect::<Vec<_>>().join(" ");
    let statements: Vec<String> = (0..templates).map(&mut statement).collect();
    let line = |i: usize| {
        let of = if i < LEARNING * templates { i % templates } else { random(templates) };
        format!("{} {} of {} in {}ms\n", statements[of], random(1_000_000), random(100), random(999))
    };
    (0..lines).map(line).collect()
}

fn measure(name: &str, lines: &[&[u8]], learning: usize, rounds: usize) {
    let before = resident();
    let mut miner = Miner::new(200_000);
    for line in &lines[..learning] {
        black_box(miner.add(line));
    }
    let steady = &lines[learning..];
    let start = cpu_seconds();
    for _ in 0..rounds {
        for line in steady {
            black_box(miner.add(line));
        }
    }
    let speed = (rounds * steady.len()) as f64 / (cpu_seconds() - start) / 1e6;
    let bytes = resident().saturating_sub(before) / miner.len().max(1);
    println!("{name}: {speed:.2} M lines/s of CPU time, {} nodes of {bytes} bytes", miner.len());
}

/// Seconds that this process computed.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn resident() -> usize {
    let stat = fs::read_to_string("/proc/self/statm").expect("Linux");
    stat.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

//! `aiops backtest templates`: mines the templates of a file of log lines.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::written::Output;
use crate::{
    cli::Failure,
    detect::templates::{Change, Miner, TemplateId},
};

const EXAMPLES: &str = "\
Examples:
  aiops backtest templates --input lines.txt --output assignments.csv
  journalctl -o cat | aiops backtest templates --input - --output - | cut -d, -f2- | sort | uniq -c | sort -rn | head

The output has a line for each line of the input: its number from 1, the id of its template, and the template.
Ids are resolved when all has been read, so that lines before and after a template was understood have the same.";

/// Mine the templates of a file of log lines, one message a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The log lines; - reads standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the CSV goes (line,template_id,template); - writes standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Templates, and lines that they are learned from, that are remembered at a time; about 1 KB each
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=8_000_000))]
    max_templates: u32,
}

/// Of a line so many bytes are read; more is skipped.
const MAX_LINE: u64 = 65_536;
/// Ends of rows that are kept, of a few kilobytes at most, for most lines have one that was written before.
const MAX_ENDS: usize = 16_384;

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut input = open(&args.input)?;
    let output = Output::create(&args.output)?;
    let mut miner = Miner::new(args.max_templates as usize);
    // Eight bytes a line would fill the memory in the end: they wait on disk.
    let mut ids = BufWriter::new(tempfile::tempfile().context("making a temporary file")?);
    let (mut line, mut count, mut forgotten) = (Vec::new(), 0_u64, 0);
    while next(&mut input, &mut line).with_context(|| format!("reading {}", args.input.display()))? {
        let id = miner.add(&line).line;
        ids.write_all(&id.to_le_bytes()).context("writing to a temporary file")?;
        count += 1;
        let gone = |change: &Change| matches!(change, Change::Forgotten(_));
        forgotten += miner.take_changes().iter().filter(|change| gone(change)).count();
    }
    miner.settle();
    let mut ids = ids.into_inner().context("writing to a temporary file")?;
    ids.rewind().context("reading a temporary file")?;
    output.finish(|to| write(&miner, count, &mut BufReader::new(ids), to))?;
    if forgotten > 0 {
        eprintln!("aiops: {forgotten} templates were forgotten to make room; --max-templates keeps more");
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let reading = || format!("reading {}", path.display());
    let file = File::open(path).with_context(reading)?;
    anyhow::ensure!(
        !file.metadata().with_context(reading)?.is_dir(),
        "reading {}: it is a directory",
        path.display()
    );
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

/// The next line without its end, cut to `MAX_LINE`; false if there is none.
fn next(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if (&mut *input).take(MAX_LINE).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == MAX_LINE {
        input.skip_until(b'\n')?;
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(true)
}

fn write(miner: &Miner, count: u64, ids: &mut impl Read, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "line,template_id,template")?;
    let mut bytes = [0; 8];
    let mut ends: HashMap<TemplateId, String> = HashMap::new();
    for line in 1..=count {
        ids.read_exact(&mut bytes)?;
        let id = u64::from_le_bytes(bytes);
        if ends.len() == MAX_ENDS && !ends.contains_key(&id) {
            ends.clear();
        }
        let end = ends.entry(id).or_insert_with(|| {
            let id = miner.resolve(id);
            format!("{id:016x},\"{}\"", miner.text(id).replace('"', "\"\""))
        });
        writeln!(to, "{line},{end}")?;
    }
    Ok(())
}

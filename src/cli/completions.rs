//! `aiops completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Print a completion script for bash, zsh or fish
///
///   aiops completions bash > /etc/bash_completion.d/aiops
///   aiops completions zsh  > "${fpath[1]}/_aiops"
///   aiops completions fish > ~/.config/fish/completions/aiops.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    shell: Shell,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aiops", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}

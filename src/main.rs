//! Parses the command line and runs one command.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aiops::clock::mark_start();
    aiops::cli::main()
}

//! Parses the command line and runs one command.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aiops::clock::mark_start();
    // Huge pages turn every page that the allocator touches into two megabytes: 57 MB idle instead of 34. Where the kernel
    // does not know the switch, more memory is all that it costs.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    aiops::cli::main()
}

//! The `roost` program. All that it does is in the library, so that tests start the same things.

use std::process::ExitCode;

/// Returns memory to the system and wastes little on small allocations, of which a hub has many.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    roost::cli::run(std::env::args_os())
}

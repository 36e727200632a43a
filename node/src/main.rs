//! The `drystone` binary: arguments in, exit status out. Everything else is in the library.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use drystone_node::assembly::cluster::ClusterAssembly;
use drystone_node::cli::{Cli, Output};
use drystone_node::config::Environment;

/// Builds with a C compiler alone and returns memory to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages double the memory of an idle node, and a first touch of one is dear. Where the kernel cannot be told,
    // nothing but memory is lost.
    rustix::thread::disable_transparent_huge_pages(true).unwrap_or_default();
    let cli = Cli::parse();
    let (mut out, mut progress) = (stdout(), stderr());
    let mut output = Output::new(cli.json(), &mut out, &mut progress);
    match cli.run(&Environment::read(), &ClusterAssembly, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.fail(&error);
            error.exit().into()
        }
    }
}

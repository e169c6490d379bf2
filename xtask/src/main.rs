//! The repository's own commands. `cargo xtask build` makes the npm package and the static site, `serve` shows the site on
//! this machine, `test` runs every check, `bench` measures. Each installs what it needs, or names what is missing and how to get it.

mod bench;
mod build;
#[path = "../../src/cli/chart.rs"]
#[allow(dead_code)] // what the command alone draws
mod chart;
mod generate;
mod imports;
mod kernels;
mod licenses;
mod likeness;
mod options;
mod serve;
mod sizes;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Builds, serves and tests undiffuse", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the npm package into pkg/ and the static site into dist/
    Build {
        /// Print where the bytes of what a page loads are: by file, by section, and by crate and room
        #[arg(long)]
        sizes: bool,
    },
    /// Write what JavaScript, its types and the page need of the options, from the library's table of them
    Generate,
    /// Print the licences of all that is built into the command, to go with it where it is handed on as a program
    Licenses,
    /// Build, then serve the site on this machine until interrupted
    Serve {
        /// The port of 127.0.0.1 to listen on; 0 takes a free one
        #[arg(long, default_value_t = 8000)]
        port: u16,
        /// Send no headers beyond what any static host sends: the page is then not cross-origin isolated, and the CPU has one thread
        #[arg(long)]
        plain: bool,
    },
    /// Run every check and test: format, lints, native, browser and npm
    Test {
        /// Run these stages alone (with what they need built first)
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<test::Stage>,
    },
    /// Measure speed, size and memory, next to onnxruntime and to what the machine can do, and write docs/performance.md
    Bench {
        /// Run these parts alone
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<bench::Part>,
        /// Show in a few minutes that everything works; the numbers are not written down
        #[arg(long)]
        quick: bool,
        /// The network whose kernels `--only isa` compiles: emoji64, cifar, small or sd15
        #[arg(long, default_value = "sd15")]
        network: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build { sizes } => build::build(sizes),
        Command::Generate => generate::write(),
        Command::Licenses => licenses::of_command().map(|text| print!("{text}")),
        Command::Serve { port, plain } => {
            build::build(false).and_then(|()| serve::serve(&tools::root().join("dist"), port, !plain))
        }
        Command::Test { only } => test::test(&only),
        Command::Bench { only, quick, network } => bench::bench(&only, quick, &network),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

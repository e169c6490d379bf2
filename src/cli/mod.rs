//! The native command: reads arguments, calls the library, writes files.
//!
//! Results go to stdout, everything else to stderr. Progress bars show on a terminal only. The exit code is 2 for a
//! command line that cannot be understood and 1 for work that failed, which is then said in one line.
//!
//! | file | what it holds |
//! |---|---|
//! | `sample`, `bound`, `fid`, `noise`, `forward`, `schedule`, `inspect`, `quantize` | a subcommand each: its arguments, which are its manual, and its work |
//! | `model` | a checkpoint, opened and loaded |
//! | `options` | the options of a record as arguments, from the library's table |
//! | `feature_set`, `journal` | a set of pictures as features, and the file that these are gathered in |
//! | `npz` | statistics as another tool saves them |
//! | `device` | `--device` and `--kernels` |
//! | `cache` | the user's cache folder |
//! | `tuned` | what `--tune` found out |
//! | `wgsl` | `--write-wgsl` |
//! | `scheduler` | where a scheduler's config is found, and `--solver` |
//! | `values` | seeds and texts |
//! | `tensors` | safetensors files of a user's own |
//! | `picture` | PNG files, read and written |
//! | `chart`, `chart_file`, `canvas` | charts as shapes and SVG, their files, and the picture that a PNG is drawn on |
//! | `profile` | `--profile` |
//! | `metadata` | what a picture was made with, inside its PNG |
//! | `input` | files that are read, up to a limit |
//! | `output`, `partial` | stdout and stderr; files that appear whole or not at all, and where they grow |
//! | `interrupt` | what SIGINT and SIGTERM do |
//! | `error` | what can go wrong, in the words of the command line |

mod bound;
mod cache;
mod canvas;
mod chart;
mod chart_file;
mod device;
mod error;
mod feature_set;
mod fid;
mod forward;
mod input;
mod inspect;
mod interrupt;
mod journal;
mod metadata;
mod model;
mod noise;
mod npz;
mod options;
mod output;
mod partial;
mod picture;
mod profile;
mod quantize;
mod sample;
mod schedule;
mod scheduler;
mod tensors;
mod tuned;
mod values;
mod wgsl;

use std::env;
use std::io;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser};
use undiffuse::pipeline::{self, brief};

use error::Error;

/// Draws with diffusion models and shows how: from a checkpoint as diffusers writes it, or one in a single file
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Subcommand,
}

/// What is said of checkpoints in the help.
fn checkpoints() -> String {
    format!(
        "Draws with diffusion models and shows how: from a checkpoint as diffusers writes it, or one in a single file\n\n\
         A checkpoint is a folder with a model_index.json, as `save_pretrained` writes it and the Hugging Face hub serves it, or one \
         file of safetensors or GGUF. Pipelines that can be run are {}; `undiffuse inspect` says whether a checkpoint can be run and \
         why not.",
        pipeline::pipeline_classes().join(", ")
    )
}

/// The command line.
fn command() -> Command {
    Cli::command().long_about(checkpoints())
}

const EXAMPLES: &str = "\
Examples:
  undiffuse inspect emoji64
  undiffuse sample emoji64 --prompt \"a happy cat\" --seed 7 --out cat.png
  undiffuse bound emoji64 cat.png --prompt \"a happy cat\" --terms 50
  undiffuse noise cat.png --timesteps 0,250,500,750,999 --model emoji64 --predict --out sheet.png
  undiffuse fid --real pictures --generated emoji64 --prompts prompts.txt --count 1000
  undiffuse schedule emoji64 --steps 25 --solver euler
  undiffuse forward emoji64/unet --inputs in.safetensors --outputs out.safetensors
  undiffuse quantize emoji64 --to q8_0";

#[derive(clap::Subcommand)]
enum Subcommand {
    Sample(Box<sample::Args>),
    Bound(Box<bound::Args>),
    Noise(Box<noise::Args>),
    Fid(Box<fid::Args>),
    Forward(forward::Args),
    Schedule(schedule::Args),
    Inspect(inspect::Args),
    Quantize(quantize::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    interrupt::listen();
    let mut command = command();
    let arguments = values::joined(&mut command, env::args_os());
    let parsed = command.try_get_matches_from_mut(arguments);
    let read = parsed.and_then(|matches| {
        let name = matches.subcommand_name().unwrap_or_default().to_owned();
        Ok((Cli::from_arg_matches(&matches)?.command, name))
    });
    let (subcommand, name) = match read {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    let run = match subcommand {
        Subcommand::Sample(args) => pollster::block_on(sample::run(*args)),
        Subcommand::Bound(args) => pollster::block_on(bound::run(*args)),
        Subcommand::Noise(args) => pollster::block_on(noise::run(*args)),
        Subcommand::Fid(args) => pollster::block_on(fid::run(*args)),
        Subcommand::Forward(args) => pollster::block_on(forward::run(args)),
        Subcommand::Schedule(args) => pollster::block_on(schedule::run(args)),
        Subcommand::Inspect(args) => pollster::block_on(inspect::run(args)),
        Subcommand::Quantize(args) => pollster::block_on(quantize::run(args)),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` does.
        Err(Error::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let subcommand = command.find_subcommand(name).unwrap_or(&command);
            output::note(format_args!("error: {}", brief(&error.in_words_of(subcommand))));
            ExitCode::FAILURE
        }
    }
}

/// Says why a command line cannot be understood, or what was asked for about it.
fn refuse(error: &clap::Error) -> ExitCode {
    // It quotes what was given, which may hold what a terminal obeys. The help quotes nothing.
    match error.use_stderr()
        && env::args_os().any(|argument| output::plain(&argument.to_string_lossy()) != argument.to_string_lossy())
    {
        true => output::notes(&error.render().to_string()),
        false => drop(error.print()),
    }
    ExitCode::from(error.exit_code() as u8)
}

//! The native command: reads arguments, calls the library, writes files.
//!
//! Results go to stdout, everything else to stderr. Progress bars show on a terminal only. The exit code is 2 for a
//! command line that cannot be understood and 1 for work that failed, which is then said in one line.
//!
//! | file | what it holds |
//! |---|---|
//! | `sample`, `bound`, `fid`, `noise`, `forward`, `schedule`, `inspect`, `quantize` | a subcommand each: its arguments, which are its manual, and its work |
//! | `model` | a checkpoint, opened and loaded |
//! | `feature_set`, `journal` | a set of pictures as features, and the file that these are gathered in |
//! | `npz` | statistics as another tool saves them |
//! | `device` | `--device` and `--kernels` |
//! | `cache` | the user's cache folder |
//! | `tuned` | what `--tune` found out |
//! | `scheduler` | where a scheduler's config is found, and `--solver` |
//! | `tensors` | safetensors files of a user's own |
//! | `picture` | PNG files, read and written |
//! | `chart`, `canvas` | charts as SVG and PNG, and the picture that the latter is drawn on |
//! | `profile` | `--profile` |
//! | `metadata` | what a picture was made with, inside its PNG |
//! | `output` | files that appear whole or not at all; stdout and stderr |

mod bound;
mod cache;
mod canvas;
mod chart;
mod device;
mod error;
mod feature_set;
mod fid;
mod forward;
mod inspect;
mod journal;
mod metadata;
mod model;
mod noise;
mod npz;
mod output;
mod picture;
mod profile;
mod quantize;
mod sample;
mod schedule;
mod scheduler;
mod tensors;
mod tuned;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use undiffuse::pipeline::brief;

use error::Error;

/// Runs the reverse process of a diffusion model, from a checkpoint as diffusers writes it
///
/// A checkpoint is a folder with a `model_index.json`, as `save_pretrained` writes it and the Hugging Face hub serves
/// it. Supported pipelines are StableDiffusionPipeline, DDPMPipeline and DDIMPipeline; `undiffuse inspect` says
/// whether a checkpoint can be run and why not.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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

#[derive(Subcommand)]
enum Command {
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
    let run = match Cli::parse().command {
        Command::Sample(args) => pollster::block_on(sample::run(*args)),
        Command::Bound(args) => pollster::block_on(bound::run(*args)),
        Command::Noise(args) => pollster::block_on(noise::run(*args)),
        Command::Fid(args) => pollster::block_on(fid::run(*args)),
        Command::Forward(args) => pollster::block_on(forward::run(args)),
        Command::Schedule(args) => pollster::block_on(schedule::run(args)),
        Command::Inspect(args) => pollster::block_on(inspect::run(args)),
        Command::Quantize(args) => pollster::block_on(quantize::run(args)),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` does.
        Err(Error::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // A driver's message may run over several lines; ours is one.
            let line = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            output::note(format_args!("error: {}", brief(&line)));
            ExitCode::FAILURE
        }
    }
}

//! The command line: one file per group of verbs. A verb gives its exit code or a [`Failure`], which names the thing and the way out.

mod annotate;
mod audit;
mod bench;
mod command;
mod context;
mod credentials;
#[cfg(feature = "demo-broker")]
mod demo;
mod doctor;
mod door;
mod editor;
mod eval;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
mod gallery;
mod grant;
mod import;
#[cfg(test)]
mod manual;
mod models;
mod people;
mod recognize;
mod replay;
mod run;
mod shots;
mod snapshot;
mod table;
mod token;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::inference::{BackendChoice, Precision};
use crate::system::logging;

/// Exit codes, after sysexits.h where it has one.
pub mod code {
    /// Yes: done, recognised, live.
    pub const YES: u8 = 0;
    /// No: not recognised, not live, something vital is wrong.
    pub const NO: u8 = 1;
    /// The command line was wrong.
    pub const USAGE: u8 = 64;
    /// The input was wrong.
    pub const DATA: u8 = 65;
    /// Something that is needed is not there.
    pub const UNAVAILABLE: u8 = 69;
    /// A bug.
    pub const BUG: u8 = 70;
    /// Not allowed.
    pub const PERMISSION: u8 = 77;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;
}

/// Why a verb did not do its work.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    fn data(message: impl std::fmt::Display) -> Self {
        Self::new(code::DATA, message)
    }

    fn unavailable(message: impl std::fmt::Display) -> Self {
        Self::new(code::UNAVAILABLE, message)
    }
}

/// What a verb gives: an exit code, or why it failed.
type Result<T = u8> = std::result::Result<T, Failure>;

/// Face access for doors: decisions that are signed, single-use and expire.
#[derive(Parser)]
#[command(name = "faceid", version, about, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// Where things lie; each overrides the config.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Places {
    /// The config file [default: /etc/faceid/config.toml, or built-in defaults where that is absent]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "PATH", env = "FACEID_CONFIG")]
    config: Option<PathBuf>,
    /// Where the gallery and other state lie [default: the config's, /var/lib/faceid]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "DIR", env = "FACEID_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Where keys and passwords lie when they are no systemd credentials [default: the config's, /etc/faceid/secrets]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "DIR", env = "FACEID_SECRETS_DIR")]
    secrets_dir: Option<PathBuf>,
    /// The folder with the model files [default: the config's, /var/cache/faceid/models]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "DIR", env = "FACEID_MODELS_DIR")]
    models_dir: Option<PathBuf>,
    /// The model pack [default: the config's]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "NAME")]
    pack: Option<String>,
    /// What runs the networks: auto, ort or tract [default: the config's]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "NAME", value_parser = parse_backend)]
    backend: Option<BackendChoice>,
    /// How exactly networks are computed: fp32, fp16 or int8 [default: the config's]
    #[arg(long, global = true, help_heading = "Options of every verb", value_name = "NAME", value_parser = parse_precision)]
    precision: Option<Precision>,
}

fn parse_precision(text: &str) -> std::result::Result<Precision, String> {
    match text {
        "fp32" => Ok(Precision::Fp32),
        "fp16" => Ok(Precision::Fp16),
        "int8" => Ok(Precision::Int8),
        _ => Err("use fp32, fp16 or int8".to_owned()),
    }
}

fn parse_backend(text: &str) -> std::result::Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice::Auto),
        "ort" => Ok(BackendChoice::Ort),
        "tract" => Ok(BackendChoice::Tract),
        _ => Err("use auto, ort or tract".to_owned()),
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Show the whole main job: bundled clip, scratch gallery, embedded broker, every decision as a line
    #[cfg(feature = "demo-broker")]
    Demo(demo::Args),
    /// Run the daemon
    Run(run::RunArgs),
    /// Print every finding in the config, exit 78 when the daemon would not run with it; or explain who may pass a door
    Check(run::CheckArgs),
    /// Enrol a person from photos, from a clip or at a camera
    Enroll(people::EnrollArgs),
    /// Enrol many people from a folder that holds a folder of photos for each
    Import(import::ImportArgs),
    /// See and change who is enrolled
    #[command(subcommand)]
    People(people::PeopleVerb),
    /// Say who is on photos
    Recognize(recognize::RecognizeArgs),
    /// Say whether the faces on photos are of living people
    Liveness(recognize::LivenessArgs),
    /// Drive a door: verify grants and act on them alone
    Door(door::Args),
    /// Check the audit trail, or write it out
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Sign a command, send it to a device and print the answer
    Command(command::Args),
    /// See what a door would make of a grant
    #[command(subcommand)]
    Grant(grant::GrantVerb),
    /// Open a picture that a device sealed and published after `command snapshot-on`
    Snapshot(snapshot::Args),
    /// Care for the sealed gallery
    #[command(subcommand)]
    Gallery(gallery::GalleryVerb),
    /// See, fetch and check model packs
    #[command(subcommand)]
    Models(models::ModelsVerb),
    /// Show decisions and states as they come over MQTT
    Watch(watch::Args),
    /// Say what works here, what does not, and what mends it
    Doctor(doctor::Args),
    /// Measure error rates on photos whose truth is known, with exact 95 % intervals
    #[command(subcommand)]
    Eval(eval::EvalVerb),
    /// Find the match threshold for a target FPIR at the gallery's size
    Calibrate(eval::calibrate::Args),
    /// Measure speed and memory
    #[command(subcommand)]
    Bench(bench::BenchVerb),
    /// Make the sealing key and the grant-signing key
    Keygen(run::KeygenArgs),
    /// Make, list and take back the tokens of the local HTTP API
    #[command(subcommand)]
    Token(token::TokenVerb),
}

/// Parses the command line, runs the verb and gives its exit code.
pub fn main() -> ExitCode {
    crate::system::environment::tidy_for_root();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap prints help and version as "errors" of exit code 0.
            let code = if error.use_stderr() { code::USAGE } else { code::YES };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    crate::daemon::install_panic_hook();
    // Every verb may hold keys and templates; where the system refuses, the daemon says so in its log.
    let _ = crate::system::process::forbid_core_dumps();
    let places = args.places;
    let outcome = match args.verb {
        #[cfg(feature = "demo-broker")]
        Verb::Demo(args) => demo::demo(&places, &args),
        Verb::Run(args) => run::run(&places, &args),
        Verb::Check(args) => run::check(&places, &args),
        Verb::Enroll(args) => people::enroll(&places, &args),
        Verb::Import(args) => import::import(&places, &args),
        Verb::People(verb) => people::people(&places, &verb),
        Verb::Recognize(args) => recognize::recognize(&places, &args),
        Verb::Liveness(args) => recognize::liveness(&places, &args),
        Verb::Door(args) => door::door(&places, &args),
        Verb::Audit(verb) => audit::audit(&places, &verb),
        Verb::Snapshot(args) => snapshot::snapshot(&places, &args),
        Verb::Grant(verb) => grant::grant(&places, &verb),
        Verb::Command(args) => command::command(&places, &args),
        Verb::Gallery(verb) => gallery::gallery(&places, &verb),
        Verb::Models(verb) => models::models(&places, &verb),
        Verb::Watch(args) => watch::watch(&places, &args),
        Verb::Doctor(args) => doctor::doctor(&places, &args),
        Verb::Eval(verb) => eval::eval(&places, &verb),
        Verb::Calibrate(args) => eval::calibrate::run(&places, &args),
        Verb::Bench(verb) => bench::bench(&places, &verb),
        Verb::Keygen(args) => run::keygen(&places, &args),
        Verb::Token(verb) => token::token(&places, &verb),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// One line to standard output. A reader that went away (`faceid … | head`) is no error.
fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// One line of what came from outside, which must neither start another nor steer a terminal.
fn say_outside(line: &str) {
    say(logging::escape(line));
}

/// To standard error. Whatever is told may quote what came from outside, and steers no terminal.
fn complain(line: impl std::fmt::Display) {
    let line = line.to_string();
    let lines: Vec<String> = line.split('\n').map(logging::escape).collect();
    let _ = writeln!(std::io::stderr().lock(), "faceid: {}", lines.join("\n"));
}

/// A number of things, with the word for one or for several.
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A value as one line of JSON to standard output.
fn say_json(value: &serde_json::Value) {
    say(logging::escape_json(&value.to_string()));
}

/// A progress bar on a terminal, and none in a pipe.
fn progress(length: u64, unit: &str) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let template = format!("{{bar:32}} {{pos}}/{{len}} {unit} {{eta}} {{msg}}");
    let style = indicatif::ProgressStyle::with_template(&template);
    let bar = indicatif::ProgressBar::new(length);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

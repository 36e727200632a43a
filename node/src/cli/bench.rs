//! `drystone bench`.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::connect::ConnectArgs;
use super::{CliError, Output};
use crate::bench::client::Hashing;
use crate::bench::plan::{BenchPlan, Workload};
use crate::bench::run::{Phase, Progress, run as run_plan};
use crate::config::Environment;
use crate::config::units::{UnitError, parse_bytes};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// What to measure.
    workload: Workload,
    /// Size of an object.
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    size: u64,
    /// Requests under way at once.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Length of the measured part.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// End early after so many operations.
    #[arg(long, value_name = "COUNT")]
    operations: Option<u64>,
    /// Objects to store before the run (get, delete, list, mixed) or different keys to write (put).
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: Option<u64>,
    /// Bucket; made if it does not exist.
    #[arg(long, value_name = "NAME", default_value = "drystone-bench")]
    bucket: String,
    /// Check every byte that is read, and read back every object that is written.
    #[arg(long)]
    verify: bool,
    /// Do not hash bodies for the signature.
    #[arg(long)]
    unsigned_payload: bool,
    /// Leave the objects where they are.
    #[arg(long)]
    no_cleanup: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse_bytes(text)
}

pub(super) fn run(args: BenchArgs, environment: &Environment, output: &mut Output<'_>) -> Result<(), CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let plan = BenchPlan {
        workload: args.workload,
        endpoints: args.connect.endpoints(environment)?,
        credentials: Some(args.connect.credentials(environment)?),
        bucket: args.bucket,
        size: args.size,
        concurrency: usize::from(args.concurrency),
        duration: Duration::from_secs(args.seconds),
        operations_max: args.operations,
        keys: args.keys,
        verify: args.verify,
        hashing: if args.unsigned_payload { Hashing::Unsigned } else { Hashing::Signed },
        cleanup: !args.no_cleanup,
        run: u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or(0),
        clock: SystemTime::now,
    };
    let overwrite = std::io::stderr().is_terminal();
    let mut before = None;
    let summary = super::runtime()?.block_on(run_plan(plan, |progress| {
        let last = before.replace(progress);
        output.progress(&progress_line(&render(&progress, last), overwrite && last.is_some()));
    }))?;
    output.result(&json!(summary), &summary.to_string())?;
    let wrong = |(kind, count): (&String, &u64)| if kind.ends_with("wrong-bytes") { *count } else { 0 };
    let wrong = summary.errors_by_kind.iter().map(wrong).sum();
    if wrong > 0 { Err(CliError::WrongAnswers { count: wrong }) } else { Ok(()) }
}

/// The line as it goes to the terminal. What it overwrites must be ours: above the first is what the user typed.
fn progress_line(line: &str, over_the_last: bool) -> String {
    if over_the_last { format!("\x1b[1A\x1b[2K{line}") } else { line.to_owned() }
}

/// One line: where the run is and how fast it went since the line before.
fn render(now: &Progress, before: Option<Progress>) -> String {
    let before = before.filter(|before| before.phase == now.phase);
    let (operations, elapsed) = before.map_or((0, Duration::ZERO), |before| (before.operations, before.elapsed));
    let ms = u64::try_from((now.elapsed - elapsed).as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = (now.operations - operations).saturating_mul(1000) / ms;
    let phase = match now.phase {
        Phase::Fill => "filling",
        Phase::Measure => "running",
        Phase::Clean => "cleaning up",
    };
    let (seconds, done, errors) = (now.elapsed.as_secs(), now.operations, now.errors);
    format!("{phase} {seconds:>4} s  {done:>9} done  {rate:>7}/s  {errors} errors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_overwritten_only_by_the_next_one() {
        assert_eq!(progress_line("one", false), "one");
        assert_eq!(progress_line("two", true), "\x1b[1A\x1b[2Ktwo");
    }

    #[test]
    fn progress_shows_the_rate_since_the_line_before() {
        let at = |phase, ms, operations| Progress { phase, elapsed: Duration::from_millis(ms), operations, errors: 1 };
        let line = render(&at(Phase::Measure, 3000, 700), Some(at(Phase::Measure, 1000, 500)));
        assert!(line.contains(" 100/s") && line.contains("running    3 s") && line.contains("1 errors"), "{line}");
        let line = render(&at(Phase::Measure, 1000, 50), Some(at(Phase::Fill, 9000, 500)));
        assert!(line.contains(" 50/s"), "{line}");
    }
}

//! The client: counts answers, or waits until everything is reached or refused as it should.

use std::process::ExitCode;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use super::check::{Share, Tally, Wish};
use super::outcome::{Outcome, Url, request};

/// Requests under way at once when answers are counted.
const CONCURRENCY: usize = 8;
/// Between two rounds of checks.
const PAUSE: Duration = Duration::from_millis(200);

/// What to send, and what is expected.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["url", "reach", "refuse"]))]
pub struct Args {
    /// Count the answers of this URL, by their text.
    #[arg(conflicts_with_all = ["reach", "refuse"])]
    url: Option<Url>,
    /// How many requests to send, each on a connection of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Which share of the answers should come from whom, NAME=PERCENT, within 3 points; may be repeated.
    #[arg(long, requires = "url", value_name = "NAME=PERCENT")]
    expect: Vec<Share>,
    /// A URL that should answer; may be repeated.
    #[arg(long, value_name = "URL")]
    reach: Vec<Url>,
    /// A URL that should be refused: connections end without an answer, or with 403. A server that isn't there doesn't
    /// count. May be repeated.
    #[arg(long, value_name = "URL")]
    refuse: Vec<Url>,
    /// How long it may take until all of these hold.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    within: Duration,
    /// How many rounds in a row all of these must hold.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Sends what is asked for; fails when something isn't as expected.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let fine = match &args.url {
        Some(url) => count(url, &args).await,
        None => check(&args).await,
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn count(url: &Url, args: &Args) -> bool {
    let mut tally = Tally::default();
    let mut requests = stream::iter(0..args.count).map(|_| request(url)).buffer_unordered(CONCURRENCY);
    while let Some(outcome) = requests.next().await {
        tally.add(outcome);
    }
    print!("{tally}");
    let complaints = tally.complaints(&args.expect);
    complaints.iter().for_each(|complaint| eprintln!("weft: {complaint}"));
    complaints.is_empty()
}

async fn check(args: &Args) -> bool {
    let reach = args.reach.iter().map(|url| (url, Wish::Reach));
    let wishes: Vec<_> = reach.chain(args.refuse.iter().map(|url| (url, Wish::Refuse))).collect();
    let end = Instant::now() + args.within;
    let (mut in_a_row, mut said) = (0, Vec::new());
    loop {
        let round = futures::future::join_all(wishes.iter().map(|(url, _)| request(url))).await;
        // A round that is like the last one needs no words, whoever has answered.
        let kinds: Vec<_> = round.iter().map(std::mem::discriminant).collect();
        if kinds != said {
            report(&wishes, &round).iter().for_each(|line| println!("{line}"));
            said = kinds;
        }
        let holds = wishes.iter().zip(&round).all(|((_, wish), outcome)| wish.holds(outcome));
        in_a_row = if holds { in_a_row + 1 } else { 0 };
        if in_a_row >= args.rounds {
            println!("as it should be, {in_a_row} times in a row");
            return true;
        }
        if Instant::now() >= end {
            eprintln!("weft: not as it should be within {}", humantime::format_duration(args.within));
            return false;
        }
        sleep(PAUSE).await;
    }
}

fn report(wishes: &[(&Url, Wish)], round: &[Outcome]) -> Vec<String> {
    let line = |((url, wish), outcome): (&(&Url, Wish), &Outcome)| {
        let mark = if wish.holds(outcome) { "ok" } else { "no" };
        format!("{mark}  {url} {wish}, was {outcome}")
    };
    wishes.iter().zip(round).map(line).collect()
}

//! `weft why ID`: what became of a request, by what the proxies on its way have kept of it.

#[cfg(test)]
mod tests;
mod view;

use std::process::ExitCode;

use weft_node_proxy::records::Record;

use self::view::{Latest, Story};
use crate::Output;
use crate::ask::{Answers, Proxies, Whom, encoded};
use crate::cluster::{self, Target, block_on};

/// What `why` ends with where nobody could be asked.
const CANNOT_TELL: u8 = 2;

/// Which request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request's id: x-request-id of its answer, or request_id of the access log. Left out: the last requests that failed
    /// are listed
    id: Option<String>,
    /// Requests that are listed without an id, of each proxy
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
    #[command(flatten)]
    from: Whom,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints. Ends with 0 if something is known, 1 if no proxy knows the request, 2 if not all could be asked and none
/// of the others knows it.
pub fn run(args: &Args, target: &Target) -> ExitCode {
    block_on(asked(args, target)).unwrap_or_else(|error| {
        eprintln!("weft: {error:#}");
        ExitCode::from(CANNOT_TELL)
    })
}

async fn asked(args: &Args, target: &Target) -> anyhow::Result<ExitCode> {
    let proxies = Proxies::of(target, &args.from).await?;
    let page = match &args.id {
        Some(id) => format!("/requests?id={}", encoded(id)),
        None => format!("/requests?last={}", args.last),
    };
    let answers = proxies.read(&page).await;
    let (known, unread) = known(answers);
    for why in &unread {
        eprintln!("weft: {why}");
    }
    let found = match &args.id {
        Some(id) => Story::of(id, known).map(|story| args.output.show(&story)),
        None => Some(args.output.show(&Latest::of(known, args.last))),
    };
    match found {
        Some(text) => {
            cluster::write(&text?)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let id = args.id.as_deref().unwrap_or_default();
            eprintln!("weft: no proxy knows request {id}: {}", view::NOT_KEPT);
            Ok(if unread.is_empty() { ExitCode::FAILURE } else { ExitCode::from(CANNOT_TELL) })
        }
    }
}

/// What the proxies have kept, each record with its proxy's name.
fn known(answers: Answers) -> (Vec<(String, Record)>, Vec<String>) {
    let Answers { pages, mut unread } = answers;
    let mut known = Vec::new();
    for (name, page) in pages {
        match serde_json::from_slice::<Vec<Record>>(&page) {
            Ok(records) => known.extend(records.into_iter().map(|record| (name.clone(), record))),
            Err(error) => unread.push(format!("{name}: {error}")),
        }
    }
    (known, unread)
}

//! Many ListenerSets of one Gateway, each with routes of its own, in several sizes: what grows, and how.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::api::Api;
use crate::edge::{self, WEB};
use crate::edits::quantile;
use crate::gateway::settle;
use crate::measure::{Process, load_average};
use crate::objects::{LISTENER_SET, ROUTE};
use crate::programs::Programs;
use crate::sheet::{Bar, Sheet};
use crate::traffic;

/// How long the largest size may take to start.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two edits.
const PAUSE: Duration = Duration::from_millis(200);

/// How many ListenerSets, and how many routes of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub sets: usize,
    pub routes: usize,
}

impl Sets {
    const fn of_each(self) -> usize {
        self.routes / self.sets
    }
}

impl FromStr for Sets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?}: expected SETSxROUTES, the same number of routes for each, such as 2500x40000");
        let (sets, routes) = text.split_once('x').ok_or_else(wrong)?;
        let this = Self { sets: sets.parse().map_err(|_| wrong())?, routes: routes.parse().map_err(|_| wrong())? };
        if this.sets > 0 && this.routes > 0 && this.routes.is_multiple_of(this.sets) { Ok(this) } else { Err(wrong()) }
    }
}

impl fmt::Display for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ListenerSets, {} routes", self.sets, self.routes)
    }
}

/// Measures all sizes, the smallest first.
pub async fn measure(api: &Api, programs: &Programs, sizes: &[Sets], edits: usize) -> anyhow::Result<Sheet> {
    let mut sheet = Sheet::new("ListenerSets");
    WEB.make(api).await?;
    let mut made = Sets::default();
    for size in sizes {
        let one_kind = made.sets == 0 || made.of_each() == size.of_each() && made.sets < size.sets;
        anyhow::ensure!(one_kind, "{size} after {made}: sizes grow, with as many routes for each ListenerSet");
        let began = Instant::now();
        edge::sets(api, (made.sets, size.sets), size.of_each()).await.with_context(|| format!("objects of {size}"))?;
        println!("{size}: objects made in {:.0} s", began.elapsed().as_secs_f64());
        made = *size;
        sheet.column(&size.to_string(), size.routes);
        one_size(api, programs, *size, edits, &mut sheet).await.with_context(|| size.to_string())?;
        println!("{sheet}");
    }
    Ok(sheet)
}

/// The controller and the Gateway's process anew, until nothing is left to do, and then edits.
async fn one_size(api: &Api, programs: &Programs, size: Sets, edits: usize, sheet: &mut Sheet) -> anyhow::Result<()> {
    let began = Instant::now();
    let controller = programs.gateway_controller()?;
    let of_controller = Process::of(controller.id());
    controller.ready(PATIENCE).await?;
    sheet.set("controller: start to ready, s", began.elapsed().as_secs_f64(), Bar::Linear);
    sheet.set("controller: CPU of the start, s", of_controller.cpu()?.as_secs_f64(), Bar::Linear);
    let gateway_began = Instant::now();
    let gateway = programs.gateway(api, WEB).await?;
    let of_gateway = Process::of(gateway.id());
    sheet.set("gateway: start to ready, s", gateway_began.elapsed().as_secs_f64(), Bar::Linear);
    counted(api, size).await?;
    sheet.set("controller: start to every status written, s", began.elapsed().as_secs_f64(), Bar::Linear);
    settle(of_controller).await?;
    sheet.set("controller: CPU until at rest, s", of_controller.cpu()?.as_secs_f64(), Bar::Linear);
    sheet.set("gateway: CPU of the start, s", of_gateway.cpu()?.as_secs_f64(), Bar::Linear);
    sheet.set("controller: memory, MiB", of_controller.memory()?, Bar::Linear);
    sheet.set("gateway: memory, MiB", of_gateway.memory()?, Bar::Linear);
    sheet.note("controller: most memory, MiB", of_controller.peak()?);
    sheet.note("gateway: most memory, MiB", of_gateway.peak()?);
    sheet.note("load average of the machine", load_average()?);
    edited(api, size, edits, [of_controller, of_gateway], sheet).await?;
    gateway.end().await?;
    controller.end().await
}

/// Waits until the last ListenerSet counts its routes, and the one in the middle.
async fn counted(api: &Api, size: Sets) -> anyhow::Result<()> {
    let began = Instant::now();
    for set in [size.sets / 2, size.sets - 1] {
        let (namespace, name) = edge::set_name(set);
        loop {
            let found = api.get(LISTENER_SET, &namespace, &name).await?.unwrap_or_default();
            let attached = found["status"]["listeners"][0]["attachedRoutes"].as_u64().unwrap_or_default();
            if usize::try_from(attached)? == size.of_each() {
                break;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "{name} counts {attached} routes: {}", found["status"]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Edits of a route each, from the API server's accept until the Gateway answers by it: to a redirect of everything, and back
/// to one path, which is not the one that is asked for.
async fn edited(api: &Api, size: Sets, edits: usize, of: [Process; 2], sheet: &mut Sheet) -> anyhow::Result<()> {
    let front = std::net::SocketAddr::from(([127, 0, 0, 1], WEB.port));
    let before = [of[0].cpu()?, of[1].cpu()?];
    let mut took = Vec::new();
    for edit in 1..=edits {
        let (set, number) = (edit * 7919 % size.sets, edit % size.of_each());
        let ((namespace, name), route) = (edge::set_name(set), edge::set_route_name(set, number));
        for (rules, status) in [(edge::redirect(), 302), (edge::set_rules(set, number, edit), 404)] {
            let wanted = move |answer: &traffic::Answer| answer.status == status;
            let host = format!("{name}.example.com");
            let watching = tokio::spawn(traffic::watch(front, host, wanted, Duration::from_secs(60)));
            api.patch(ROUTE, (&namespace, &route), &json!({ "spec": { "rules": rules } }), false).await?;
            let accepted = Instant::now();
            took.push(watching.await?.context("an edit")?.at.saturating_duration_since(accepted));
            tokio::time::sleep(PAUSE).await;
        }
    }
    took.sort_unstable();
    if took.is_empty() {
        return Ok(());
    }
    sheet.note("an edit of a route: p50, ms", quantile(&took, 0.5));
    sheet.note("an edit of a route: slowest, ms", quantile(&took, 1.0));
    let count = u32::try_from(took.len())?;
    for (name, process, before) in [("controller", of[0], before[0]), ("gateway", of[1], before[1])] {
        let each = (process.cpu()? - before) / count;
        sheet.set(&format!("{name}: CPU of an edit, ms"), each.as_secs_f64() * 1000.0, Bar::Linear);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_as_many_routes_for_each_listener_set() {
        assert_eq!("2500x40000".parse::<Sets>().map(Sets::of_each), Ok(16));
        for odd in ["2500", "0x10", "3x10", "10x0", "ax10"] {
            assert!(odd.parse::<Sets>().unwrap_err().contains("SETSxROUTES"), "{odd}");
        }
    }
}

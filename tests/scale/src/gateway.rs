//! A Gateway with thousands of routes: what it costs, how fast a route is live, and what clients see meanwhile.
//!
//! The measures are those of gateway-api-bench: propagation of a route with and without churn, edits of a live route under
//! load, memory and processor time at rest and with edits, metric series, and `attachedRoutes`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::api::Api;
use crate::edge::{self, EDGE, MANY, WEB};
use crate::edits::quantile;
use crate::measure::{Process, load_average};
use crate::objects::ROUTE;
use crate::programs::{Programs, Running};
use crate::sheet::{Bar, Sheet};
use crate::told::Told;
use crate::traffic::{self, Counts, Load, others, own_address};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one new route to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// From one route to the next that is edited; a prime, so that all of them have their turn.
const STRIDE: usize = 7919;
/// How long processor time at rest is measured, and with one edit each second.
const REST: Duration = Duration::from_secs(10);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Routes that are there.
    pub routes: usize,
    /// Routes that are made one after the other, at rest and again with churn.
    pub adds: usize,
    /// Routes that are edited once a second each, meanwhile.
    pub churn: usize,
    /// Edits of a route under load.
    pub edits: usize,
    /// Routes that are attached to one Gateway at once.
    pub attached: usize,
}

/// What runs.
struct World<'a> {
    api: &'a Api,
    controller: Running,
    gateway: Running,
    /// Where the Gateway serves.
    front: SocketAddr,
    plan: Plan,
}

/// Measures all of it.
pub async fn measure(api: &Api, programs: &Programs, plan: Plan) -> anyhow::Result<Sheet> {
    let mut sheet = Sheet::new("a Gateway");
    sheet.column(&format!("{} routes", plan.routes), plan.routes);
    WEB.make(api).await?;
    MANY.make(api).await?;
    let ip = own_address()?;
    let ((first, _serving), (second, _too)) = (traffic::application(ip).await?, traffic::application(ip).await?);
    edge::live_service(api, "first", first).await?;
    edge::live_service(api, "second", second).await?;
    let began = Instant::now();
    edge::routes(api, plan.routes).await.context("objects")?;
    println!("{} routes made in {:.0} s", plan.routes, began.elapsed().as_secs_f64());

    let began = Instant::now();
    let controller = programs.gateway_controller()?;
    controller.ready(PATIENCE * 5).await?;
    sheet.note("controller: start to ready, s", began.elapsed().as_secs_f64());
    attached(api, plan.routes).await?;
    sheet.note("start to every route counted, s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let gateway = programs.gateway(api, WEB).await?;
    sheet.note("gateway: start to ready, s", began.elapsed().as_secs_f64());
    let front = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), WEB.port);
    let world = World { api, controller, gateway, front, plan };
    settle(Process::of(world.controller.id())).await?;

    world.at_rest(&mut sheet).await?;
    world.live_edits(&mut sheet).await?;
    // One route has traffic so far. Each that has makes series of its own.
    world.series(&mut sheet, "with traffic of one route", Bar::AtMost(600.0)).await?;
    world.propagation(&mut sheet).await?;
    world.attached_routes(&mut sheet).await?;
    world.series(&mut sheet, &format!("with traffic of {} routes", 2 * plan.adds + 1), Bar::None).await?;
    world.memory_after(&mut sheet).await?;
    sheet.note("load average of the machine", load_average()?);
    world.gateway.end().await?;
    world.controller.end().await?;
    println!("{sheet}");
    Ok(sheet)
}

/// Waits until the status of the Gateway counts so many.
async fn attached(api: &Api, routes: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let found = WEB.attached(api).await?;
        if usize::try_from(found)? >= routes {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < PATIENCE * 5, "{found} of {routes} routes are attached");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until a process has next to nothing to do: a start that goes on is nobody's rest.
pub async fn settle(process: Process) -> anyhow::Result<()> {
    /// Of a core.
    const QUIET: f64 = 0.05;
    let began = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        let (at, cpu) = (Instant::now(), process.cpu()?);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let share = (process.cpu()? - cpu).as_secs_f64() / at.elapsed().as_secs_f64();
        quiet = if share < QUIET { quiet + 1 } else { 0 };
        anyhow::ensure!(began.elapsed() < PATIENCE * 10, "it never comes to rest: {:.0} % of a core", share * 100.0);
    }
    Ok(())
}

impl World<'_> {
    fn processes(&self) -> [(&'static str, Process); 2] {
        [("gateway", Process::of(self.gateway.id())), ("controller", Process::of(self.controller.id()))]
    }

    /// Memory, and processor time of nobody's traffic and of an edit each second.
    async fn at_rest(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        for ((who, process), most) in self.processes().into_iter().zip([40.0, 250.0]) {
            sheet.set(&format!("{who}: memory, MiB"), process.memory()?, Bar::AtMost(most));
        }
        // At most so many percent of a core.
        let (rest, edits) = ([Bar::AtMost(0.1), Bar::AtMost(1.0)], [Bar::AtMost(0.5), Bar::None]);
        for (name, edits, bars) in [("at rest", false, rest), ("one edit each second", true, edits)] {
            let before: Vec<_> = self.processes().iter().map(|(_, process)| process.cpu()).collect::<Result<_, _>>()?;
            let began = Instant::now();
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            tick.tick().await;
            let mut edit = 0;
            while began.elapsed() < REST {
                if edits {
                    edit += 1;
                    edit_route(self.api, edit * STRIDE % self.plan.routes, edit).await?;
                }
                tick.tick().await;
            }
            let took = began.elapsed().as_secs_f64();
            for (((who, process), before), bar) in self.processes().iter().zip(before).zip(bars) {
                let share = (process.cpu()? - before).as_secs_f64() / took * 100.0;
                sheet.set(&format!("{who}: {name}, % of a core"), share, bar);
            }
        }
        Ok(())
    }

    /// New routes, one after the other, first with nothing else going on and then beside churn.
    async fn propagation(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        for churns in [false, true] {
            let name = if churns { "a new route beside churn" } else { "a new route" };
            let (churn, began) = (churns.then(|| self.churn()), Instant::now());
            let (mut took, mut to_tell, mut since_told) = (Vec::new(), Vec::new(), Vec::new());
            let mut answers = Counts::new();
            let told = Told::start(self.api, ROUTE, EDGE).await?;
            for number in 0..self.plan.adds {
                let new = format!("new-{churns}-{number}");
                let host = format!("{new}.example.com");
                let watching =
                    tokio::spawn(traffic::watch(self.front, host.clone(), |answer| answer.status == 200, PATIENCE));
                // Asked for before it is there, as by somebody impatient.
                tokio::time::sleep(PAUSE).await;
                self.api.create(ROUTE, edge::live_route(WEB, &new, &host, &edge::marked("first", 0))).await?;
                let accepted = Instant::now();
                let seen = watching.await?.context("a new route")?;
                took.push(seen.at.saturating_duration_since(accepted));
                let told = told.of(&new).await?;
                to_tell.push(told.saturating_duration_since(accepted));
                since_told.push(seen.at.saturating_duration_since(told.max(accepted)));
                seen.answers.into_iter().for_each(|(word, count)| *answers.entry(word).or_default() += count);
            }
            if let Some((churn, edits)) = churn {
                churn.abort();
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let edits = edits.load(Ordering::Relaxed) as f64;
                sheet.note("churn: edits a second", edits / began.elapsed().as_secs_f64());
            }
            took.sort_unstable();
            sheet.note(&format!("{name}: p50, ms"), quantile(&took, 0.5));
            sheet.set(&format!("{name}: p99, ms"), quantile(&took, 0.99), Bar::AtMost(30.0));
            sheet.note(&format!("{name}: slowest, ms"), quantile(&took, 1.0));
            for (times, what) in
                [(&mut to_tell, "told of by the API server"), (&mut since_told, "after it was told of")]
            {
                times.sort_unstable();
                sheet.note(&format!("{name}: {what}, p50, ms"), quantile(times, 0.5));
                sheet.note(&format!("{name}: {what}, p99, ms"), quantile(times, 0.99));
            }
            odd(sheet, &format!("{name}: answers but 404, then 200"), &answers, &["404", "200"]);
        }
        Ok(())
    }

    /// Edits of other routes, of each once a second, until the task is aborted. An API server that can't follow is asked for
    /// fewer: one whose queue only grows would never be measured. Counts what it makes.
    fn churn(&self) -> (JoinHandle<()>, Arc<AtomicUsize>) {
        let (api, count) = (self.api.clone(), self.plan.churn.min(self.plan.routes));
        let made = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&made);
        let churn = tokio::spawn(async move {
            let mut all = JoinSet::new();
            let mut start = tokio::time::interval(Duration::from_secs(1) / u32::try_from(count).unwrap_or(u32::MAX));
            for number in 0..count {
                start.tick().await;
                all.spawn(edits_of(api.clone(), number, Arc::clone(&counted)));
            }
            while all.join_next().await.is_some() {}
        });
        (churn, made)
    }

    /// Edits of a route that has traffic: to the other Service and back, with another mark each time.
    async fn live_edits(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        let host = "live.example.com";
        self.api.create(ROUTE, edge::live_route(WEB, "live", host, &edge::marked("first", 0))).await?;
        traffic::watch(self.front, host.to_owned(), |answer| answer.status == 200, PATIENCE).await?;
        let load = Load::start(self.front, host, 4, 100);
        let mut took = Vec::new();
        for edit in 1..=self.plan.edits {
            let mark = edit.to_string();
            let wanted = move |answer: &traffic::Answer| answer.mark.as_deref() == Some(&mark);
            let watching = tokio::spawn(traffic::watch(self.front, host.to_owned(), wanted, PATIENCE));
            let service = if edit % 2 == 0 { "first" } else { "second" };
            let patch = json!({ "spec": { "rules": [edge::marked(service, edit)] } });
            self.api.patch(ROUTE, (EDGE, "live"), &patch, false).await?;
            let accepted = Instant::now();
            took.push(watching.await?.context("an edit")?.at.saturating_duration_since(accepted));
            tokio::time::sleep(PAUSE * 4).await;
        }
        let answers = load.end().await?;
        took.sort_unstable();
        sheet.note("an edit of a live route: p50, ms", quantile(&took, 0.5));
        sheet.note("an edit of a live route: slowest, ms", quantile(&took, 1.0));
        odd(sheet, &format!("{} edits under load: answers but 200", self.plan.edits), &answers, &["200"]);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        sheet.note("of so many requests", answers.values().sum::<usize>() as f64);
        Ok(())
    }

    /// Many routes for one Gateway at once, and their end.
    async fn attached_routes(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        let names: Vec<_> = (0..self.plan.attached).map(|number| format!("many-{number}")).collect();
        let route = |name: &String| {
            (ROUTE, edge::live_route(MANY, name, &format!("{name}.example.com"), &edge::marked("first", 0)))
        };
        for (name, count) in [("made", self.plan.attached), ("removed", 0)] {
            match count {
                0 => self.api.delete_all(ROUTE, EDGE, names.clone()).await?,
                _ => self.api.create_all(names.iter().map(route)).await?,
            }
            let began = Instant::now();
            while usize::try_from(MANY.attached(self.api).await?)? != count {
                anyhow::ensure!(began.elapsed() < PATIENCE, "attachedRoutes is not {count}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let name = format!("{} routes {name}: attachedRoutes right after, s", self.plan.attached);
            sheet.set(&name, began.elapsed().as_secs_f64(), Bar::AtMost(1.0));
        }
        Ok(())
    }

    /// What a scraper gets of both processes.
    async fn series(&self, sheet: &mut Sheet, when: &str, bar: Bar) -> anyhow::Result<()> {
        let (of_gateway, of_controller) = (self.gateway.series().await?, self.controller.series().await?);
        let each = [("gateway", of_gateway), ("controller", of_controller)];
        #[expect(clippy::cast_precision_loss, reason = "small")]
        each.iter().for_each(|(who, count)| sheet.note(&format!("{who}: metric series {when}"), *count as f64));
        #[expect(clippy::cast_precision_loss, reason = "small")]
        sheet.set(&format!("metric series together {when}"), (of_gateway + of_controller) as f64, bar);
        Ok(())
    }

    /// Memory, after all that.
    async fn memory_after(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        // What was freed goes back a few seconds after the last change.
        tokio::time::sleep(Duration::from_secs(5)).await;
        for (who, process) in self.processes() {
            sheet.note(&format!("{who}: memory at the end, MiB"), process.memory()?);
            sheet.note(&format!("{who}: most memory, MiB"), process.peak()?);
        }
        Ok(())
    }
}

/// Writes other rules to a route that is only there.
async fn edit_route(api: &Api, number: usize, edit: usize) -> anyhow::Result<()> {
    let (namespace, name) = edge::route_name(number);
    let patch = json!({ "spec": { "rules": edge::rules(number, edit) } });
    api.patch(ROUTE, (&namespace, &name), &patch, false).await
}

/// Edits one route once a second, for ever.
async fn edits_of(api: Api, number: usize, made: Arc<AtomicUsize>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for edit in 1.. {
        tick.tick().await;
        match edit_route(&api, number, edit).await {
            Ok(()) => _ = made.fetch_add(1, Ordering::Relaxed),
            Err(error) => println!("churn: {error:#}"),
        }
    }
}

/// Notes how many answers were others than the good ones, and says which.
fn odd(sheet: &mut Sheet, name: &str, answers: &Counts, good: &[&str]) {
    let count = others(answers, good);
    if count > 0 {
        println!("{name}: {answers:?}");
    }
    #[expect(clippy::cast_precision_loss, reason = "small")]
    sheet.set(name, count as f64, Bar::AtMost(0.0));
}

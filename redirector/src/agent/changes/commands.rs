//! Changes of the routes: checked, leased, saved, followed, and live before they are answered.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    agent::{event_loop::Owner, state::desired_state, views::route_view},
    control::{
        ApiError, Caller, Command, ErrorCode, Reply,
        api::{self, ChangeKind, VERSION},
    },
    error::error_chain,
    route::{
        Edit, Route, RouteDiff, RouteOrigin, RouteProblems, RouteSet, RouteSetError, SourceName,
    },
    state::{Author, Change, LeaseError},
};

/// How long a change waits for the first answer about a new destination. After that it is live with
/// what is known: perhaps nothing.
const SETTLE: Duration = Duration::from_secs(2);

/// What to do when a change's destinations have settled.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Nothing is waiting.
    Nothing,
    /// The agent's start is over.
    Started,
    /// Answer the change of one route.
    Changed(Reply<api::Changed>, ChangeKind, SourceName),
    /// Answer a rollback.
    RolledBack(Reply<api::RolledBack>, Box<api::RolledBack>),
    /// Answer an import.
    Imported(Reply<api::Imported>, Box<api::Imported>),
    /// Answer a reload.
    Reloaded(Reply<api::Reloaded>, api::Reloaded),
}

/// Who asks for a change, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    pub(crate) did: &'static str,
    pub(crate) caller: Caller,
    /// The change that is taken back.
    pub(crate) undoes: Option<u64>,
}

impl Why {
    fn of(kind: ChangeKind, caller: Caller) -> Self {
        let did = match kind {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Unchanged => "unchanged",
            ChangeKind::Removed => "removed",
            ChangeKind::Restored => "restored",
        };
        Self { did, caller, undoes: None }
    }
}

/// A wait that is over: the sources it held back, with the number of the change.
pub(crate) type Settled = (Vec<(SourceName, u64)>, Finish);

impl Owner {
    /// Carries out one command as a whole.
    pub(crate) fn command(&mut self, command: Command) {
        // A client that has gone does not take its answer; its change stands all the same.
        match command {
            Command::Status(reply) => drop(reply.send(Ok(route_view::status(self)))),
            Command::Routes(reply) => {
                drop(reply.send(Ok(api::RouteList {
                    version: VERSION,
                    routes: route_view::routes(self),
                })))
            }
            Command::Route(source, reply) => {
                let show = route_view::route(self, &source)
                    .map(|route| api::RouteShow { version: VERSION, route });
                drop(reply.send(show.ok_or_else(|| self.unknown(&source))));
            }
            Command::Export(reply) => {
                let routes = self.live.routes.iter().map(|entry| entry.route.into()).collect();
                drop(reply.send(Ok(api::Export { version: VERSION, routes })));
            }
            Command::Add(raw, caller, reply) => self.change(caller, reply, |routes| {
                let edit = routes
                    .plan_add(Route::try_from(*raw).map_err(invalid)?, RouteOrigin::CommandLine)
                    .map_err(refusal)?;
                Ok((ChangeKind::Added, edit.source.clone(), Some(edit)))
            }),
            Command::Set(source, patch, caller, reply) => self.change(caller, reply, |routes| {
                let edit = routes.plan_set(&source, &patch).map_err(refusal)?;
                Ok((
                    if edit.is_some() { ChangeKind::Changed } else { ChangeKind::Unchanged },
                    source,
                    edit,
                ))
            }),
            Command::Remove(source, caller, reply) => self.change(caller, reply, |routes| {
                let edit = routes.plan_remove(&source).map_err(refusal)?;
                let hides = routes.get(&source).is_some_and(|entry| entry.hides.is_some());
                Ok((
                    if hides { ChangeKind::Restored } else { ChangeKind::Removed },
                    source,
                    Some(edit),
                ))
            }),
            Command::History(reply) => drop(reply.send(Ok(self.changes_made()))),
            Command::Change(number, reply) => drop(reply.send(self.change_made(number))),
            Command::Rollback(request, caller, reply) => self.rollback(request, caller, reply),
            Command::Events(query, reply) => drop(reply.send(self.subscribe(query))),
            Command::Import(request, caller, reply) => self.import(request, caller, reply),
            Command::Reload(caller, reply) => {
                info!(%caller, "a reload was asked for");
                match self.reload() {
                    Ok(reloaded) => self.settle_changed(
                        reloaded.changed.clone(),
                        Finish::Reloaded(reply, reloaded),
                    ),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }

    /// A change of one route, as `make` says: saved, and then served.
    fn change(
        &mut self,
        caller: Caller,
        reply: Reply<api::Changed>,
        make: impl FnOnce(&RouteSet) -> Result<(ChangeKind, SourceName, Option<Edit>), ApiError>,
    ) {
        let made = make(&self.live.routes).and_then(|(kind, source, edit)| {
            let changed =
                edit.map(|edit| self.commit_one(edit, &Why::of(kind, caller))).transpose()?;
            Ok((changed.into_iter().collect(), kind, source))
        });
        match made {
            Ok((changed, kind, source)) => {
                info!(%caller, %source, change = ?kind, "a route was changed");
                self.settle_changed(changed, Finish::Changed(reply, kind, source));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn import(&mut self, request: api::ImportRequest, caller: Caller, reply: Reply<api::Imported>) {
        let made = || -> Result<(RouteSet, api::Imported), ApiError> {
            let mut problems = RouteProblemsList::default();
            let routes: Vec<Route> = request
                .routes
                .into_iter()
                .filter_map(|raw| problems.take(Route::try_from(raw)))
                .collect();
            problems.none()?;
            let mut next = self.live.routes.clone();
            let diff = next.import(routes, request.replace).map_err(refusal)?;
            Ok((next, imported(diff, request.dry_run)))
        };
        let (next, answer) = match made() {
            Ok(made) => made,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if request.dry_run {
            return drop(reply.send(Ok(answer)));
        }
        match self.commit(next, &Why { did: "imported", caller, undoes: None }) {
            Ok(changed) => {
                let (added, differing, removed) =
                    (answer.added.len(), answer.changed.len(), answer.removed.len());
                info!(%caller, added, changed = differing, removed, "routes were imported");
                self.settle_changed(changed, Finish::Imported(reply, Box::new(answer)));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Leases, saves and follows what `next` has; after this it is what is wanted. Says which
    /// sources differ from before.
    pub(crate) fn commit(
        &mut self,
        next: RouteSet,
        why: &Why,
    ) -> Result<Vec<SourceName>, ApiError> {
        self.lease(next.iter().map(|entry| &entry.route.source))?;
        self.save(&self.live.routes.edits(&next), why)?;
        Ok(self.serve(next))
    }

    /// As [`Owner::commit`] where one route changes: the others are not looked at, however many
    /// they are.
    fn commit_one(&mut self, edit: Edit, why: &Why) -> Result<SourceName, ApiError> {
        self.lease(edit.after.iter().map(|stored| &stored.route.source))?;
        self.save(std::slice::from_ref(&edit), why)?;
        let source = edit.source.clone();
        let before = self.live.routes.get(&source).map(|entry| entry.route.clone());
        self.live.routes.apply(edit);
        self.live.follow_only(&source);
        self.await_destination(&source, before.as_ref());
        Ok(source)
    }

    /// A lease without a route is freed by the next reconciliation; a route without a lease would
    /// not be live.
    fn lease<'s>(
        &mut self,
        sources: impl IntoIterator<Item = &'s SourceName>,
    ) -> Result<(), ApiError> {
        self.live.leases.lease_all(sources).map_err(lease_refusal)
    }

    /// On disk when this returns.
    fn save(&mut self, edits: &[Edit], why: &Why) -> Result<(), ApiError> {
        let by = Author { uid: why.caller.uid, gid: why.caller.gid, pid: why.caller.pid };
        let change = Change { by, action: why.did, undoes: why.undoes };
        let committed =
            self.state.commit(&change, edits, self.live.routes.stored(), &mut self.live.leases);
        let refused = |error| {
            ApiError::new(
                ErrorCode::Storage,
                format!("nothing was changed: {}", error_chain(&error)),
            )
        };
        if committed.map_err(refused)? {
            *self.changes.entry(why.did.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    /// The routes of `next` are what is wanted from here on.
    fn serve(&mut self, next: RouteSet) -> Vec<SourceName> {
        let before = std::mem::replace(&mut self.live.routes, next);
        self.live.follow();
        let old = |source: &SourceName| before.get(source).map(|entry| entry.route);
        let differing =
            self.live.routes.iter().filter(|entry| old(&entry.route.source) != Some(entry.route));
        let mut changed: Vec<_> = differing.map(|entry| entry.route.source.clone()).collect();
        for source in &changed {
            self.await_destination(source, old(source));
        }
        changed.extend(
            before
                .iter()
                .map(|entry| &entry.route.source)
                .filter(|source| self.live.routes.get(source).is_none())
                .cloned(),
        );
        changed
    }

    /// Holds a route back whose destination is not known yet. `before` is what served for its
    /// source.
    fn await_destination(&mut self, source: &SourceName, before: Option<&Route>) {
        let Some(route) = self.live.routes.get(source).map(|entry| entry.route) else { return };
        if self
            .live
            .follower
            .current()
            .get(source)
            .is_some_and(|resolved| desired_state::is_known(resolved))
        {
            return;
        }
        let replaced = before.is_some_and(|old| {
            old.destination != route.destination || old.resolver != route.resolver
        });
        self.live.awaits(source, replaced);
    }

    /// Makes live what can be; `finish` follows when the destinations of `sources` have answered,
    /// or [`SETTLE`] is over.
    pub(crate) fn settle_changed(&mut self, sources: Vec<SourceName>, finish: Finish) {
        self.warn_of_sources(&sources);
        let _ = self.live.reconcile_only(&sources);
        let held: Vec<_> = sources
            .into_iter()
            .filter_map(|source| self.live.held(&source).map(|change| (source, change)))
            .collect();
        if held.is_empty() {
            return self.finish(finish);
        }
        let follower = self.live.follower.clone();
        self.waits.spawn(async move {
            let all = held.iter().map(|(source, _)| follower.wait_for_answer(source, SETTLE));
            futures_util::future::join_all(all).await;
            (held, finish)
        });
    }

    /// Source addresses that this host lacks cost no connect, but the load balancer may not know
    /// the ones that are used instead.
    fn warn_of_sources(&self, sources: &[SourceName]) {
        for route in sources
            .iter()
            .filter_map(|source| self.live.routes.get(source))
            .map(|entry| entry.route)
        {
            for ip in route.source_ips.iter().filter(|ip| !crate::host::has_address(**ip)) {
                warn!(source = %route.source, "this host lacks the source address {ip}: connects \
                    go out from the kernel's choice");
            }
        }
    }

    /// A wait is over.
    pub(crate) fn settled(&mut self, (held, finish): Settled) {
        for (source, change) in &held {
            self.live.arrived(source, *change);
        }
        let sources: Vec<_> = held.into_iter().map(|(source, _)| source).collect();
        let _ = self.live.reconcile_only(&sources);
        self.finish(finish);
    }

    fn finish(&mut self, finish: Finish) {
        match finish {
            Finish::Nothing => {}
            Finish::Started => self.started(),
            Finish::Changed(reply, kind, source) => drop(reply.send(self.answer(kind, source))),
            Finish::Imported(reply, mut answer) => {
                answer.warnings = self.warnings_of(&answer);
                drop(reply.send(self.kernel_took_it().map(|()| *answer)));
            }
            Finish::RolledBack(reply, mut answer) => {
                answer.result.warnings = self.warnings_of(&answer.result);
                drop(reply.send(self.kernel_took_it().map(|()| *answer)));
            }
            Finish::Reloaded(reply, reloaded) => {
                drop(reply.send(self.kernel_took_it().map(|()| reloaded)))
            }
        }
        self.tell_readiness();
    }

    fn answer(&self, change: ChangeKind, source: SourceName) -> Result<api::Changed, ApiError> {
        self.kernel_took_it()?;
        let route = route_view::route(self, &source);
        if change != ChangeKind::Removed && route.is_none() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!("the route of {source} was removed by somebody else meanwhile"),
            ));
        }
        let warnings = self.warnings(&source);
        Ok(api::Changed { version: VERSION, change, source, route, warnings })
    }

    fn kernel_took_it(&self) -> Result<(), ApiError> {
        let Some(refused) = &self.live.refused else { return Ok(()) };
        let message = format!("the change is kept, but the kernel did not take it: {refused}");
        Err(ApiError::new(ErrorCode::Kernel, message)
            .remedy("the agent goes on trying; `redirector status` tells when it is live"))
    }

    /// What is amiss with routes that are new or different.
    fn warnings_of(&self, answer: &api::Imported) -> Vec<String> {
        let sources =
            answer.added.iter().chain(answer.changed.iter().map(|differing| &differing.new));
        let sources: Vec<SourceName> = sources.filter_map(|raw| raw.source.parse().ok()).collect();
        sources.iter().flat_map(|source| self.warnings(source)).collect()
    }

    /// What is amiss with a route that was just changed.
    fn warnings(&self, source: &SourceName) -> Vec<String> {
        crate::agent::views::problems::of_route(self, source)
            .into_iter()
            .map(|problem| problem.message)
            .collect()
    }

    pub(crate) fn unknown(&self, source: &SourceName) -> ApiError {
        refusal(self.live.routes.unknown(source))
    }

    /// Reads the configuration file again and serves it; on an error nothing changes but what
    /// `status` says.
    pub(crate) fn reload(&mut self) -> Result<api::Reloaded, ApiError> {
        self.watch.reading();
        let loaded = crate::config::load(&self.config_path);
        let committed = match loaded {
            Ok(config) => self.take(config),
            Err(errors) => {
                let remedy = "correct the file; what it said before is still in use";
                Err(ApiError::new(ErrorCode::Invalid, errors.to_string()).remedy(remedy))
            }
        };
        match committed {
            Ok(changed) => {
                self.config_error = None;
                self.loaded_at = jiff::Timestamp::now();
                info!(changed = changed.len(), "the configuration was reloaded");
                if !self.restart_needed.is_empty() {
                    warn!(
                        keys = self.restart_needed.join(", "),
                        "these keys take effect when the agent is restarted"
                    );
                }
                Ok(api::Reloaded {
                    version: VERSION,
                    changed,
                    restart_needed_for: self.restart_needed.clone(),
                })
            }
            Err(error) => {
                warn!(
                    "the configuration was not reloaded, what it said before is still in use: \
                        {error}"
                );
                self.config_error = Some(error.message.clone());
                Err(error)
            }
        }
    }

    fn take(&mut self, config: crate::config::Config) -> Result<Vec<SourceName>, ApiError> {
        let next = self.live.routes.with_file(self.live.pool.clone(), config.routes.clone());
        // The store is as it was, so there is nothing to record.
        let changed =
            self.commit(next, &Why { did: "reloaded", caller: Caller::default(), undoes: None })?;
        if !changed.is_empty() {
            *self.changes.entry("reloaded".to_owned()).or_default() += 1;
        }
        self.restart_needed = restart_needed(&self.at_start, &config);
        if let Err(error) = self.live.datapath.set_connect_timeout(config.health.connect_timeout) {
            warn!("health.connect_timeout stays as it was: {}", error_chain(&error));
        }
        self.config = config;
        Ok(changed)
    }
}

/// Keys whose new value the running agent does not take over.
fn restart_needed(running: &crate::config::Config, new: &crate::config::Config) -> Vec<String> {
    let (one, other) = (running, new);
    let keys = [
        ("agent.state_dir", one.agent.state_dir != other.agent.state_dir),
        ("agent.run_dir", one.agent.run_dir != other.agent.run_dir),
        ("agent.bpffs", one.agent.bpffs != other.agent.bpffs),
        ("agent.admin", one.agent.admin != other.agent.admin),
        ("pool", one.pool != other.pool),
        ("dns", one.dns != other.dns),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

pub(crate) fn imported(diff: RouteDiff, dry_run: bool) -> api::Imported {
    let RouteDiff { added, changed, removed, unchanged } = diff;
    let changed = changed
        .into_iter()
        .map(|change| api::Differing { old: change.old, new: change.new })
        .collect();
    api::Imported {
        version: VERSION,
        dry_run,
        added,
        changed,
        removed,
        unchanged,
        warnings: vec![],
    }
}

/// The problems of many routes, told together.
#[derive(Default)]
struct RouteProblemsList(Vec<String>);

impl RouteProblemsList {
    fn take(&mut self, route: Result<Route, RouteProblems>) -> Option<Route> {
        route.map_err(|problems| self.0.push(problems.to_string())).ok()
    }

    fn none(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ApiError::new(ErrorCode::Invalid, self.0.join("\n")))
        }
    }
}

fn invalid(problems: RouteProblems) -> ApiError {
    ApiError::new(ErrorCode::Invalid, problems.to_string())
}

fn refusal(error: RouteSetError) -> ApiError {
    let code = match &error {
        RouteSetError::Exists { .. }
        | RouteSetError::InFile { .. }
        | RouteSetError::ReplaceFile { .. } => ErrorCode::Conflict,
        RouteSetError::Unknown { .. } => ErrorCode::NotFound,
        RouteSetError::Problems(_) => ErrorCode::Invalid,
    };
    ApiError::new(code, error.to_string())
}

fn lease_refusal(error: LeaseError) -> ApiError {
    let code = if matches!(error, LeaseError::PoolFull { .. }) {
        ErrorCode::Exhausted
    } else {
        ErrorCode::Storage
    };
    ApiError::new(code, format!("nothing was changed: {}", error_chain(&error)))
}

//! What the command line does with the cluster's routes.

use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};

use super::resources::{RedirectRoute, RedirectRouteSpec, RouteStatus};
use crate::{
    kubernetes::{ApiError, answer},
    route::{RawRoute, SourceName},
};

/// The routes of a cluster, for the command line.
#[derive(Clone)]
pub struct ClusterClient {
    routes: Api<RedirectRoute>,
}

impl ClusterClient {
    /// Those of the cluster that `client` reaches.
    pub fn new(client: Client) -> Self {
        Self { routes: Api::all(client) }
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// If there is one of that name, or the API server refuses it or does not know the kind.
    pub async fn add(&self, name: &str, route: &RawRoute) -> Result<(), ApiError> {
        let object = RedirectRoute::new(name, RedirectRouteSpec::from(route));
        let params = PostParams::default();
        let created = self.routes.create(&params, &object);
        let what = format!("to create the RedirectRoute {name}");
        answer(&what, created).await.map(drop).map_err(ApiError::of_resource)
    }

    /// What the controller has made of a route; none until it has seen it.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or the route is gone.
    pub async fn status(&self, name: &str) -> Result<Option<RouteStatus>, ApiError> {
        let route = answer("to read a RedirectRoute", self.routes.get(name)).await?;
        let generation = route.metadata.generation.unwrap_or_default();
        Ok(route.status.filter(|status| status.observed_generation == generation))
    }

    /// Removes the route of a source. Returns its name; none if there is none.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not know the kind.
    pub async fn remove(&self, source: &SourceName) -> Result<Option<String>, ApiError> {
        let params = ListParams::default();
        let listed = answer("to list RedirectRoutes", self.routes.list(&params)).await;
        let all = listed.map_err(ApiError::of_resource)?;
        let has_source = |route: &&RedirectRoute| {
            route.spec.source.parse().is_ok_and(|s: SourceName| s == *source)
        };
        // Of several with this source, the one that is in force.
        let is_accepted =
            |route: &&RedirectRoute| route.status.as_ref().is_some_and(RouteStatus::is_accepted);
        let mut found: Vec<_> = all.items.iter().filter(has_source).collect();
        found.sort_by_key(|route| !is_accepted(route));
        let Some(route) = found.first() else { return Ok(None) };
        let name = route.name_any();
        let params = DeleteParams::default();
        answer("to delete a RedirectRoute", self.routes.delete(&name, &params)).await?;
        Ok(Some(name))
    }
}

//! Probes: `/healthz` (is the process up?), `/readyz` (is the database reachable?) and `/metrics`.
//!
//! Load balancers, scrapes and people ask for them without a token, so these routes are not in `routes.rs`.

use std::{future, sync::Arc, time::Duration};

use http::{Method, header};
use tokio::{task::spawn_blocking, time::timeout};
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{error::method_not_allowed, reply};
use crate::{
    domain::error::{Code, Error, Result},
    metrics::{CONTENT_TYPE, Gauge},
    service::Service,
    storage::Readiness,
    supervise::Supervisor,
};

/// The time that a scrape waits for the database. Prometheus waits ten seconds for the whole scrape.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Routes the three probes.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let tasks = service.tasks.clone();
    let health = move |method| answer_reads(method, future::ready(health(&tasks)));
    let healthz = path!("healthz").and(warp::method()).then(health).boxed();
    let database = service.clone();
    let readiness = move |method| answer_reads(method, readiness(database.clone()));
    let readyz = path!("readyz").and(warp::method()).then(readiness).boxed();
    let database_up =
        service.metrics.gauge("database_up", "1 if the database answers, as GET /readyz reports it");
    let scrape = move |method| answer_reads(method, scrape(service.clone(), database_up.clone()));
    let metrics = path!("metrics").and(warp::method()).then(scrape).boxed();
    healthz.or(readyz).unify().or(metrics).unify().boxed()
}

async fn answer_reads(method: Method, answer: impl Future<Output = Result<impl Reply>>) -> Response {
    match method {
        Method::GET | Method::HEAD => answer.await.into_response(),
        method => method_not_allowed(&method, "GET, HEAD").into_response(),
    }
}

/// Answers 500 once a task that the server depends on cannot go on.
fn health(tasks: &Supervisor) -> Result<impl Reply + use<>> {
    match tasks.failure() {
        None => Ok(reply::ok()),
        Some(task) => {
            let detail = format!("the task `{task}` cannot go on; the server is about to be started again");
            Err(Error::new(Code::Unhealthy, detail))
        }
    }
}

/// Answers 503 while no connection for changes can be had, because every change would fail. A database that only
/// refuses changes can still be read, so the answer is 200 and says so.
async fn readiness(service: Arc<Service>) -> Result<impl Reply> {
    match service.readiness().await {
        Readiness::Ready => Ok(reply::ok()),
        Readiness::ReadsOnly => Ok(reply::reads_only()),
        Readiness::NoWriter => {
            let detail = "the database can be read, but there is no connection for changes; try again";
            Err(Error::new(Code::StorageUnavailable, detail))
        }
        Readiness::Away => Err(Error::database_away()),
    }
}

/// Answers with all metrics.
async fn scrape(service: Arc<Service>, database_up: Gauge) -> Result<impl Reply> {
    let database = service.clone();
    // A task of its own, so that an answer that comes too late for this scrape is there for the next.
    let check = tokio::spawn(async move {
        let is_up = matches!(database.readiness().await, Readiness::Ready | Readiness::ReadsOnly);
        database_up.set(is_up.into());
    });
    let _ = timeout(DATABASE_TIMEOUT, check).await;
    // Some of the numbers are read from /proc, which may take a while.
    let text = spawn_blocking(move || service.metrics.text()).await.map_err(Error::internal)?;
    Ok(warp::reply::with_header(text, header::CONTENT_TYPE, CONTENT_TYPE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_task_that_cannot_go_on_fails_the_health_check() {
        let tasks = Supervisor::start(&Metrics::default());
        let status = || health(&tasks).into_response().status();
        assert_eq!(status(), 200);
        tasks.task("test").fail("a test says so");
        assert_eq!(status(), 500);
        assert_eq!(health(&tasks).err().map(|error| error.code), Some(Code::Unhealthy));
    }
}

//! Is the process up, is the database reachable, what is counted: for load balancers, scrapes and people.

use std::{future, sync::Arc, time::Duration};

use http::{Method, header};
use tokio::{task::spawn_blocking, time::timeout};
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{error::method_not_allowed, locations::respond, reply};
use crate::{
    domain::error::{Code, Error},
    metrics::{CONTENT_TYPE, Gauge},
    service::Service,
    storage::Readiness,
    supervise::Supervisor,
};

/// How long a scrape waits to hear of the database. Prometheus waits ten seconds for the whole.
const SCRAPED: Duration = Duration::from_secs(1);

/// `GET /healthz`, `GET /readyz`, `GET /metrics`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let tasks = service.tasks.clone();
    let health = move |method| to_reads(method, future::ready(healthy(&tasks)));
    let healthz = path!("healthz").and(warp::method()).then(health).boxed();
    let asked = service.clone();
    let ready = move |method| to_reads(method, ready(asked.clone()));
    let readyz = path!("readyz").and(warp::method()).then(ready).boxed();
    let database = service.metrics.gauge("database_up", "1 if the database answers, as for GET /readyz");
    let scrape = move |method| to_reads(method, counted(service.clone(), database.clone()));
    let metrics = path!("metrics").and(warp::method()).then(scrape).boxed();
    healthz.or(readyz).unify().or(metrics).unify().boxed()
}

async fn to_reads(method: Method, answer: impl Future<Output = Response>) -> Response {
    match method {
        Method::GET | Method::HEAD => answer.await,
        method => method_not_allowed(&method, "GET, HEAD").into_response(),
    }
}

/// 500 once a task that everybody lives by cannot go on.
fn healthy(tasks: &Supervisor) -> Response {
    respond(match tasks.failure() {
        None => Ok(reply::ok()),
        Some(task) => {
            let detail = format!("the task `{task}` cannot go on; the server is about to be started again");
            Err(Error::new(Code::Unhealthy, detail))
        }
    })
}

/// Answers 503 while no connection for changes can be had, because every change would fail. A database that only refuses
/// changes can still be read, so the answer is 200 and says so.
async fn ready(service: Arc<Service>) -> Response {
    respond(match service.readiness().await {
        Readiness::Ready => Ok(reply::ok()),
        Readiness::ReadsOnly => Ok(reply::reads_only()),
        Readiness::NoWriter => {
            let detail = "the database can be read, but there is no connection for changes; try again";
            Err(Error::new(Code::StorageUnavailable, detail))
        }
        Readiness::Away => Err(Error::database_away()),
    })
}

async fn counted(service: Arc<Service>, database_up: Gauge) -> Response {
    let asked = service.clone();
    // In a task: an answer that comes after the scrape is there for the next.
    let ask = tokio::spawn(async move {
        let is_up = matches!(asked.readiness().await, Readiness::Ready | Readiness::ReadsOnly);
        database_up.set(is_up.into());
    });
    let _ = timeout(SCRAPED, ask).await;
    // Some of it is read from /proc, which may take a while.
    match spawn_blocking(move || service.metrics.text()).await {
        Ok(text) => warp::reply::with_header(text, header::CONTENT_TYPE, CONTENT_TYPE).into_response(),
        Err(error) => Error::internal(error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_task_that_cannot_go_on_is_told_by_the_health_check() {
        let tasks = Supervisor::start(&Metrics::default());
        assert_eq!(healthy(&tasks).status(), 200);
        tasks.task("test").fail("a test says so");
        let answer = healthy(&tasks);
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.extensions().get::<Code>(), Some(&Code::Unhealthy));
    }
}

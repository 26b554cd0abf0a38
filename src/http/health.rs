//! Is the process up, is the database reachable, what is counted: for load balancers, scrapes and people.

use std::sync::Arc;

use http::{Method, header};
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{error::method_not_allowed, locations::respond, reply};
use crate::{metrics::CONTENT_TYPE, service::Service};

/// `GET /healthz`, `GET /readyz`, `GET /metrics`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let healthz = path!("healthz").and(warp::method()).map(|method: Method| match method {
        Method::GET | Method::HEAD => reply::ok().into_response(),
        method => method_not_allowed(&method, "GET, HEAD").into_response(),
    });
    let metrics = service.metrics.clone();
    let readyz =
        path!("readyz").and(warp::method()).then(move |method| ready(method, service.clone())).boxed();
    let metrics = path!("metrics").and(warp::method()).map(move |method: Method| match method {
        Method::GET | Method::HEAD => {
            warp::reply::with_header(metrics.text(), header::CONTENT_TYPE, CONTENT_TYPE).into_response()
        }
        method => method_not_allowed(&method, "GET, HEAD").into_response(),
    });
    healthz.or(readyz).unify().or(metrics).unify().boxed()
}

async fn ready(method: Method, service: Arc<Service>) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return method_not_allowed(&method, "GET, HEAD").into_response();
    }
    respond(service.ready().await.map(|()| reply::ok()))
}

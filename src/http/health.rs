//! Is the process up, is the database reachable: for load balancers and people.

use http::Method;
use warp::{Filter, Rejection, Reply, path};

use super::{error::method_not_allowed, reply};
use crate::service::Service;

/// `GET /healthz`, `GET /readyz`.
pub fn routes(service: Service) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let healthz = path!("healthz").and(warp::method()).map(|method: Method| match method {
        Method::GET | Method::HEAD => reply::ok().into_response(),
        method => method_not_allowed(&method, "GET, HEAD").into_response(),
    });
    let readyz = path!("readyz").and(warp::method()).then(move |method: Method| {
        let service = service.clone();
        async move {
            match method {
                Method::GET | Method::HEAD => match service.ready().await {
                    Ok(()) => reply::ok().into_response(),
                    Err(error) => error.into_response(),
                },
                method => method_not_allowed(&method, "GET, HEAD").into_response(),
            }
        }
    });
    healthz.or(readyz).unify().boxed()
}

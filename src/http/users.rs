//! The `/user/active` route.

use std::sync::Arc;

use http::Method;
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{
    call::{Call, call},
    error::method_not_allowed,
    locations::respond,
    query, reply,
};
use crate::service::Service;

/// `GET /user/active`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let active = path!("user" / "active");
    let list = active.and(warp::get().or(warp::head()).unify()).and(call(service)).then(list).boxed();
    let other = active
        .and(warp::method())
        .map(|method: Method| method_not_allowed(&method, "GET, HEAD, OPTIONS").into_response());
    list.or(other).unify().boxed()
}

async fn list(call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        query::user(&call.query)?;
        let users = call.service.active_users(&by)?;
        reply::json(&call.service.memory.answers, call.payer(&by), &users)
    };
    respond(act.await)
}

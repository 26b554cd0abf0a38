//! The routes of the API in one table: each path, the methods it has, and the handler of each.
//!
//! A resource answers HEAD where it answers GET, and any other method with 405 and `Allow`. The handlers are in a file
//! for each kind of resource. Probes, which ask for no caller, are in `health.rs`.

use std::{future, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use http::Method;
use warp::{Filter, Rejection, Reply, filters::BoxedFilter, path, reply::Response};

use super::{
    body::{Body, body},
    call::{Call, call},
    error::method_not_allowed,
    locations, members, shares, users,
};
use crate::{domain::error::Result, service::Service};

type ResourceFilter = BoxedFilter<(Response,)>;

/// Routes each request that has a caller. Paths are tried in turn, those of moves first.
pub fn routes(service: &Arc<Service>) -> ResourceFilter {
    let resources = [
        resource(
            service,
            path!("location").map(|| ()),
            [
                with_body(Method::PUT, locations::update),
                on(Method::GET, locations::list),
                with_body(Method::POST, locations::create),
            ],
        ),
        resource(
            service,
            path!("location" / String),
            [
                with_body(Method::PUT, locations::update_by_path),
                on(Method::GET, locations::get),
                on(Method::DELETE, locations::delete),
            ],
        ),
        resource(service, path!("location" / String / "history"), [on(Method::GET, locations::history)]),
        resource(service, path!("location" / String / "members"), [on(Method::GET, members::list)]),
        resource(
            service,
            path!("location" / String / "members" / String).map(|id, user| (id, user)),
            [with_body(Method::PUT, members::set), on(Method::DELETE, members::remove)],
        ),
        resource(
            service,
            path!("location" / String / "shares"),
            [on(Method::GET, shares::list), with_body(Method::POST, shares::create)],
        ),
        resource(
            service,
            path!("location" / String / "shares" / String).map(|id, share| (id, share)),
            [on(Method::DELETE, shares::revoke)],
        ),
        resource(service, path!("user" / "active").map(|| ()), [on(Method::GET, users::list_active)]),
        resource(service, path!("notification").map(|| ()), [on(Method::GET, users::list_notifications)]),
        resource(
            service,
            path!("notification" / "read-all").map(|| ()),
            [with_body(Method::POST, users::mark_all_read)],
        ),
        resource(service, path!("notification" / String), [with_body(Method::PATCH, users::mark_read)]),
    ];
    // Joined from the end, so that an early path is not found through a boxed future for each later one.
    let join = |rest: ResourceFilter, first: ResourceFilter| first.or(rest).unify().boxed();
    resources.into_iter().rev().reduce(join).expect("there are resources")
}

/// A method of a resource. `P` are the parameters in its path.
struct Route<P> {
    method: Method,
    handler: Box<dyn Fn(Call, P, Body) -> BoxFuture<'static, Response> + Send + Sync>,
}

/// Makes a route whose handler needs no body.
fn on<P, F, R>(method: Method, handler: impl Fn(Call, P) -> F + Send + Sync + 'static) -> Route<P>
where
    F: Future<Output = Result<R>> + Send + 'static,
    R: Reply + 'static,
{
    with_body(method, move |call, parameters, _| handler(call, parameters))
}

/// Makes a route whose handler reads the body.
fn with_body<P, F, R>(
    method: Method,
    handler: impl Fn(Call, P, Body) -> F + Send + Sync + 'static,
) -> Route<P>
where
    F: Future<Output = Result<R>> + Send + 'static,
    R: Reply + 'static,
{
    let respond =
        move |call, parameters, body| handler(call, parameters, body).map(Reply::into_response).boxed();
    Route { method, handler: Box::new(respond) }
}

/// Answers one path: the methods of `routes` by their handlers, any other with 405.
fn resource<P: Send + 'static, const N: usize>(
    service: &Arc<Service>,
    path: impl Filter<Extract = (P,), Error = Rejection> + Clone + Send + Sync + 'static,
    routes: [Route<P>; N],
) -> ResourceFilter {
    let (allow, routes) = (allow(&routes), Arc::new(routes));
    path.and(warp::method())
        .and(call(service.clone()))
        .and(body())
        .then(move |parameters, method: Method, call, body| {
            let wanted = if method == Method::HEAD { &Method::GET } else { &method };
            match routes.iter().find(|route| route.method == *wanted) {
                Some(route) => (route.handler)(call, parameters, body),
                None => future::ready(method_not_allowed(&method, &allow).into_response()).boxed(),
            }
        })
        .boxed()
}

/// Returns the value of `Allow`. OPTIONS belongs to every resource: CORS answers it before a request comes here.
fn allow<P>(routes: &[Route<P>]) -> String {
    let has = |method: &Method| routes.iter().any(|route| route.method == *method);
    let allowed = [
        ("GET, HEAD", Method::GET),
        ("POST", Method::POST),
        ("PUT", Method::PUT),
        ("PATCH", Method::PATCH),
        ("DELETE", Method::DELETE),
    ];
    let allowed = allowed.into_iter().filter(|(_, method)| has(method)).map(|(names, _)| names);
    allowed.chain(["OPTIONS"]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_names_head_beside_get_and_options_last() {
        let route = |method| on(method, async |_, ()| Ok("a reply"));
        for (methods, allowed) in [
            (vec![Method::PUT, Method::GET, Method::POST], "GET, HEAD, POST, PUT, OPTIONS"),
            (vec![Method::PUT, Method::DELETE, Method::GET], "GET, HEAD, PUT, DELETE, OPTIONS"),
            (vec![Method::PATCH], "PATCH, OPTIONS"),
        ] {
            let routes: Vec<_> = methods.into_iter().map(route).collect();
            assert_eq!(allow(&routes), allowed);
        }
    }
}

//! The HTTP door: warp routes to the service's acts.
//!
//! The only room that imports warp. It decides nothing; it extracts, calls one act, replies.

mod body;
mod call;
mod counts;
mod error;
mod health;
mod locations;
mod members;
mod notifications;
mod query;
mod reply;
mod shares;
mod users;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use tower::{Service as TowerService, ServiceBuilder};
use tower_http::{
    BoxError,
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};
use tracing::{Span, field, info, info_span};
use warp::{Filter, Reply};

use crate::{
    domain::error::{Code, Error},
    net::{
        client::{Client, TrustedProxies},
        origins::{NOT_FOR_US, Origins},
    },
    service::Service,
    telemetry::cut,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The API as a tower service: what `net::accept` serves.
pub fn service(
    service: Arc<Service>,
    origins: &Origins,
    proxies: TrustedProxies,
) -> impl TowerService<
    Request<Incoming>,
    Response = Response<impl Body<Data = Bytes, Error = BoxError> + Send + use<>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ use<> {
    let (policy, foreign) = (origins.clone(), service.limits.foreign.clone());
    let counts = Arc::new(counts::Counts::start(&service.metrics));
    let routes = locations::routes(service.clone())
        .or(health::routes(service.clone()))
        .or(members::routes(service.clone()))
        .or(shares::routes(service.clone()))
        .or(users::routes(service.clone()))
        .or(notifications::routes(service.clone()))
        .or(error::nothing_here(service));
    // The path without the query: that may hold a token.
    let span = move |request: &Request<Incoming>| {
        let client = request.extensions().get::<Client>().map(|client| client.0);
        let request_id = request.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
        info_span!(
            "http",
            method = %request.method(),
            path = cut(request.uri().path()),
            client = client.map(field::display),
            request_id,
        )
    };
    let answered = move |response: &Response<_>, elapsed: Duration, _: &Span| {
        counts.answered(response);
        info!(status = response.status().as_u16(), elapsed_us = elapsed.as_micros() as u64, "request");
    };
    #[expect(clippy::result_large_err, reason = "an answer, as the layer wants it")]
    let is_for_us = move |request: &mut Request<Incoming>| match policy.is_for_us(request.headers()) {
        true => Ok(()),
        false => {
            foreign.inc();
            Err(Error::new(Code::MisdirectedRequest, NOT_FOR_US).into_response())
        }
    };
    ServiceBuilder::new()
        .map_request(move |mut request: Request<Incoming>| {
            proxies.note(&mut request);
            without_bad_request_id(request)
        })
        .layer(SetRequestIdLayer::new(X_REQUEST_ID, RandomId))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_request(())
                .on_response(answered)
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(X_REQUEST_ID))
        .layer(origins.cors())
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(ValidateRequestHeaderLayer::custom(is_for_us))
        .service(warp::service(routes))
}

/// 128 random bits, without asking the system for each as a UUID would.
#[derive(Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let id = HeaderValue::try_from(const_hex::encode(rand::random::<[u8; 16]>()));
        id.ok().map(RequestId::new)
    }
}

/// A caller's request id is kept if it is fit for a log; else it gets a new one.
fn without_bad_request_id(mut request: Request<Incoming>) -> Request<Incoming> {
    let fit = |id: &[u8]| (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if request.headers().get(X_REQUEST_ID).is_some_and(|id| !fit(id.as_bytes())) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

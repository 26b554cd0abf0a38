//! The HTTP API: warp routes, and the tower layers around them.
//!
//! This is the only module that imports warp. It decides nothing: a handler extracts what a request says, calls one
//! method of the service, and replies.

mod body;
mod call;
mod error;
mod health;
mod locations;
mod members;
mod query;
mod reply;
mod routes;
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
    service::{Service, refusals::Refusals},
    telemetry::cut,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The classes of status that are counted, from 200 on.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Makes the tower service of the API, which `net::accept` serves.
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
    let responses = service.metrics.counters("http_responses", "Answers of the HTTP API, by class of status");
    let responses = CLASSES.map(|class| responses.of([("class", class)]));
    let refusals = Arc::new(Refusals::at("http", &service.metrics));
    let routes = routes::routes(&service).or(health::routes(service.clone())).or(error::not_found(service));
    // The query is left out, because it may hold a token.
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
    let record = move |response: &Response<_>, elapsed: Duration, _: &Span| {
        let class = usize::from(response.status().as_u16() / 100).checked_sub(2);
        if let Some(responses) = class.and_then(|class| responses.get(class)) {
            responses.inc();
        }
        // A refusal has its code among the extensions.
        if let Some(code) = response.extensions().get::<Code>() {
            refusals.count(*code);
        }
        info!(status = response.status().as_u16(), elapsed_us = elapsed.as_micros() as u64, "request");
    };
    #[expect(clippy::result_large_err, reason = "the layer wants an answer as the error")]
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
                .on_response(record)
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(X_REQUEST_ID))
        .layer(origins.cors())
        .layer(CatchPanicLayer::custom(error::after_panic))
        .layer(ValidateRequestHeaderLayer::custom(is_for_us))
        .service(warp::service(routes))
}

/// Makes request ids of 128 random bits, without asking the system for each as a UUID would.
#[derive(Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let id = HeaderValue::try_from(const_hex::encode(rand::random::<[u8; 16]>()));
        id.ok().map(RequestId::new)
    }
}

/// Removes a caller's request id that is not fit for a log; the request then gets a new one.
fn without_bad_request_id(mut request: Request<Incoming>) -> Request<Incoming> {
    let fit = |id: &[u8]| (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if request.headers().get(X_REQUEST_ID).is_some_and(|id| !fit(id.as_bytes())) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

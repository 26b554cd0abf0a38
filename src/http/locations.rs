//! The `/location` routes.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{
    body::Body,
    call::{Call, call},
    error::method_not_allowed,
    query, reply,
};
use crate::{
    domain::{
        error::{Error, Result},
        id::LocationId,
        location::{LARGE_BODY, NewLocation, Update},
    },
    heavy,
    service::Service,
};

/// `GET`, `POST`, `PUT /location`; `GET`, `PUT`, `DELETE /location/{id}`; `GET /location/{id}/history`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let call = call(service);
    let read = warp::get().or(warp::head()).unify();

    let all = path!("location");
    let create = all.and(warp::post()).and(call.clone()).and(warp::body::stream()).then(create).boxed();
    let update_by_body = all
        .and(warp::put())
        .and(call.clone())
        .and(warp::body::stream())
        .then(async |call, body| update(call, None, body).await)
        .boxed();
    let list = all.and(read).and(call.clone()).then(list).boxed();
    let other_on_all = all
        .and(warp::method())
        .map(|method: Method| method_not_allowed(&method, "GET, HEAD, POST, PUT, OPTIONS").into_response());

    // An id that cannot be is an unknown one.
    let one = path!("location" / String);
    let get = one.and(read).and(call.clone()).then(get).boxed();
    let update_by_path = one
        .and(warp::put())
        .and(call.clone())
        .and(warp::body::stream())
        .then(async |id, call, body| update(call, Some(id), body).await)
        .boxed();
    let delete = one.and(warp::delete()).and(call.clone()).then(delete).boxed();
    let other_on_one = one.and(warp::method()).map(|_, method: Method| {
        method_not_allowed(&method, "GET, HEAD, PUT, DELETE, OPTIONS").into_response()
    });

    let past = path!("location" / String / "history");
    let history = past.and(read).and(call).then(history).boxed();
    let other_on_past = past
        .and(warp::method())
        .map(|_, method: Method| method_not_allowed(&method, "GET, HEAD, OPTIONS").into_response());

    // The hot path first. Each boxed: a tree of filters carries the futures of all its routes, by value.
    update_by_body
        .or(update_by_path)
        .unify()
        .or(create)
        .unify()
        .or(get)
        .unify()
        .or(list)
        .unify()
        .or(delete)
        .unify()
        .or(other_on_all)
        .unify()
        .or(other_on_one)
        .unify()
        .or(history)
        .unify()
        .or(other_on_past)
        .unify()
        .boxed()
}

async fn create(call: Call, body: impl Body) -> Response {
    let act = async {
        let (caller, body) = call.with_body(body).await?;
        let by = caller.clone();
        let mut new = parsed(body, move |body| NewLocation::from_body(body, by.as_ref())).await?;
        let payer = call.payer(&caller.unwrap_or_default());
        new.payer = Some(payer);
        let answers = &call.service.memory.answers;
        answers.check(payer)?;
        let location = call.service.create_location(new).await?;
        let text = reply::data_text(StatusCode::CREATED, "location", location.feature());
        let reply = reply::data(StatusCode::CREATED, answers.hold_anyway(payer, text));
        Ok(warp::reply::with_header(reply, header::LOCATION, format!("/location/{}", location.id)))
    };
    respond(act.await)
}

async fn update(call: Call, id: Option<String>, body: impl Body) -> Response {
    let act = async {
        let (caller, body) = call.with_body(body).await?;
        let id = id.as_deref().map(known).transpose()?;
        let mut update = parsed(body, move |body| Update::from_body(body, id, caller.as_ref())).await?;
        let payer = call.payer(&update.by);
        update.payer = Some(payer);
        let answers = &call.service.memory.answers;
        answers.check(payer)?;
        let location = call.service.update_location(update).await?;
        let text = reply::data_text(StatusCode::CREATED, "updatedLocationResult", location.feature());
        Ok(reply::data(StatusCode::CREATED, answers.hold_anyway(payer, text)))
    };
    respond(act.await)
}

async fn get(id: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        query::user(&call.query)?;
        let (id, payer) = (known(&id)?, call.payer(&by));
        if call.headers().contains_key(header::IF_NONE_MATCH) {
            // Before anything large is read.
            let etag = etag(call.service.version((&by, payer), id).await?);
            if matches(call.headers(), &etag) {
                let reply = StatusCode::NOT_MODIFIED.into_response();
                let reply = warp::reply::with_header(reply, header::CACHE_CONTROL, reply::REVALIDATE);
                return Ok(warp::reply::with_header(reply.into_response(), header::ETAG, etag));
            }
        }
        let location = call.service.location((&by, payer), id).await?;
        let text = call.service.memory.answers.hold(payer, location.feature)?;
        let reply = reply::feature(text).into_response();
        Ok(warp::reply::with_header(reply, header::ETAG, etag(location.version)))
    };
    respond(act.await)
}

async fn list(call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        let query::List { page, per_page, query } = query::list(&call.query)?;
        let payer = call.payer(&by);
        let (features, total) = call.service.list_locations((by, payer), query).await?;
        let total = total.map(|total| format!(r#","total":{total}"#)).unwrap_or_default();
        reply::collection(features, &format!(r#","page":{page},"perPage":{per_page}{total}"#)).await
    };
    respond(act.await)
}

async fn history(id: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        let query::History { since, limit } = query::history(&call.query)?;
        let payer = call.payer(&by);
        let (features, head) = call.service.history((by, payer), known(&id)?, since, limit).await?;
        reply::collection(features, &format!(r#","version":{head}"#)).await
    };
    respond(act.await)
}

async fn delete(id: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        let by = by.labelled(query::user(&call.query)?);
        let payer = call.payer(&by);
        call.service.delete_location(by, payer, known(&id)?).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    respond(act.await)
}

/// Reads a body, a large one off the threads that serve everybody else.
async fn parsed<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T> {
    match body.len() > LARGE_BODY {
        true => heavy::run(move || parse(&body)).await.map_err(Error::internal)?,
        false => parse(&body),
    }
}

pub(super) fn respond(result: Result<impl Reply>) -> Response {
    match result {
        Ok(reply) => reply.into_response(),
        Err(error) => error.into_response(),
    }
}

pub(super) fn known(id: &str) -> Result<LocationId> {
    id.parse().map_err(|()| Error::no_location(id.chars().take(40).collect::<String>()))
}

/// The tag of a version of a location.
fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// `If-None-Match` (RFC 9110 §13.1.2): `*`, or a list with this tag in it, weak or strong.
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim())
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

//! The `/location` routes.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{body, error::method_not_allowed, query, reply};
use crate::{
    domain::{
        error::{Error, Result},
        id::LocationId,
        location::{NewLocation, Update},
    },
    service::{Service, history::Versions},
};

/// `GET`, `POST`, `PUT /location`; `GET`, `PUT`, `DELETE /location/{id}`; `GET /location/{id}/history`.
pub fn routes(service: Service) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let service = warp::any().map(move || service.clone());
    let read = warp::get().or(warp::head()).unify();
    let raw_query = warp::query::raw().or(warp::any().map(String::new)).unify();

    let all = path!("location");
    let create = all.and(warp::post()).and(service.clone()).and(body::json()).then(create);
    let update_by_body = all
        .and(warp::put())
        .and(service.clone())
        .and(body::json())
        .then(async |service, body| update(service, None, body).await);
    let list = all.and(read).and(service.clone()).and(raw_query).then(list);
    let other_on_all = all
        .and(warp::method())
        .map(|method: Method| method_not_allowed(&method, "GET, HEAD, POST, PUT, OPTIONS").into_response());

    // An id that cannot be is an unknown one.
    let one = path!("location" / String);
    let get = one.and(read).and(service.clone()).and(raw_query).and(warp::header::headers_cloned()).then(get);
    let update_by_path = one.and(warp::put()).and(service.clone()).and(body::json()).then(
        async |id: String, service, body| match known(&id) {
            Ok(id) => update(service, Some(id), body).await,
            Err(error) => error.into_response(),
        },
    );
    let delete = one.and(warp::delete()).and(service.clone()).and(raw_query).then(delete);
    let other_on_one = one.and(warp::method()).map(|_, method: Method| {
        method_not_allowed(&method, "GET, HEAD, PUT, DELETE, OPTIONS").into_response()
    });

    let past = path!("location" / String / "history");
    let history = past.and(read).and(service).and(raw_query).then(history);
    let other_on_past = past
        .and(warp::method())
        .map(|_, method: Method| method_not_allowed(&method, "GET, HEAD, OPTIONS").into_response());

    // The hot path first.
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

async fn create(service: Service, body: Result<Bytes>) -> Response {
    let act = async {
        let location = service.create_location(NewLocation::from_body(&body?)?).await?;
        let reply = reply::data(StatusCode::CREATED, "location", &location.to_feature());
        Ok(warp::reply::with_header(reply, header::LOCATION, format!("/location/{}", location.id)))
    };
    respond(act.await)
}

async fn update(service: Service, id: Option<LocationId>, body: Result<Bytes>) -> Response {
    let act = async {
        let location = service.update_location(Update::from_body(&body?, id)?).await?;
        Ok(reply::data(StatusCode::CREATED, "updatedLocationResult", &location.to_feature()))
    };
    respond(act.await)
}

async fn get(id: String, service: Service, raw_query: String, headers: HeaderMap) -> Response {
    let act = async {
        query::user(&raw_query)?;
        let location = service.location(known(&id)?).await?;
        let etag = format!("\"{}\"", location.version);
        let reply = match matches(&headers, &etag) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => reply::geojson(location.feature).into_response(),
        };
        Ok(warp::reply::with_header(reply, header::ETAG, etag))
    };
    respond(act.await)
}

async fn list(service: Service, raw_query: String) -> Response {
    let act = async {
        let query::List { page, per_page, query } = query::list(&raw_query)?;
        let listed = service.list_locations(query).await?;
        let features = listed.features.join(",");
        let total = listed.total.map(|total| format!(r#","total":{total}"#)).unwrap_or_default();
        Ok(reply::geojson(format!(
            r#"{{"type":"FeatureCollection","features":[{features}],"page":{page},"perPage":{per_page}{total}}}"#
        )))
    };
    respond(act.await)
}

async fn history(id: String, service: Service, raw_query: String) -> Response {
    let act = async {
        let query::History { since, limit } = query::history(&raw_query)?;
        let Versions { features, head } = service.history(known(&id)?, since, limit).await?;
        let features = features.join(",");
        Ok(reply::geojson(format!(
            r#"{{"type":"FeatureCollection","features":[{features}],"version":{head}}}"#
        )))
    };
    respond(act.await)
}

async fn delete(id: String, service: Service, raw_query: String) -> Response {
    let act = async {
        query::user(&raw_query)?;
        service.delete_location(known(&id)?).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    respond(act.await)
}

fn respond(result: Result<impl Reply>) -> Response {
    match result {
        Ok(reply) => reply.into_response(),
        Err(error) => error.into_response(),
    }
}

fn known(id: &str) -> Result<LocationId> {
    id.parse().map_err(|()| Error::no_location(id.chars().take(40).collect::<String>()))
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

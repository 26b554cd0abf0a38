//! The handlers of `/location`, `/location/{id}` and `/location/{id}/history`.

use std::time::Instant;

use bytes::Bytes;
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use http::{StatusCode, header};
use warp::{Reply, reply::Response};

use super::{body::Body, call::Call, query, reply};
use crate::{
    domain::{
        error::{Error, Result},
        id::LocationId,
        location::{LARGE_BODY, NewLocation, Update},
    },
    heavy,
};

/// Characters of an impossible id that an error repeats.
const MAX_SHOWN_ID: usize = 40;

/// `POST /location`
pub async fn create(call: Call, (): (), body: Body) -> Result<impl Reply> {
    let (caller, body) = call.read_body(body).await?;
    let by = caller.clone();
    let new = parse(body, move |body| NewLocation::from_body(body, by.as_ref())).await?;
    let payer = call.payer(&caller.unwrap_or_default());
    let answers = &call.service.memory.answers;
    answers.check(payer)?;
    let location = call.service.create_location(new, payer).await?;
    let text = reply::data_text(StatusCode::CREATED, "location", location.feature());
    let reply = reply::data(StatusCode::CREATED, answers.hold_anyway(payer, text));
    Ok(warp::reply::with_header(reply, header::LOCATION, format!("/location/{}", location.id)))
}

/// `PUT /location`
pub async fn update(call: Call, (): (), body: Body) -> Result<impl Reply> {
    apply_update(call, None, body).await
}

/// `PUT /location/{id}`
pub async fn update_by_path(call: Call, id: String, body: Body) -> Result<impl Reply> {
    apply_update(call, Some(id), body).await
}

async fn apply_update(call: Call, id: Option<String>, body: Body) -> Result<impl Reply> {
    let (caller, body) = call.read_body(body).await?;
    let id = id.as_deref().map(parse_id).transpose()?;
    let received_at = Instant::now();
    let update = parse(body, move |body| Update::from_body(body, id, caller.as_ref())).await?;
    let payer = call.payer(&update.by);
    let answers = &call.service.memory.answers;
    answers.check(payer)?;
    let location = call.service.update_location(update, payer, received_at).await?;
    let text = reply::data_text(StatusCode::CREATED, "updatedLocationResult", location.feature());
    Ok(reply::data(StatusCode::CREATED, answers.hold_anyway(payer, text)))
}

/// `GET /location/{id}`
pub async fn get(call: Call, id: String) -> Result<Response> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    let (id, payer) = (parse_id(&id)?, call.payer(&by));
    if let Some(condition) = call.headers.typed_get::<IfNoneMatch>() {
        // The version alone is read first, because the location may be large.
        let etag = etag(call.service.version((&by, payer), id).await?);
        if !condition.precondition_passes(&etag) {
            return Ok(reply::not_modified(etag).into_response());
        }
    }
    let location = call.service.location((&by, payer), id).await?;
    let text = call.service.memory.answers.hold(payer, location.feature)?;
    Ok(reply::feature(text, etag(location.version)).into_response())
}

/// `GET /location`
pub async fn list(call: Call, (): ()) -> Result<impl Reply> {
    let by = call.caller().await?;
    let query::List { page, per_page, rows, filter } = query::list(&call.query)?;
    let payer = call.payer(&by);
    let (features, total) = call.service.list_locations((by, payer), rows, filter).await?;
    let total = total.map(|total| format!(r#","total":{total}"#)).unwrap_or_default();
    reply::collection(features, &format!(r#","page":{page},"perPage":{per_page}{total}"#)).await
}

/// `GET /location/{id}/history`
pub async fn history(call: Call, id: String) -> Result<impl Reply> {
    let by = call.caller().await?;
    let query::History { since, limit } = query::history(&call.query)?;
    let payer = call.payer(&by);
    let (features, head) = call.service.history((by, payer), parse_id(&id)?, since, limit).await?;
    reply::collection(features, &format!(r#","version":{head}"#)).await
}

/// `DELETE /location/{id}`
pub async fn delete(call: Call, id: String) -> Result<impl Reply> {
    let by = call.caller().await?;
    let by = by.labelled(query::user(&call.query)?);
    let payer = call.payer(&by);
    call.service.delete_location(by, payer, parse_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses a body; a large one on the threads for heavy work.
async fn parse<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T> {
    match body.len() > LARGE_BODY {
        true => heavy::run(move || parse(&body)).await.map_err(Error::internal)?,
        false => parse(&body),
    }
}

/// Parses the id in a path. Text that cannot be an id is the id of no location.
pub(super) fn parse_id(id: &str) -> Result<LocationId> {
    id.parse().map_err(|()| Error::no_location(id.chars().take(MAX_SHOWN_ID).collect::<String>()))
}

/// The entity tag of a version of a location.
fn etag(version: u64) -> ETag {
    format!("\"{version}\"").parse().expect("digits in quotes are an entity tag")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn if_none_match_finds_a_version_in_lists_of_weak_and_strong_tags() {
        for (values, is_match) in [
            (&[r#""7""#][..], true),
            (&[r#"W/"7""#], true),
            (&["*"], true),
            (&[r#""6", W/"7""#], true),
            (&[r#""6","7""#], true),
            (&[r#""6""#, r#""7""#], true),
            (&[r#"nonsense, "7""#], true),
            (&[r#""77""#], false),
            (&["7"], false),
            (&[r#""6", "8""#], false),
            (&["nonsense"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            }
            let condition = headers.typed_get::<IfNoneMatch>().expect("any text is taken");
            assert_eq!(!condition.precondition_passes(&etag(7)), is_match, "{values:?}");
        }
    }
}

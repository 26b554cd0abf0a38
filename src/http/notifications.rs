//! The `/notification` routes.

use std::sync::Arc;

use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{
    body::Body,
    call::{Call, call},
    error::method_not_allowed,
    locations::respond,
    query, reply,
};
use crate::{
    domain::{
        access::Caller,
        error::{Code, Error, Result},
        notification::read_from_body,
        time::Timestamp,
    },
    service::{Service, notifications},
};

/// `GET /notification`, `PATCH /notification/{id}`, `POST /notification/read-all`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let call = call(service);
    let all = path!("notification");
    let list = all.and(warp::get().or(warp::head()).unify()).and(call.clone()).then(list).boxed();
    let other_on_all = all
        .and(warp::method())
        .map(|method: Method| method_not_allowed(&method, "GET, HEAD, OPTIONS").into_response());
    let every = path!("notification" / "read-all");
    let read_all = every.and(warp::post()).and(call.clone()).and(warp::body::stream()).then(read_all).boxed();
    let other_on_every = every
        .and(warp::method())
        .map(|method: Method| method_not_allowed(&method, "POST, OPTIONS").into_response());
    let one = path!("notification" / String);
    let read = one.and(warp::patch()).and(call).and(warp::body::stream()).then(read).boxed();
    let other_on_one = one
        .and(warp::method())
        .map(|_, method: Method| method_not_allowed(&method, "PATCH, OPTIONS").into_response());
    list.or(read_all)
        .unify()
        .or(other_on_all)
        .unify()
        .or(other_on_every)
        .unify()
        .or(read)
        .unify()
        .or(other_on_one)
        .unify()
        .boxed()
}

/// A notification as the list has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    id: i64,
    kind: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location_id: Option<i64>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<Timestamp>,
    fields: Box<RawValue>,
}

impl TryFrom<notifications::Notification> for Notification {
    type Error = Error;

    fn try_from(stored: notifications::Notification) -> Result<Self> {
        Ok(Self {
            id: stored.id,
            kind: stored.kind,
            message: stored.message,
            location_id: stored.location_id,
            created_at: Timestamp::from_millis(stored.created_at),
            read_at: stored.read_at.map(Timestamp::from_millis),
            fields: RawValue::from_string(stored.fields).map_err(Error::internal)?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notifications {
    notifications: Vec<Notification>,
    page: u64,
    per_page: u64,
    total: u64,
    unread: u64,
}

async fn list(call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        let asked = query::notifications(&call.query)?;
        let by = by.labelled(asked.user);
        let answers = &call.service.memory.answers;
        reply::json(answers, call.payer(&by), &page(&call, &by, asked).await?)
    };
    respond(act.await)
}

async fn read(id: String, call: Call, body: impl Body) -> Response {
    let act = async {
        let (by, body) = call.with_body(body).await?;
        read_from_body(&body)?;
        let by = by.unwrap_or_default().labelled(query::user(&call.query)?);
        let notification = Notification::try_from(call.service.read_notification(&by, known(&id)?).await?)?;
        Ok(reply::json_anyway(&call.service.memory.answers, call.payer(&by), &notification))
    };
    respond(act.await)
}

async fn read_all(call: Call, body: impl Body) -> Response {
    let act = async {
        let (by, body) = call.with_body(body).await?;
        let asked = query::notifications(&call.query)?;
        // A body says nothing but, in open mode, who.
        let by = match body.is_empty() {
            true => by.unwrap_or_default().labelled(asked.user),
            false => Caller::of_body(by, &body)?,
        };
        let (answers, payer) = (&call.service.memory.answers, call.payer(&by));
        answers.check(payer)?;
        call.service.read_notifications(&by).await?;
        Ok(reply::json_anyway(answers, payer, &page(&call, &by, asked).await?))
    };
    respond(act.await)
}

async fn page(call: &Call, by: &Caller, asked: query::Notifications) -> Result<Notifications> {
    let found = call.service.notifications((by, call.payer(by)), asked.unread, asked.rows).await?;
    let notifications = found.page.into_iter().map(Notification::try_from);
    Ok(Notifications {
        notifications: notifications.collect::<Result<_>>()?,
        page: asked.page,
        per_page: asked.per_page,
        total: found.total,
        unread: found.unread,
    })
}

/// An id that cannot be is an unknown one.
fn known(text: &str) -> Result<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let id = digits.then(|| text.parse().ok()).flatten().filter(|id| i64::try_from(*id).is_ok());
    id.ok_or_else(|| Error::new(Code::NotFound, "there is no such notification"))
}

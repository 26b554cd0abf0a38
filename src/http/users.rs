//! The handlers of `/user/active`, `/notification`, `/notification/{id}` and `/notification/read-all`.

use serde::Serialize;
use serde_json::value::RawValue;
use warp::Reply;

use super::{body::Body, call::Call, query, reply};
use crate::{
    domain::{
        access::Caller,
        error::{Code, Error, Result},
        id::parse_canonical,
        notification::read_from_body,
        time::Timestamp,
    },
    service::users,
};

/// A notification in the list.
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

impl TryFrom<users::Notification> for Notification {
    type Error = Error;

    fn try_from(stored: users::Notification) -> Result<Self> {
        Ok(Self {
            id: stored.id,
            kind: stored.kind,
            message: stored.message,
            location_id: stored.location_id,
            created_at: stored.created_at,
            read_at: stored.read_at,
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

/// `GET /user/active`
pub async fn list_active(call: Call, (): ()) -> Result<impl Reply> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    let users = call.service.active_users(&by)?;
    reply::json(&call.service.memory.answers, call.payer(&by), &users)
}

/// `GET /notification`
pub async fn list_notifications(call: Call, (): ()) -> Result<impl Reply> {
    let by = call.caller().await?;
    let parameters = query::notifications(&call.query)?;
    let by = by.labelled(parameters.user);
    let answers = &call.service.memory.answers;
    reply::json(answers, call.payer(&by), &read_page(&call, &by, parameters).await?)
}

/// `PATCH /notification/{id}`
pub async fn mark_read(call: Call, id: String, body: Body) -> Result<impl Reply> {
    let (by, body) = call.read_body(body).await?;
    read_from_body(&body)?;
    let by = by.unwrap_or_default().labelled(query::user(&call.query)?);
    let notification = Notification::try_from(call.service.read_notification(&by, parse_id(&id)?).await?)?;
    Ok(reply::json_anyway(&call.service.memory.answers, call.payer(&by), &notification))
}

/// `POST /notification/read-all`
pub async fn mark_all_read(call: Call, (): (), body: Body) -> Result<impl Reply> {
    let (by, body) = call.read_body(body).await?;
    let parameters = query::notifications(&call.query)?;
    // A body can only name a user, in open mode.
    let by = match body.is_empty() {
        true => by.unwrap_or_default().labelled(parameters.user),
        false => Caller::of_body(by, &body)?,
    };
    let (answers, payer) = (&call.service.memory.answers, call.payer(&by));
    answers.check(payer)?;
    call.service.read_notifications(&by).await?;
    Ok(reply::json_anyway(answers, payer, &read_page(&call, &by, parameters).await?))
}

async fn read_page(call: &Call, by: &Caller, parameters: query::Notifications) -> Result<Notifications> {
    let query::Notifications { page, per_page, rows, unread, .. } = parameters;
    let found = call.service.notifications((by, call.payer(by)), unread, rows).await?;
    let notifications = found.page.into_iter().map(Notification::try_from);
    Ok(Notifications {
        notifications: notifications.collect::<Result<_>>()?,
        page,
        per_page,
        total: found.total,
        unread: found.unread,
    })
}

/// Parses the id in a path. Text that cannot be an id is the id of no notification.
fn parse_id(text: &str) -> Result<u64> {
    let id = parse_canonical(text).filter(|id| i64::try_from(*id).is_ok());
    id.ok_or_else(|| Error::new(Code::NotFound, "there is no such notification"))
}

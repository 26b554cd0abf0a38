//! The handlers of `/location/{id}/members` and `/location/{id}/members/{userId}`.

use http::StatusCode;
use serde::Serialize;
use warp::Reply;

use super::{body::Body, call::Call, locations::parse_id, query, reply};
use crate::{
    domain::{
        access::{Caller, Role},
        error::Result,
        id::UserId,
        time::Timestamp,
    },
    service,
};

/// A member in the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    role: &'static str,
    added_at: Timestamp,
}

#[derive(Serialize)]
struct Members {
    members: Vec<Member>,
}

/// `GET /location/{id}/members`
pub async fn list(call: Call, id: String) -> Result<impl Reply> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    let payer = call.payer(&by);
    let members = list_of(call.service.members(&by, payer, parse_id(&id)?).await?);
    reply::json(&call.service.memory.answers, payer, &members)
}

fn list_of(members: Vec<service::members::Member>) -> Members {
    let members = members.into_iter().map(|member| Member {
        user_id: member.user,
        user_name: member.name,
        role: member.role.as_str(),
        added_at: member.added_at,
    });
    Members { members: members.collect() }
}

/// `PUT /location/{id}/members/{userId}`
pub async fn set(call: Call, (id, user): (String, String), body: Body) -> Result<impl Reply> {
    let (by, body) = call.read_body(body).await?;
    let role = Role::from_body(&body)?;
    let (by, id) = (Caller::of_body(by, &body)?, parse_id(&id)?);
    let payer = call.payer(&by);
    let answers = &call.service.memory.answers;
    answers.check(payer)?;
    let members = list_of(call.service.set_member(by, payer, id, user.parse()?, role).await?);
    Ok(reply::json_anyway(answers, payer, &members))
}

/// `DELETE /location/{id}/members/{userId}`
pub async fn remove(call: Call, (id, user): (String, String)) -> Result<impl Reply> {
    let by = call.caller().await?;
    let by = by.labelled(query::user(&call.query)?);
    let payer = call.payer(&by);
    call.service.remove_member(by, payer, parse_id(&id)?, user.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

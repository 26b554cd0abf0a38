//! The `/location/{id}/members` routes.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;
use warp::{Filter, Rejection, Reply, path, reply::Response};

use super::{
    body::Body,
    call::{Call, call},
    error::method_not_allowed,
    locations::{known, respond},
    query, reply,
};
use crate::{
    domain::{
        access::{Caller, Role},
        id::UserId,
        time::Timestamp,
    },
    service::{self, Service},
};

/// `GET /location/{id}/members`; `PUT`, `DELETE /location/{id}/members/{userId}`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let call = call(service);
    let all = path!("location" / String / "members");
    let list = all.and(warp::get().or(warp::head()).unify()).and(call.clone()).then(list).boxed();
    let other_on_all = all
        .and(warp::method())
        .map(|_, method: Method| method_not_allowed(&method, "GET, HEAD, OPTIONS").into_response());
    let one = path!("location" / String / "members" / String);
    let set = one.and(warp::put()).and(call.clone()).and(warp::body::stream()).then(set).boxed();
    let remove = one.and(warp::delete()).and(call).then(remove).boxed();
    let other_on_one = one
        .and(warp::method())
        .map(|_, _, method: Method| method_not_allowed(&method, "PUT, DELETE, OPTIONS").into_response());
    list.or(set).unify().or(remove).unify().or(other_on_all).unify().or(other_on_one).unify().boxed()
}

/// A member as the list has it.
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

async fn list(id: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        query::user(&call.query)?;
        let payer = call.payer(&by);
        let members = members(call.service.members(&by, payer, known(&id)?).await?);
        reply::json(&call.service.memory.answers, payer, &members)
    };
    respond(act.await)
}

fn members(members: Vec<service::members::Member>) -> Members {
    let members = members.into_iter().map(|member| Member {
        user_id: member.user,
        user_name: member.name,
        role: member.role.as_str(),
        added_at: member.added_at,
    });
    Members { members: members.collect() }
}

async fn set(id: String, user: String, call: Call, body: impl Body) -> Response {
    let act = async {
        let (by, body) = call.with_body(body).await?;
        let role = Role::from_body(&body)?;
        let (by, id) = (Caller::of_body(by, &body)?, known(&id)?);
        let payer = call.payer(&by);
        let answers = &call.service.memory.answers;
        answers.check(payer)?;
        let members = members(call.service.set_member(by, payer, id, user.parse()?, role).await?);
        Ok(reply::json_anyway(answers, payer, &members))
    };
    respond(act.await)
}

async fn remove(id: String, user: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        let by = by.labelled(query::user(&call.query)?);
        let payer = call.payer(&by);
        call.service.remove_member(by, payer, known(&id)?, user.parse()?).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    respond(act.await)
}

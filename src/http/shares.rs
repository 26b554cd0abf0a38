//! The `/location/{id}/shares` routes.

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
        access::{Caller, ShareId},
        error::{Code, Error, Result},
        share::NewShare,
        time::Timestamp,
    },
    service::Service,
};

/// `GET`, `POST /location/{id}/shares`; `DELETE /location/{id}/shares/{shareId}`.
pub fn routes(service: Arc<Service>) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let call = call(service);
    let all = path!("location" / String / "shares");
    let list = all.and(warp::get().or(warp::head()).unify()).and(call.clone()).then(list).boxed();
    let create = all.and(warp::post()).and(call.clone()).and(warp::body::stream()).then(create).boxed();
    let other_on_all = all
        .and(warp::method())
        .map(|_, method: Method| method_not_allowed(&method, "GET, HEAD, POST, OPTIONS").into_response());
    let one = path!("location" / String / "shares" / String);
    let revoke = one.and(warp::delete()).and(call).then(revoke).boxed();
    let other_on_one = one
        .and(warp::method())
        .map(|_, _, method: Method| method_not_allowed(&method, "DELETE, OPTIONS").into_response());
    list.or(create).unify().or(revoke).unify().or(other_on_all).unify().or(other_on_one).unify().boxed()
}

/// A share as the list has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    id: ShareId,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    created_at: Timestamp,
    expires_at: Timestamp,
    has_password: bool,
    uses: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<Share>,
}

/// A share just made: the one time that its token is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    id: ShareId,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    expires_at: Timestamp,
}

async fn list(id: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        query::user(&call.query)?;
        let payer = call.payer(&by);
        let shares = call.service.shares(&by, payer, known(&id)?).await?.into_iter();
        let shares = shares.map(|share| Share {
            id: share.id,
            label: share.label,
            created_at: share.created_at,
            expires_at: share.expires_at,
            has_password: share.has_password,
            uses: share.uses,
            last_used_at: share.last_used_at,
        });
        reply::json(&call.service.memory.answers, payer, &Shares { shares: shares.collect() })
    };
    respond(act.await)
}

async fn create(id: String, call: Call, body: impl Body) -> Response {
    let act = async {
        let (by, body) = call.with_body(body).await?;
        let new = NewShare::from_body(&body, Timestamp::now())?;
        let by = Caller::of_body(by, &body)?;
        let payer = call.payer(&by);
        let (id, token) = call.service.create_share(by, payer, known(&id)?, &new).await?;
        let made = Made { id, token, label: new.label.as_deref(), expires_at: new.expires_at };
        let made = serde_json::to_string(&made).map_err(Error::internal)?;
        Ok(reply::data(StatusCode::CREATED, reply::data_text(StatusCode::CREATED, "share", &made)))
    };
    respond(act.await)
}

async fn revoke(id: String, share: String, call: Call) -> Response {
    let act = async {
        let by = call.caller().await?;
        query::user(&call.query)?;
        call.service.revoke_share(by, known(&id)?, known_share(&share)?).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    respond(act.await)
}

/// An id that cannot be is an unknown one.
fn known_share(text: &str) -> Result<ShareId> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let id = digits.then(|| text.parse().ok()).flatten().filter(|id| i64::try_from(*id).is_ok());
    id.map(ShareId).ok_or_else(|| Error::new(Code::NotFound, "there is no such share"))
}

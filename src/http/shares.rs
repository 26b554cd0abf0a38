//! The handlers of `/location/{id}/shares` and `/location/{id}/shares/{shareId}`.

use http::StatusCode;
use serde::Serialize;
use warp::Reply;

use super::{body::Body, call::Call, locations::parse_id, query, reply};
use crate::domain::{
    access::Caller,
    error::{Code, Error, Result},
    id::{ShareId, parse_canonical},
    share::NewShare,
    time::Timestamp,
};

/// A share link in the list.
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

/// A new share link. Its token is shown this once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedShare<'a> {
    id: ShareId,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    expires_at: Timestamp,
}

/// `GET /location/{id}/shares`
pub async fn list(call: Call, id: String) -> Result<impl Reply> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    let payer = call.payer(&by);
    let shares = call.service.shares(&by, payer, parse_id(&id)?).await?.into_iter();
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
}

/// `POST /location/{id}/shares`
pub async fn create(call: Call, id: String, body: Body) -> Result<impl Reply> {
    let (by, body) = call.read_body(body).await?;
    let new = NewShare::from_body(&body, Timestamp::now())?;
    let by = Caller::of_body(by, &body)?;
    let payer = call.payer(&by);
    let (id, token) = call.service.create_share(by, payer, parse_id(&id)?, &new).await?;
    let made = CreatedShare { id, token, label: new.label.as_deref(), expires_at: new.expires_at };
    let made = serde_json::to_string(&made).map_err(Error::internal)?;
    Ok(reply::data(StatusCode::CREATED, reply::data_text(StatusCode::CREATED, "share", &made)))
}

/// `DELETE /location/{id}/shares/{shareId}`
pub async fn revoke(call: Call, (id, share): (String, String)) -> Result<impl Reply> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    call.service.revoke_share(by, parse_id(&id)?, parse_share_id(&share)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses the id in a path. Text that cannot be an id is the id of no share link.
fn parse_share_id(text: &str) -> Result<ShareId> {
    let id = parse_canonical(text).filter(|id| i64::try_from(*id).is_ok());
    id.map(ShareId).ok_or_else(|| Error::new(Code::NotFound, "there is no such share"))
}

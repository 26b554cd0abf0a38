//! The handler of `/user/active`.

use warp::Reply;

use super::{call::Call, query, reply};
use crate::domain::error::Result;

/// `GET /user/active`
pub async fn list_active(call: Call, (): ()) -> Result<impl Reply> {
    let by = call.caller().await?;
    query::user(&call.query)?;
    let users = call.service.active_users(&by)?;
    reply::json(&call.service.memory.answers, call.payer(&by), &users)
}

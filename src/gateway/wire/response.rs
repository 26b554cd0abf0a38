//! HTTP answers of the gateway that do not come from the library: their types, and short refusals.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Makes a short answer in plain text that refuses a request.
pub fn refused(status: StatusCode, why: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(Full::from(why).map_err(Into::into).boxed_unsync());
    *response.status_mut() = status;
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

//! A refusal as a client reads it: RFC 9457 problem details.

use georoom::domain::error::Code;
use reqwest::{Response, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;

/// What a client can rely on in a refusal.
#[derive(Debug, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: String,
    pub pointer: Option<String>,
    pub detail: String,
}

impl Problem {
    /// Reads an answer; says what is wrong with one that is no whole problem.
    pub async fn of(response: Response) -> Result<Self, String> {
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await.map_err(|e| e.to_string())?;
        let complaint = |what: &str| format!("{what}: {status} {headers:?} {text}");
        if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/problem+json") {
            return Err(complaint("not problem+json"));
        }
        if headers.get("x-request-id").is_none_or(|id| id.is_empty()) {
            return Err(complaint("no X-Request-Id"));
        }
        let Ok(Value::Object(mut members)) = serde_json::from_str(&text) else {
            return Err(complaint("not an object"));
        };
        if members.remove("status") != Some(status.as_u16().into()) {
            return Err(complaint("another status"));
        }
        let mut string = |name: &str| match members.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            _ => Err(complaint(name)),
        };
        for name in ["type", "title"] {
            string(name)?;
        }
        let (detail, code) = (string("detail")?, string("code")?);
        if !Code::ALL.iter().any(|known| known.as_str() == code) {
            return Err(complaint("a code that is not in the table"));
        }
        let pointer = match members.remove("pointer") {
            None => None,
            Some(Value::String(pointer)) => Some(pointer),
            Some(_) => return Err(complaint("pointer")),
        };
        match members.keys().next() {
            None => Ok(Self { status, code, pointer, detail }),
            Some(name) => Err(complaint(name)),
        }
    }

    /// Fails the test unless the answer is this refusal.
    #[track_caller]
    pub fn check(answer: Result<Self, String>, status: StatusCode, code: Code, about: &str) -> Self {
        let problem = answer.unwrap_or_else(|e| panic!("{about}: {e}"));
        assert_eq!((problem.status, problem.code.as_str()), (status, code.as_str()), "{about}: {problem:?}");
        problem
    }
}

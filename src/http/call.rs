//! One request: who sends it, and what its URL asks. Looked at once path and method are known to be there.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use warp::Filter;

use super::{
    body::{self, Body},
    query,
};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
    },
    net::{bearer::bearer, client::Client},
    service::{Service, access::Credentials, limits},
};

const SHARE: &str = "x-share-token";
const SHARE_PASSWORD: &str = "x-share-password";

/// A request on its way to an act.
#[derive(Debug)]
pub struct Call {
    pub service: Arc<Service>,
    pub query: String,
    headers: HeaderMap,
    /// Its sender's address.
    from: IpAddr,
}

/// Extracts it.
pub fn call(service: Arc<Service>) -> impl Filter<Extract = (Call,), Error = Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let client = warp::ext::optional::<Client>();
    query.and(warp::header::headers_cloned()).and(client).map(
        move |query, headers, client: Option<Client>| Call {
            service: service.clone(),
            query,
            headers,
            from: Client::address(client.as_ref()),
        },
    )
}

impl Call {
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Who sends it.
    ///
    /// # Errors
    /// As [`Service::identify`]; `invalid_parameter`.
    pub async fn caller(&self) -> Result<Caller> {
        Ok(self.known().await?.unwrap_or_default())
    }

    /// Who sends it and the body, in which open mode looks for a user.
    ///
    /// # Errors
    /// As [`Service::identify`]; those of bodies.
    pub async fn with_body(&self, body: impl Body) -> Result<(Option<Caller>, Bytes)> {
        let caller = match self.known().await {
            Ok(caller) => caller,
            Err(error) => {
                body::discard(body);
                return Err(error);
            }
        };
        let (limits, budget) = (&self.service.limits, &self.service.memory.bodies);
        let payer = limits::payer(caller.as_ref().and_then(Caller::account), self.from);
        let terms = body::Terms { budget, payer, time: limits.body_timeout };
        let body = body::json(&self.headers, body, terms).await.inspect_err(|error| match error.code {
            Code::PayloadTooLarge => _ = limits.too_large.inc(),
            Code::RequestTimeout => _ = limits.too_slow.inc(),
            _ => {}
        });
        Ok((caller, body?))
    }

    /// The user or the address that a caller's requests count for.
    pub fn payer(&self, by: &Caller) -> Payer {
        limits::payer(by.account(), self.from)
    }

    /// `None`: open mode.
    async fn known(&self) -> Result<Option<Caller>> {
        match self.service.identify(self.from, || self.credentials()).await? {
            Some(identity) => Ok(Some(identity.caller)),
            None => self.service.limits.address(self.from).map(|()| None),
        }
    }

    fn credentials(&self) -> Result<Credentials> {
        let share = match self.header(SHARE, Code::InvalidShare)? {
            Some(share) => {
                let text =
                    share.to_str().map_err(|_| Error::new(Code::InvalidShare, "x-share-token is not ASCII"));
                Some(text?.to_owned())
            }
            None => query::share(&self.query)?,
        };
        let token = bearer(&self.headers).map_err(|why| Error::new(Code::InvalidToken, why))?;
        Ok(Credentials { token, share, password: self.password()? })
    }

    /// The password of a share link, which may have any letters: percent-encoded UTF-8 (RFC 3986 §2.1), because a header
    /// carries ASCII alone and loses spaces at its ends. A `%` that is no escape is itself.
    fn password(&self) -> Result<Option<String>> {
        let Some(value) = self.header(SHARE_PASSWORD, Code::InvalidSharePassword)? else { return Ok(None) };
        let text = percent_decode(value.as_bytes()).decode_utf8().map_err(|_| {
            let detail = "x-share-password is not UTF-8; send it percent-encoded";
            Error::new(Code::InvalidSharePassword, detail)
        })?;
        Ok(Some(text.into_owned()))
    }

    /// A header that may be given once.
    fn header(&self, name: &str, code: Code) -> Result<Option<&HeaderValue>> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Error::new(code, format!("{name} is given twice"))),
        }
    }
}

//! The request of a caller: who sends it, and what its headers and query say.
//!
//! Extracting it reads nothing and refuses nothing. A handler asks for the caller first, so that nobody learns anything
//! before they are known.

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

/// A request for a route, without its body.
#[derive(Debug)]
pub struct Call {
    pub service: Arc<Service>,
    pub query: String,
    pub headers: HeaderMap,
    /// The client's address.
    from: IpAddr,
}

/// Extracts a call.
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
    /// Identifies the caller; in open mode that is the default one.
    ///
    /// # Errors
    /// Those of [`Service::identify`]; `invalid_parameter`.
    pub async fn caller(&self) -> Result<Caller> {
        Ok(self.identify().await?.unwrap_or_default())
    }

    /// Identifies the caller, then reads the body. In open mode there is no caller yet: the body may name a user.
    ///
    /// # Errors
    /// Those of [`Service::identify`] and of [`body::read_json`].
    pub async fn read_body(&self, body: Body) -> Result<(Option<Caller>, Bytes)> {
        let caller = match self.identify().await {
            Ok(caller) => caller,
            Err(error) => {
                body::discard(body);
                return Err(error);
            }
        };
        let (limits, budget) = (&self.service.limits, &self.service.memory.bodies);
        let payer = limits::payer(caller.as_ref().and_then(Caller::account), self.from);
        let bounds = body::ReadLimits { budget, payer, time: limits.body_timeout };
        let body = body::read_json(&self.headers, body, bounds).await.inspect_err(|error| match error.code {
            Code::PayloadTooLarge => _ = limits.too_large.inc(),
            Code::RequestTimeout => _ = limits.too_slow.inc(),
            _ => {}
        });
        Ok((caller, body?))
    }

    /// Returns the user or address that pays for the requests of a caller.
    pub fn payer(&self, by: &Caller) -> Payer {
        limits::payer(by.account(), self.from)
    }

    /// Identifies the caller. Returns `None` in open mode, where each request counts for its address.
    async fn identify(&self) -> Result<Option<Caller>> {
        match self.service.identify(self.from, || self.credentials()).await? {
            Some(identity) => Ok(Some(identity.caller)),
            None => self.service.limits.take_request(limits::payer(None, self.from)).map(|()| None),
        }
    }

    fn credentials(&self) -> Result<Credentials> {
        let share = match self.header(SHARE, Code::InvalidShare)? {
            Some(share) => {
                let not_ascii = |_| Error::new(Code::InvalidShare, "x-share-token is not ASCII");
                Some(share.to_str().map_err(not_ascii)?.to_owned())
            }
            None => query::share(&self.query)?,
        };
        let token = bearer(&self.headers).map_err(|why| Error::new(Code::InvalidToken, why))?;
        Ok(Credentials { token, share, password: self.password()? })
    }

    /// Reads the password of a share link. It may have any letters, so it comes as percent-encoded UTF-8 (RFC 3986
    /// §2.1): a header carries ASCII alone and loses spaces at its ends. A `%` that begins no escape stands for itself.
    fn password(&self) -> Result<Option<String>> {
        let Some(value) = self.header(SHARE_PASSWORD, Code::InvalidSharePassword)? else { return Ok(None) };
        let text = percent_decode(value.as_bytes()).decode_utf8().map_err(|_| {
            let detail = "x-share-password is not UTF-8; send it percent-encoded";
            Error::new(Code::InvalidSharePassword, detail)
        })?;
        Ok(Some(text.into_owned()))
    }

    /// Reads a header that may be given once.
    fn header(&self, name: &str, code: Code) -> Result<Option<&HeaderValue>> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Error::new(code, format!("{name} is given twice"))),
        }
    }
}

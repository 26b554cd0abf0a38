//! One request: who sends it, and what its URL asks. Looked at once path and method are known to be there.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use warp::Filter;

use super::{body, query};
use crate::{
    domain::{
        access::{Caller, Whose},
        error::{Code, Error, Result},
    },
    net::{bearer::bearer, client::Client},
    service::{Service, access::Credentials, limits},
};

const SHARE: &str = "x-share-token";
const SHARE_PASSWORD: &str = "x-share-password";

/// A body on its way in.
pub trait Body: Stream<Item = std::result::Result<Self::Part, warp::Error>> {
    type Part: Buf;
}

impl<B: Buf, S: Stream<Item = std::result::Result<B, warp::Error>>> Body for S {
    type Part = B;
}

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
        let limits = &self.service.limits;
        match self.known().await {
            Ok(caller) => {
                let body = body::json(&self.headers, body, limits.body_timeout).await;
                let body = body.inspect_err(|error| match error.code {
                    Code::PayloadTooLarge => _ = limits.too_large.inc(),
                    Code::RequestTimeout => _ = limits.too_slow.inc(),
                    _ => {}
                });
                Ok((caller, body?))
            }
            Err(error) => {
                body::discard(body, limits.body_timeout).await;
                Err(error)
            }
        }
    }

    /// The caller whose budgets it draws on.
    pub fn whose(&self, by: &Caller) -> Whose {
        limits::whose(by.account(), self.from)
    }

    /// `None`: open mode.
    async fn known(&self) -> Result<Option<Caller>> {
        match self.service.identify(self.from, || self.credentials()).await? {
            Some(identity) => Ok(Some(identity.caller)),
            None => self.service.limits.address(self.from).map(|()| None),
        }
    }

    fn credentials(&self) -> Result<Credentials> {
        let text = |name, code: Code| {
            let mut values = self.headers.get_all(name).iter();
            match (values.next().map(HeaderValue::to_str), values.next()) {
                (None, _) => Ok(None),
                (Some(Ok(text)), None) => Ok(Some(text.to_owned())),
                (Some(Err(_)), None) => Err(Error::new(code, format!("{name} is not ASCII"))),
                (_, Some(_)) => Err(Error::new(code, format!("{name} is given twice"))),
            }
        };
        let share = match text(SHARE, Code::InvalidShare)? {
            Some(share) => Some(share),
            None => query::share(&self.query)?,
        };
        let token = bearer(&self.headers).map_err(|why| Error::new(Code::InvalidToken, why))?;
        Ok(Credentials { token, share, password: text(SHARE_PASSWORD, Code::InvalidSharePassword)? })
    }
}

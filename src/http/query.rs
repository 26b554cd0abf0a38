//! Query strings. Each parameter must be known, given once, and good.
//!
//! Anything else is refused and not ignored, because a list to which a filter was not applied looks like an answer.

use std::{ops::RangeInclusive, str::FromStr};

use form_urlencoded::parse;

use crate::{
    domain::{
        area::Bbox,
        distance::Near,
        error::{Code, Error, Result},
        id::{MAX_SAFE_INTEGER, UserId},
    },
    storage::{Filter, Page},
};

const SHARE: &str = "share";
/// Parameters that jQuery (`_`) and Ext JS (`_dc`) add to a GET, with a new number each time, to bypass caches.
const CACHE_BUSTERS: [&str; 2] = ["_", "_dc"];
const DEFAULT_PER_PAGE: u64 = 20;
const MAX_PER_PAGE: u64 = 100;
/// The last page that can be asked for. No list has so many; the bound keeps offsets far from overflow.
const MAX_PAGE: u64 = 1 << 40;
/// The upper bound of a history's `limit`, which is also its default.
const MAX_HISTORY_LIMIT: u64 = 1_000;

/// The parameters of a list of locations.
#[derive(Debug)]
pub struct List {
    /// The page's number, from 1; the answer repeats it.
    pub page: u64,
    /// The page's size, 1 to 100; the answer repeats it.
    pub per_page: u64,
    /// The page as rows of the database.
    pub rows: Page,
    /// A filter that the locations have to pass.
    pub filter: Option<Filter>,
}

/// Reads `page`, `perPage`, `bbox`, `near` with `radius`, and `userId`.
///
/// # Errors
/// `invalid_parameter`, `invalid_user_id`.
pub fn list(query: &str) -> Result<List> {
    let [page, per_page, bbox, near, radius, user] =
        parameters(query, ["page", "perPage", "bbox", "near", "radius", "userId"])?;
    user.map(|user| UserId::from_str(&user)).transpose()?;
    let (page, per_page, rows) = pages(page, per_page)?;
    let near = match (near, radius) {
        (Some(near), Some(radius)) => Some(Near::parse(&near, &radius)?),
        (None, None) => None,
        (Some(_), None) => return Err(invalid("near needs radius, in metres")),
        (None, Some(_)) => return Err(invalid("radius needs near=lon,lat")),
    };
    let bbox = bbox.map(|bbox| Bbox::parse(&bbox)).transpose()?;
    let filter = (bbox.is_some() || near.is_some()).then_some(Filter { bbox, near });
    Ok(List { page, per_page, rows, filter })
}

fn pages(page: Option<String>, per_page: Option<String>) -> Result<(u64, u64, Page)> {
    let page = page.map_or(Ok(1), |text| integer("page", &text, 1..=MAX_PAGE))?;
    let per_page =
        per_page.map_or(Ok(DEFAULT_PER_PAGE), |text| integer("perPage", &text, 1..=MAX_PER_PAGE))?;
    Ok((page, per_page, Page { offset: (page - 1) * per_page, limit: per_page }))
}

/// The parameters of a list of notifications.
#[derive(Debug)]
pub struct Notifications {
    /// The page's number, from 1; the answer repeats it.
    pub page: u64,
    /// The page's size, 1 to 100; the answer repeats it.
    pub per_page: u64,
    /// The page as rows of the database.
    pub rows: Page,
    /// Whether the list leaves out notifications that have been read.
    pub unread: bool,
    /// The user whose notifications are listed in open mode.
    pub user: UserId,
}

/// Reads `page`, `perPage`, `unread` and `userId`.
///
/// # Errors
/// `invalid_parameter`, `invalid_user_id`.
pub fn notifications(query: &str) -> Result<Notifications> {
    let [page, per_page, unread, user] = parameters(query, ["page", "perPage", "unread", "userId"])?;
    let user = user.map_or(Ok(UserId::DEFAULT), |user| user.parse())?;
    let (page, per_page, rows) = pages(page, per_page)?;
    let unread = match unread.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("unread must be true or false")),
    };
    Ok(Notifications { page, per_page, rows, unread, user })
}

/// The parameters of a location's history.
#[derive(Debug)]
pub struct History {
    /// The history begins after this version.
    pub since: u64,
    /// The largest number of versions, 1 to 1000.
    pub limit: u64,
}

/// Reads `since`, `limit` and `userId`.
///
/// # Errors
/// `invalid_parameter`, `invalid_user_id`.
pub fn history(query: &str) -> Result<History> {
    let [since, limit, user] = parameters(query, ["since", "limit", "userId"])?;
    user.map(|user| UserId::from_str(&user)).transpose()?;
    Ok(History {
        since: since.map_or(Ok(0), |text| integer("since", &text, 0..=MAX_SAFE_INTEGER))?,
        limit: limit.map_or(Ok(MAX_HISTORY_LIMIT), |text| integer("limit", &text, 1..=MAX_HISTORY_LIMIT))?,
    })
}

/// Reads `userId`, the user who acts in open mode.
///
/// # Errors
/// `invalid_parameter`, `invalid_user_id`.
pub fn user(query: &str) -> Result<UserId> {
    let [user] = parameters(query, ["userId"])?;
    user.map_or(Ok(UserId::DEFAULT), |user| user.parse())
}

/// Reads `share`, the secret of a share link, which any request may have.
///
/// # Errors
/// `invalid_parameter`.
pub fn share(query: &str) -> Result<Option<String>> {
    let mut shares = parse(query.as_bytes()).filter(|(name, _)| name == SHARE);
    match (shares.next(), shares.next()) {
        (_, Some(_)) => Err(invalid("share is given twice")),
        (share, None) => Ok(share.map(|(_, share)| share.into_owned())),
    }
}

/// Reads the named parameters, in the order of `names`.
fn parameters<const N: usize>(query: &str, names: [&str; N]) -> Result<[Option<String>; N]> {
    let mut values = [const { None }; N];
    let is_for_others = |name: &str| name == SHARE || CACHE_BUSTERS.contains(&name);
    for (name, value) in parse(query.as_bytes()).filter(|(name, _)| !is_for_others(name)) {
        let Some(index) = names.iter().position(|known| *known == name) else {
            let name: String = name.chars().take(40).collect();
            return Err(invalid(format!("there is no parameter `{name}` here; known: {}", names.join(", "))));
        };
        if values[index].replace(value.into_owned()).is_some() {
            return Err(invalid(format!("{} is given twice", names[index])));
        }
    }
    Ok(values)
}

fn integer(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = digits.then(|| text.parse().ok()).flatten();
    value.filter(|value| range.contains(value)).ok_or_else(|| {
        invalid(format!("{name} must be an integer from {} to {}", range.start(), range.end()))
    })
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests;

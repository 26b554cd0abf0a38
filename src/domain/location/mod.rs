//! A location, the bodies that make or change one, and the Feature it is shown as.

use std::{fmt::Write as _, ops::Deref, sync::OnceLock, time::Instant};

use serde_json::{Map, Value};

use super::{
    access::Caller,
    error::{Code, Error, Result},
    geometry::Geometry,
    id::{LocationId, UserId},
    json::{self, Path},
    properties::Properties,
    time::Timestamp,
};

/// A body with more bytes than this is large: it takes milliseconds to read it and to commit what it says.
pub const LARGE_BODY: usize = 32 * 1024;

/// Members of a geometry or a FeatureCollection, which a Feature must not have (RFC 7946 §7.1). Beside `geometry` they
/// would say a second time, and maybe differently, where the location is.
const NOT_IN_A_FEATURE: [&str; 3] = ["coordinates", "geometries", "features"];

/// A location as it stands after some commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    /// The id, which is also the name of its room.
    pub id: LocationId,
    /// The user who created it.
    pub owner: UserId,
    /// 1 at creation, one more at every committed PUT.
    pub version: u64,
    pub geometry: Geometry,
    /// The caller's own.
    pub properties: Properties,
    pub updated_by: UserId,
    pub created_at: Timestamp,
    /// The time at which this version was committed.
    pub updated_at: Timestamp,
}

impl Location {
    /// Applies an update: the result is the next version.
    ///
    /// # Errors
    /// `properties_too_large`; `internal`, as [`Properties::to_members`].
    pub fn updated(&self, update: &Update, now: Timestamp) -> Result<Self> {
        let properties = match &update.patch {
            Some(patch) => self.properties.merged(patch)?,
            None => self.properties.clone(),
        };
        Ok(Self {
            version: self.version + 1,
            geometry: update.geometry.as_ref().unwrap_or(&self.geometry).clone(),
            properties,
            updated_by: update.by.user(),
            // Never backwards, whatever the clocks of two servers say.
            updated_at: now.max(self.updated_at),
            ..*self
        })
    }

    /// The GeoJSON Feature (RFC 7946 §3.2): the caller's properties, then the server's.
    pub fn to_feature(&self) -> String {
        self.feature(self.properties.as_str(), None)
    }

    /// The Feature in an answer to `near`, with its `distance` in metres; a property of that name gives way.
    ///
    /// # Errors
    /// `internal`, as [`Properties::to_members`].
    pub fn to_feature_at(&self, distance_m: f64) -> Result<String> {
        let mut own = self.properties.to_members()?;
        own.shift_remove("distance");
        Ok(self.feature(&Value::Object(own).to_string(), Some(distance_m)))
    }

    fn feature(&self, own: &str, distance_m: Option<f64>) -> String {
        let Self { id, version, owner, updated_by, created_at, updated_at, .. } = self;
        let mut text = String::with_capacity(own.len() + 384);
        let number = |text: &mut String, before, number| {
            text.push_str(before);
            text.push_str(itoa::Buffer::new().format::<u64>(number));
        };
        number(&mut text, r#"{"type":"Feature","id":"#, id.get());
        text.push_str(r#","geometry":"#);
        text.push_str(&self.geometry.to_json());
        text.push_str(r#","properties":"#);
        // Of an object, which [`Properties`] always are, everything but its end.
        let members = own.strip_suffix('}').unwrap_or("{").trim_end();
        text.push_str(members);
        if members.len() > 1 {
            text.push(',');
        }
        number(&mut text, r#""version":"#, *version);
        number(&mut text, r#","userId":"#, owner.get());
        number(&mut text, r#","updatedBy":"#, updated_by.get());
        let _ = write!(text, r#","createdAt":"{created_at}","updatedAt":"{updated_at}""#);
        if let Some(distance_m) = distance_m {
            let _ = write!(text, r#","distance":{distance_m}"#);
        }
        text.push_str("}}");
        text
    }
}

/// A location with its Feature, which is written once, by whoever needs it first.
#[derive(Debug)]
pub struct Committed {
    location: Location,
    feature: OnceLock<String>,
    /// The time at which the body of the PUT that made it was complete, if that was just now and here.
    pub received_at: Option<Instant>,
}

impl Committed {
    /// The location that a PUT has made, whose body was complete at this time.
    pub fn received(location: Location, received_at: Instant) -> Self {
        Self { received_at: Some(received_at), ..location.into() }
    }

    pub fn feature(&self) -> &str {
        self.feature.get_or_init(|| self.location.to_feature())
    }
}

impl From<Location> for Committed {
    fn from(location: Location) -> Self {
        Self { location, feature: OnceLock::new(), received_at: None }
    }
}

impl Deref for Committed {
    type Target = Location;

    fn deref(&self) -> &Location {
        &self.location
    }
}

/// A body of `POST /location`.
#[derive(Debug)]
pub struct NewLocation {
    /// The user who creates it.
    pub owner: UserId,
    /// Whether it is made with an admin's token.
    pub is_by_admin: bool,
    pub geometry: Geometry,
    /// The caller's own.
    pub properties: Properties,
    /// Bytes of the body.
    pub size: usize,
}

impl NewLocation {
    /// Reads `{geometry, properties?, userId?}`, or a whole Feature; `userId` only where nobody says who is
    /// calling.
    ///
    /// # Errors
    /// `forbidden`; any code of bodies, geometries and properties.
    pub fn from_body(body: &[u8], by: Option<&Caller>) -> Result<Self> {
        let mut members = feature(body)?;
        let label = || UserId::from_json(members.get("userId"));
        let owner = Caller::or_labelled(by.cloned(), label)?.may_create()?;
        let geometry = geometry(&members)?.ok_or_else(|| {
            Error::new(Code::GeometryRequired, "a location needs a geometry").at("/geometry")
        })?;
        let properties = Properties::given(members.swap_remove("properties"))?.unwrap_or_default();
        let (properties, is_by_admin) = (Properties::new(properties)?, by.is_some_and(Caller::is_admin));
        Ok(Self { owner, is_by_admin, geometry, properties, size: body.len() })
    }

    pub fn to_location(&self, id: LocationId, now: Timestamp) -> Location {
        Location {
            id,
            owner: self.owner,
            version: 1,
            geometry: self.geometry.clone(),
            properties: self.properties.clone(),
            updated_by: self.owner,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A body of `PUT /location`: at least one of geometry and properties.
#[derive(Debug)]
pub struct Update {
    pub id: LocationId,
    pub by: Caller,
    /// The new geometry; `None` leaves the location where it was.
    pub geometry: Option<Geometry>,
    /// A patch to merge into its properties (RFC 7396).
    pub patch: Option<Map<String, Value>>,
    /// Bytes of the body.
    pub size: usize,
}

impl Update {
    /// Reads `{id, geometry?, properties?, userId?}`; with an id in the path, `id` may be left out;
    /// `userId` only where nobody says who is calling.
    ///
    /// # Errors
    /// Any code of bodies, geometries and properties; `id_mismatch`, `nothing_to_update`.
    pub fn from_body(body: &[u8], path_id: Option<LocationId>, by: Option<&Caller>) -> Result<Self> {
        let mut members = feature(body)?;
        let id = target_location(members.get("id"), path_id)?;
        let by = Caller::or_labelled(by.cloned(), || UserId::from_json(members.get("userId")))?;
        let geometry = geometry(&members)?;
        let patch = Properties::given(members.swap_remove("properties"))?;
        if geometry.is_none() && patch.is_none() {
            let detail = "give `geometry`, `properties` or both";
            return Err(Error::new(Code::NothingToUpdate, detail).at(""));
        }
        Ok(Self { id, by, geometry, patch, size: body.len() })
    }
}

/// Decides which location an update changes, from the body's `id` and the path's.
fn target_location(id: Option<&Value>, path_id: Option<LocationId>) -> Result<LocationId> {
    let Some(path_id) = path_id else { return LocationId::from_json(id) };
    match id {
        None => return Ok(path_id),
        // An id of another tool, such as `way/1`: it cannot mean another location.
        Some(Value::String(text)) if text.parse::<LocationId>().is_err() => return Ok(path_id),
        Some(_) => {}
    }
    if LocationId::from_json(id)? != path_id {
        let detail = "the id in the body is not the one in the path";
        return Err(Error::new(Code::IdMismatch, detail).at("/id"));
    }
    Ok(path_id)
}

/// The members of a body that is, or may be, a Feature.
fn feature(body: &[u8]) -> Result<Map<String, Value>> {
    let members = json::object(body)?;
    if members.get("type").is_some_and(|kind| kind != "Feature") {
        let detail = "send a Feature, or an object with `geometry`; a bare geometry goes into `geometry`";
        return Err(Error::new(Code::InvalidBody, detail).at("/type"));
    }
    if let Some(name) = NOT_IN_A_FEATURE.into_iter().find(|name| members.contains_key(*name)) {
        let detail = format!("a Feature has no `{name}` (RFC 7946 §7.1); where it is goes into `geometry`");
        return Err(Error::new(Code::InvalidBody, detail).at(&Path::Member(&Path::Root, name)));
    }
    Ok(members)
}

fn geometry(members: &Map<String, Value>) -> Result<Option<Geometry>> {
    match members.get("geometry") {
        None => Ok(None),
        Some(Value::Null) => {
            Err(Error::new(Code::GeometryRequired, "geometry must not be null").at("/geometry"))
        }
        Some(value) => Geometry::from_json(value, &Path::Member(&Path::Root, "geometry")).map(Some),
    }
}

#[cfg(test)]
mod tests;

//! Answers with many Features: writes the pages of lists and of history as text, piece by piece.
//!
//! A page is found first; its pieces are read as the client takes them, so an answer holds one piece whatever is
//! on the page, and no connection to the database while the client is slow. What a page shows when locations change
//! between two pieces, [`crate::storage::Listing`] and [`crate::storage::Past`] say.

use std::{fmt, sync::Arc};

use super::{memory::Reservation, state::Service};
use crate::{
    domain::{
        access::{Action, Caller, Payer},
        error::{Error, Result},
        id::LocationId,
        location::Location,
    },
    heavy,
    storage::{Listing, Past},
};
use bytes::Bytes;

/// The Features of one answer that are still to be written.
pub struct Features {
    service: Arc<Service>,
    by: Caller,
    payer: Payer,
    rest: Rest,
    /// Whether any piece has been read.
    has_begun: bool,
    /// Whether there is a Feature before the next one.
    needs_comma: bool,
    /// The bytes of the largest piece, counted until the last is sent.
    held: Arc<Reservation>,
}

/// The page that an answer shows.
pub(super) enum Rest {
    List(Listing),
    History(LocationId, Past),
}

impl Features {
    /// The Features of a page.
    ///
    /// # Errors
    /// `rate_limited` and `storage_unavailable` where the memory for answers is spent.
    pub(super) fn new(service: &Arc<Service>, by: Caller, payer: Payer, rest: Rest) -> Result<Self> {
        let bytes = match &rest {
            Rest::List(page) => page.largest_piece(),
            Rest::History(_, page) => page.largest_piece,
        };
        let held = Arc::new(service.memory.answers.reserve_piece(payer, bytes)?);
        Ok(Self { service: service.clone(), by, payer, rest, has_begun: false, needs_comma: false, held })
    }

    /// Whether everything is written.
    pub fn is_done(&self) -> bool {
        match &self.rest {
            Rest::List(page) => page.is_read(),
            Rest::History(_, page) => page.is_read(),
        }
    }

    /// Reads the next piece and appends it, with a comma wherever one belongs. It may be empty.
    ///
    /// # Errors
    /// `not_found` where the caller has lost sight of the history; `storage_unavailable`, `internal`.
    pub async fn write_piece(&mut self, text: &mut String) -> Result<()> {
        let service = self.service.clone();
        let needs_a_read = match &self.rest {
            Rest::List(page) => page.needs_a_read(),
            Rest::History(_, page) => page.needs_a_read(),
        };
        // Small rows are there already.
        let _turn = match needs_a_read {
            true => Some(service.reads.piece_turn().await?),
            false => None,
        };
        let is_later = std::mem::replace(&mut self.has_begun, true);
        match &mut self.rest {
            Rest::List(page) => {
                let shown = service.store.read_piece(page).await?;
                let features = written(shown, needs_a_read, |(location, distance_m)| {
                    let feature = match distance_m {
                        Some(distance_m) => location.to_feature_at(*distance_m),
                        None => Ok(location.to_feature()),
                    };
                    feature.inspect_err(|error| leave_out(location, error)).ok()
                });
                features.await?.iter().for_each(|feature| push(text, &mut self.needs_comma, feature));
            }
            Rest::History(id, page) => {
                // It takes as long as the client likes, and the right may have ended meanwhile.
                if is_later {
                    service.may_still_see(&self.by, *id).await?;
                }
                let versions = service.store.read_versions(page).await?;
                let features = written(versions, needs_a_read, |location| Some(location.to_feature()));
                features.await?.iter().for_each(|feature| push(text, &mut self.needs_comma, feature));
            }
        }
        Ok(())
    }

    /// Text of this answer as bytes that are counted until they are sent.
    pub fn hold(&self, text: String) -> Bytes {
        self.service.limits.record_text(self.payer, text.len());
        self.service.memory.answers.hold_piece(self.payer, text, &self.held)
    }
}

/// The Features of a piece, off the threads that serve everybody else where they are large.
async fn written<T: Send + 'static>(
    rows: Vec<T>,
    are_large: bool,
    write: fn(&T) -> Option<String>,
) -> Result<Vec<String>> {
    let write = move || rows.iter().filter_map(write).collect();
    if are_large { heavy::run(write).await.map_err(Error::internal) } else { Ok(write()) }
}

fn push(text: &mut String, needs_comma: &mut bool, feature: &str) {
    if std::mem::replace(needs_comma, true) {
        text.push(',');
    }
    text.push_str(feature);
}

fn leave_out(location: &Location, error: &Error) {
    let id = location.id.get();
    tracing::error!(id, %error, "a location cannot be written as a Feature; lists leave it out");
}

impl Service {
    /// Checks that a caller may still see a location whose history is being sent.
    async fn may_still_see(&self, by: &Caller, id: LocationId) -> Result<()> {
        if let Caller::Guest(guest) = by
            && !self.store.is_shared(guest).await?
        {
            return Err(Error::no_location(id));
        }
        self.permit(by, id, Action::See).await
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Features").finish_non_exhaustive()
    }
}

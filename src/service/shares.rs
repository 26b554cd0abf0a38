//! The acts on share links, with which anybody may see a location until they expire, without an account.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::state::Service;
use crate::{
    domain::{
        access::{Action, Caller, Payer},
        error::Result,
        id::{LocationId, ShareId},
        share::NewShare,
    },
    storage,
};

/// The random bytes of a link's secret: 192 bits.
const SECRET_BYTES: usize = 24;

impl Service {
    /// Creates a share link; returns its id and its secret, which is kept nowhere.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `too_many_shares`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_share(
        &self,
        by: Caller,
        payer: Payer,
        id: LocationId,
        new: &NewShare,
    ) -> Result<(ShareId, String)> {
        // Before the password is hashed, which costs more than the question.
        self.permit(&by, id, Action::Manage).await?;
        let password_hash = match &new.password {
            Some(password) => Some(self.passwords.hash(password.clone()).await?),
            None => None,
        };
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>());
        let share = storage::NewShare {
            label: new.label.clone(),
            expires_at: new.expires_at,
            password_hash,
            token_hash: hash(&secret),
        };
        self.names.write_of(&[by.user()]).await?;
        let share = self.writer.create_share(by, Some(payer), id, share).await?;
        self.events.wait_until_settled().await;
        Ok((share, secret))
    }

    /// Reads the share links of a location that have not ended.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn shares(&self, by: &Caller, payer: Payer, id: LocationId) -> Result<Vec<storage::Share>> {
        self.limits.check_rows(payer)?;
        let _turn = self.reads.turn(payer).await?;
        self.permit(by, id, Action::Manage).await?;
        let _turn = self.reads.list_turn(payer).await?;
        // Again: the lists that were before it in line are paid for now.
        self.limits.check_rows(payer)?;
        if let Err(error) = self.write_behind.write().await {
            tracing::debug!(%error, "uses of share links could not be written yet");
        }
        let shares = self.store.shares(id).await?;
        self.limits.record_rows(payer, shares.len());
        Ok(shares)
    }

    /// Ends a share link. Once this returns, its holders are out of the room.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn revoke_share(&self, by: Caller, id: LocationId, share: ShareId) -> Result<()> {
        self.writer.revoke_share(by, id, share).await?;
        self.events.wait_until_settled().await;
        Ok(())
    }
}

/// Computes the hash of a link's secret, which is all that is kept of it. The secret is random and long, so the hash is
/// no help in guessing it.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

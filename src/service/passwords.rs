//! Passwords of share links: kept as argon2id hashes, which take a while and 19 MiB each to compute.

use std::{collections::HashSet, sync::Arc};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::domain::{
    error::{Code, Error, Result},
    share::MAX_PASSWORD,
};

/// The hashes that are checked at once.
const AT_ONCE: usize = 2;
/// The right passwords that are remembered and need not be hashed again. Beyond that number any one is forgotten.
const REMEMBERED: usize = 1_024;

/// Computes and checks hashes.
#[derive(Debug)]
pub struct Passwords {
    /// The turns of checks. A turn belongs to the check and not to its caller: the check runs on when the caller goes
    /// away.
    turns: Arc<Semaphore>,
    /// The turn of new passwords, so that no user who makes many holds up guests.
    making: Arc<Semaphore>,
    /// The digests of hashes together with their passwords.
    right: Mutex<HashSet<[u8; 32]>>,
}

impl Default for Passwords {
    fn default() -> Self {
        let [turns, making] = [AT_ONCE, 1].map(|at_once| Arc::new(Semaphore::new(at_once)));
        Self { turns, making, right: Mutex::default() }
    }
}

impl Passwords {
    /// Computes the hash of a password, which is what is kept of it.
    ///
    /// # Errors
    /// `internal`.
    pub async fn hash(&self, password: String) -> Result<String> {
        let turn = self.making.clone().acquire_owned().await.map_err(Error::internal)?;
        let hash = move || {
            let _turn = turn;
            Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
        };
        spawn_blocking(hash).await.map_err(Error::internal)?.map_err(|e| Error::internal(e.to_string()))
    }

    /// Checks a password against a hash. `may_try` is asked before anything is computed.
    ///
    /// # Errors
    /// `invalid_share_password`, `internal`; those of `may_try`.
    pub async fn check(
        &self,
        password: Option<&str>,
        hash: &str,
        may_try: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let wrong = |detail: &'static str| Error::new(Code::InvalidSharePassword, detail);
        let password = password.ok_or_else(|| wrong("the share link has a password"))?;
        let digest = Sha256::new().chain_update(hash).chain_update([0]).chain_update(password).finalize();
        if self.right.lock().contains(&digest[..]) {
            return Ok(());
        }
        if password.len() > MAX_PASSWORD {
            return Err(wrong("that is not the share link's password"));
        }
        let turn = self.turns.clone().acquire_owned().await.map_err(Error::internal)?;
        // Somebody else may have shown it meanwhile, as when all viewers come back at once.
        if self.right.lock().contains(&digest[..]) {
            return Ok(());
        }
        may_try()?;
        let (password, hash) = (password.to_owned(), hash.to_owned());
        let is_right = move || {
            let _turn = turn;
            let hash = PasswordHash::new(&hash).map_err(|e| Error::internal(e.to_string()))?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        if !spawn_blocking(is_right).await.map_err(Error::internal)?? {
            return Err(wrong("that is not the share link's password"));
        }
        let mut right = self.right.lock();
        if right.len() >= REMEMBERED
            && let Some(any) = right.iter().next().copied()
        {
            right.remove(&any);
        }
        right.insert(digest.into());
        Ok(())
    }
}

//! Tokens: who a caller is, signed with a key this server knows (JWT, RFC 7519).
//!
//! The algorithm is fixed by the key and never by the token, which only says whose signature it has.
//!
//! Of `jsonwebtoken` only signatures are used, not `decode`: a token may be signed with any of several keys of one
//! algorithm, a member that is there twice is refused, `sub` may be a number or a string and `exp` a fraction, and each
//! refusal has a text for the caller.

use std::{borrow::Cow, ops::RangeInclusive, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    crypto::{self, rust_crypto::DEFAULT_PROVIDER},
};
use pem::Pem;
use serde_json::{Map, Value, json};

use super::{
    error::{Code, Error, Result},
    id::UserId,
    json,
    presence::presentable,
    time::Timestamp,
};

/// The largest difference between the clocks of the signer and of this server.
pub const LEEWAY: Duration = Duration::from_secs(30);

const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The `Authorization` header has this before the token. Some clients send it in other places by mistake.
const SCHEME: &str = "Bearer ";
/// As long as the hash: a shorter secret is easier to guess than a signature is.
const MIN_SECRET_BYTES: usize = 32;
const RSA_BITS: RangeInclusive<usize> = 2048..=4096;
/// 9999-12-31T23:59:59.999Z, the last moment that can be shown; a token without an end ends there.
const LAST_MS: i64 = 253_402_300_799_999;

/// The claims of a valid token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The user, from `sub`.
    pub user: UserId,
    pub name: Option<String>,
    pub is_admin: bool,
    /// The time at which it expires, from `exp`. It is accepted for [`LEEWAY`] longer.
    pub expires_at: Timestamp,
}

/// The keys whose signatures count. Several of one algorithm are all tried, so that keys can be changed while
/// tokens of the old one are still about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.bytes() == other.bytes()
    }
}

impl Key {
    fn bytes(&self) -> &[u8] {
        self.key.try_get_as_bytes().unwrap_or_default()
    }

    /// A signature that is none is not valid; an error means that the key is none.
    fn signed(&self, message: &str, signature: &str) -> jsonwebtoken::errors::Result<bool> {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm)
    }

    fn public(block: &Pem) -> Result<Self, String> {
        let text = pem::encode(block);
        let text = text.as_bytes();
        let readings = [
            (Algorithm::RS256, DecodingKey::from_rsa_pem(text)),
            (Algorithm::ES256, DecodingKey::from_ec_pem(text)),
            (Algorithm::EdDSA, DecodingKey::from_ed_pem(text)),
        ];
        let key = readings.into_iter().find_map(|(algorithm, key)| Some(Self { algorithm, key: key.ok()? }));
        let key = key.ok_or("must be an RSA, EC P-256 or Ed25519 key")?;
        match key.algorithm {
            Algorithm::RS256 => {
                let components = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(key.bytes());
                let bits = components
                    .ok()
                    .and_then(|(n, _)| Some(n.len() * 8 - n.first()?.leading_zeros() as usize));
                if !bits.is_some_and(|bits| RSA_BITS.contains(&bits)) {
                    return Err(format!(
                        "an RSA key must have {} to {} bits",
                        RSA_BITS.start(),
                        RSA_BITS.end()
                    ));
                }
            }
            // The library takes the first 32 bytes, and panics where there are fewer.
            Algorithm::EdDSA if key.bytes().len() != 32 => return Err("is no Ed25519 key".to_owned()),
            _ => {}
        }
        match key.signed("", "") {
            Ok(_) => Ok(key),
            Err(_) if key.algorithm == Algorithm::ES256 => {
                Err("an EC key must be of the curve P-256".to_owned())
            }
            Err(_) => Err("is no valid key".to_owned()),
        }
    }
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds secrets (HS256), separated by white space; the very first mints.
    ///
    /// # Errors
    /// What is wrong with them, without repeating them.
    pub fn add_secrets(&mut self, secrets: &str) -> Result<(), String> {
        let before = self.0.len();
        for secret in secrets.split_whitespace() {
            if secret.len() < MIN_SECRET_BYTES {
                let why = "bytes or more; white space stands between several";
                return Err(format!("each secret must have {MIN_SECRET_BYTES} {why}"));
            }
            let key = DecodingKey::from_secret(secret.as_bytes()).map_err(|_| "is empty")?;
            self.0.push(Key { algorithm: Algorithm::HS256, key });
        }
        if self.0.len() == before { Err("is empty".to_owned()) } else { Ok(()) }
    }

    /// Adds public keys, one or more PEM blocks: RSA (RS256), EC P-256 (ES256), Ed25519 (EdDSA).
    ///
    /// # Errors
    /// What is wrong with them, without repeating them.
    pub fn add_public_keys(&mut self, text: &str) -> Result<(), String> {
        if text.contains("PRIVATE KEY-----") {
            return Err("has a private key, which only who signs tokens may have; \
                        make its public key with: openssl pkey -in private.pem -pubout"
                .to_owned());
        }
        let blocks = pem::parse_many(text).unwrap_or_default();
        // A block that has no end is passed over without a word.
        if blocks.is_empty() || blocks.len() != text.matches("-----BEGIN").count() {
            return Err("must be PEM: whole blocks of -----BEGIN PUBLIC KEY-----".to_owned());
        }
        for (block, n) in blocks.iter().zip(1..) {
            let key = match block.tag() {
                "PUBLIC KEY" | "RSA PUBLIC KEY" => Key::public(block),
                "CERTIFICATE" => {
                    Err("is a certificate; make its public key with: openssl x509 -pubkey -noout".to_owned())
                }
                _ => Err("is no PUBLIC KEY".to_owned()),
            };
            self.0.push(key.map_err(|why| format!("block {n}: {why}"))?);
        }
        Ok(())
    }

    /// Verifies a token: a key of this server must have signed it, and it must be valid at this time.
    ///
    /// # Errors
    /// `invalid_token`, `token_expired`; neither repeats the token.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Token> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("the token is over 8 KiB"));
        }
        if token.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME)) {
            return Err(invalid("the token has `Bearer` before it, which only the Authorization header has"));
        }
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            Some((message, object(header)?, object(claims)?, signature))
        });
        let (message, header, claims, signature) = parts
            .ok_or_else(|| invalid("the token is not a JWT: header, claims and signature in base64url"))?;
        if header.contains_key("crit") {
            // RFC 7515, 4.1.11: who does not know an extension must not take the token.
            return Err(invalid("the token has critical extensions; none is known here"));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
        let mut keys = self.0.iter().filter(|key| Some(key.algorithm) == algorithm).peekable();
        if keys.peek().is_none() {
            return Err(invalid("the token's algorithm is that of no key of this server"));
        }
        if !keys.any(|key| key.signed(message, signature).unwrap_or(false)) {
            return Err(invalid("the token's signature is by no key of this server"));
        }
        Token::from_claims(&claims, now)
    }

    /// Can this server sign tokens? It needs a secret for that: with a public key alone it can only verify them.
    pub fn can_mint(&self) -> bool {
        self.secret().is_some()
    }

    fn secret(&self) -> Option<&Key> {
        self.0.iter().find(|key| key.algorithm == Algorithm::HS256)
    }

    /// Signs a token with the first secret; `None` without one. Its end is rounded down to the second.
    pub fn mint(&self, token: &Token) -> Option<String> {
        let key = self.secret()?;
        let exp = token.expires_at.as_millis().div_euclid(1000);
        let mut claims = json!({"sub": token.user.to_string(), "exp": exp});
        if let Some(name) = &token.name {
            claims["name"] = name.as_str().into();
        }
        if token.is_admin {
            claims["role"] = "admin".into();
        }
        let signing_key = EncodingKey::from_secret(key.bytes()).ok()?;
        jsonwebtoken::encode(&Header::new(key.algorithm), &claims, &signing_key).ok()
    }
}

impl Token {
    fn from_claims(claims: &Map<String, Value>, now: Timestamp) -> Result<Self> {
        let user = claims.get("sub").and_then(UserId::of_value).ok_or_else(|| {
            invalid("the token's sub must be a user's id: an integer from 0 to 2^53-1, or its decimal string")
        })?;
        let name = match claims.get("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => presentable(name),
            Some(_) => return Err(invalid("the token's name must be a string")),
        };
        let expires_at = date(claims, "exp")?.ok_or_else(|| invalid("the token has no exp"))?;
        let leeway = LEEWAY.as_millis() as i64;
        let now = now.as_millis();
        if date(claims, "nbf")?.is_some_and(|nbf| now < nbf.as_millis() - leeway) {
            return Err(invalid("the token is not valid yet"));
        }
        if now >= expires_at.as_millis() + leeway {
            return Err(Error::new(Code::TokenExpired, "the token has expired"));
        }
        let is_admin = claims.get("role").is_some_and(|role| role == "admin");
        Ok(Self { user, name, is_admin, expires_at })
    }
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Code::InvalidToken, detail)
}

/// Parses one part of a token. A member that is there twice would mean different things to different readers.
fn object(part: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Seconds since 1970, whole or not; what is too far away to be shown is as near as can be.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(seconds)) => {
            let ms = (seconds.as_f64().unwrap_or_default() * 1000.0).round() as i64;
            Ok(Some(Timestamp::from_millis(ms.clamp(0, LAST_MS))))
        }
        Some(_) => Err(invalid(format!("the token's {name} must be a number of seconds"))),
    }
}

#[cfg(test)]
mod tests;

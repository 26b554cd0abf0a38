//! No token is taken but one that a key made, and that one for what it says.

#![no_main]

mod doc;

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use doc::Doc;
use georoom::domain::{
    error::{Code, Error},
    id::MAX_SAFE_INTEGER,
    time::Timestamp,
    token::{Keys, LEEWAY, Token},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "0123456789abcdef0123456789abcdeF";
const PUBLIC_KEYS: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFQh3GPlMzt+PCABe/QMyyFTebFP3
vHg9QHG4cv9f9081/2WYvgA3YP9j2ppSaWlEgcnI3z+5CdwND1hvUMFvbw==
-----END PUBLIC KEY-----
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZlwC2KiNY3C88tsUyK55ZhUh2AElffa4Xs14Gk7tebM=
-----END PUBLIC KEY-----
";
/// Those that the keys made: {"sub":"7","name":"Ada","exp":1800000000}.
const GENUINE: [&str; 3] = [
    include_str!("../seeds/tokens/hs256"),
    include_str!("../seeds/tokens/es256"),
    include_str!("../seeds/tokens/eddsa"),
];
/// A little before they end.
const NOW_MS: i64 = 1_799_999_000_000;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut keys = Keys::default();
    keys.add_secrets(SECRET).expect("a secret");
    keys.add_public_keys(PUBLIC_KEYS).expect("keys");
    for token in GENUINE {
        keys.verify(token, Timestamp::from_millis(NOW_MS)).expect("a genuine token");
    }
    keys
});

// The first byte says what the others are.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b'e', [which, edits @ ..])) => edited(GENUINE[usize::from(*which) % GENUINE.len()], edits),
        Some((b'c', claims)) => claimed(claims),
        Some((b'h', header)) => headed(header),
        Some((b'w', claims)) => {
            let forged = signed(br#"{"alg":"HS256"}"#, claims, OTHER_SECRET);
            assert_eq!(refused(&forged).code, Code::InvalidToken);
        }
        _ => {
            let Ok(token) = str::from_utf8(data) else { return };
            if !GENUINE.contains(&token) {
                assert_eq!(refused(token).code, Code::InvalidToken);
            }
        }
    }
});

fn verify(token: &str) -> Result<Token, Error> {
    KEYS.verify(token, Timestamp::from_millis(NOW_MS))
}

fn refused(token: &str) -> Error {
    let error = verify(token).expect_err("no key made it");
    assert!((1..=400).contains(&error.detail.chars().count()) && error.pointer.is_none(), "{error}");
    error
}

fn signed(header: &[u8], claims: &[u8], secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes()).expect("a secret");
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// A genuine token, bytes of which are replaced: two bytes of a place, and the new one.
fn edited(genuine: &str, edits: &[u8]) {
    let mut bytes = genuine.as_bytes().to_vec();
    for edit in edits.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2] & 0x7f;
    }
    let token = String::from_utf8(bytes).expect("ASCII");
    if token != genuine {
        assert_eq!(refused(&token).code, Code::InvalidToken);
    }
}

/// Any claims, signed as they must be.
fn claimed(claims: &[u8]) {
    let read = verify(&signed(br#"{"alg":"HS256"}"#, claims, SECRET));
    let token = match read {
        Ok(token) => token,
        Err(error) => {
            assert!(matches!(error.code, Code::InvalidToken | Code::TokenExpired), "{error}");
            return assert!((1..=400).contains(&error.detail.chars().count()), "{error}");
        }
    };
    let doc = Doc::parse(claims).expect("only JSON is accepted");
    assert!(!doc.repeats());
    let sub = doc.get("sub").and_then(Doc::as_id).expect("a user's id");
    assert!(sub <= MAX_SAFE_INTEGER);
    assert_eq!(token.user.get(), sub);
    assert_eq!(token.is_admin, doc.get("role") == Some(&Doc::text("admin")));
    let leeway = LEEWAY.as_millis() as i64;
    let exp = doc.get("exp").and_then(Doc::as_f64).expect("an exp");
    assert!(NOW_MS < token.expires_at.as_millis() + leeway);
    assert!(exp * 1000.0 + leeway as f64 + 1.0 > NOW_MS as f64);
    let nbf = doc.get("nbf").and_then(Doc::as_f64).unwrap_or_default();
    assert!(nbf * 1000.0 < (NOW_MS + leeway) as f64 + 1.0);
    if let Some(name) = &token.name {
        assert!((1..=255).contains(&name.chars().count()) && !name.contains(char::is_control));
    }
    // It can be made again, but for the part of a second.
    let whole = Timestamp::from_millis(token.expires_at.as_millis() / 1000 * 1000);
    match verify(&KEYS.mint(&token).expect("there is a secret")) {
        Ok(again) => assert_eq!(again, Token { expires_at: whole, ..token }),
        Err(_) => assert!(whole.as_millis() + leeway <= NOW_MS),
    }
}

/// Any header before good claims, signed with the secret.
fn headed(header: &[u8]) {
    let token = signed(header, br#"{"sub":7,"exp":1800000000}"#, SECRET);
    if verify(&token).is_ok() {
        let doc = Doc::parse(header).expect("only JSON is accepted");
        assert_eq!(doc.get("alg"), Some(&Doc::text("HS256")));
        assert!(!doc.repeats() && doc.get("crit").is_none());
    }
}

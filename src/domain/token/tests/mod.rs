//! Attacks on tokens, and tokens that another library made.

mod claims;
mod keys;

use proptest::prelude::*;

use keys::*;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A little before the tokens below end.
const NOW_S: i64 = 1_799_999_000;
const EXP_S: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn now() -> Timestamp {
    at(NOW_S)
}

fn keys(secrets: &str, pem: &str) -> Keys {
    let mut keys = Keys::default();
    if !secrets.is_empty() {
        keys.add_secrets(secrets).unwrap();
    }
    if !pem.is_empty() {
        keys.add_public_keys(pem).unwrap();
    }
    keys
}

fn all_keys() -> Keys {
    keys(SECRET, &[RSA, P256, ED25519].concat())
}

fn signed(header: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes()).unwrap();
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with_claims(claims: &str) -> Result<Token> {
    keys(SECRET, "").verify(&signed(r#"{"alg":"HS256"}"#, claims, SECRET), now())
}

/// Replaces one of the three parts.
fn with_part(token: &str, n: usize, part: &str) -> String {
    let mut parts: Vec<_> = token.split('.').collect();
    parts[n] = part;
    parts.join(".")
}

fn refused(keys: &Keys, token: &str, what: &str) {
    let error = keys.verify(token, now()).expect_err(what);
    assert_eq!(error.code, Code::InvalidToken, "{what}: {error}");
    let says = format!("{error} {error:?}");
    assert!(
        token.len() < 20 || !token.split('.').any(|part| part.len() > 8 && says.contains(part)),
        "{what}: {says}"
    );
}

#[test]
fn each_algorithm_is_taken_with_its_key_and_with_no_other() {
    let ada = Token {
        user: UserId::new(7).unwrap(),
        name: Some("Ada".to_owned()),
        is_admin: false,
        expires_at: at(EXP_S),
    };
    let cases = [
        (HS256, keys(SECRET, "")),
        (RS256, keys("", RSA)),
        (ES256, keys("", P256)),
        (EDDSA, keys("", ED25519)),
    ];
    for (n, (token, _)) in cases.iter().enumerate() {
        assert_eq!(all_keys().verify(token, now()).unwrap(), ada, "case {n}");
        for (m, (_, keys)) in cases.iter().enumerate() {
            if n == m {
                assert_eq!(keys.verify(token, now()).unwrap(), ada, "case {n}");
            } else {
                refused(keys, token, "the key of another algorithm");
            }
        }
    }
    assert_eq!(keys("", RSA_PKCS1).verify(RS256, now()).unwrap(), ada);
    refused(&all_keys(), PS256, "another algorithm of the same key");
    refused(&Keys::default(), HS256, "no key at all");
}

#[test]
fn every_key_of_a_rotation_counts_and_the_first_secret_mints() {
    let old = "an older secret of thirty-two bytes";
    let old = old.replace(' ', "-");
    let both = keys(&format!(" {SECRET}\n{old}\n"), "");
    let token = both.verify(HS256, now()).unwrap();
    assert!(both.verify(&keys(&old, "").mint(&token).unwrap(), now()).is_ok());
    let minted = both.mint(&token).unwrap();
    assert_eq!(keys(SECRET, "").verify(&minted, now()).unwrap(), token);
    refused(&keys(&old, ""), &minted, "the old secret alone");
    assert_eq!(keys("", RSA).mint(&token), None);

    let admin = Token { name: None, is_admin: true, expires_at: at(EXP_S - 1), ..token };
    let minted = all_keys().mint(&admin).unwrap();
    assert_eq!(all_keys().verify(&minted, now()).unwrap(), admin);
}

#[test]
fn the_token_does_not_choose_its_algorithm() {
    let claims = r#"{"sub":7,"exp":1800000000}"#;
    for none in ["none", "None", "NONE", "nOnE", "none ", "", "null"] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        let token = signed(&header, claims, SECRET);
        refused(&all_keys(), &token, none);
        refused(&all_keys(), &with_part(&token, 2, ""), none);
    }
    let headers = [
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "{}",
        "",
    ];
    for header in headers {
        refused(&all_keys(), &signed(header, claims, SECRET), header);
    }
    // The public key as a secret, in each form somebody might have it in.
    for pem in [RSA, P256, ED25519] {
        let der = pem::parse(pem).unwrap().into_contents();
        // A key of one zero byte signs like the empty one, because HMAC fills keys up with zeros (RFC 2104 §2).
        let spellings = [pem.as_bytes(), pem.trim_end().as_bytes(), pem.trim().as_bytes(), &der, b"\0"];
        for secret in spellings {
            let message = signed(r#"{"alg":"HS256"}"#, claims, SECRET);
            let (message, _) = message.rsplit_once('.').unwrap();
            let key = EncodingKey::from_secret(secret).unwrap();
            let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            refused(&keys("", pem), &format!("{message}.{signature}"), "the public key as a secret");
            refused(&all_keys(), &format!("{message}.{signature}"), "the public key as a secret");
        }
    }
    // A key the token brings along is none.
    let jwk = r#"{"alg":"HS256","kid":"../../dev/null","jwk":{"kty":"oct","k":"QUFBQQ"}}"#;
    refused(&all_keys(), &signed(jwk, claims, "AAAA"), "jwk");
}

#[test]
fn what_was_changed_or_is_no_token_is_refused() {
    let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"8","name":"Ada","exp":1800000000}"#);
    for token in [HS256, RS256, ES256, EDDSA] {
        refused(&all_keys(), &with_part(token, 1, &other), "other claims");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[0] ^= 1;
        refused(&all_keys(), &format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes)), "one bit");
        for length in [0, 1, bytes.len() - 1] {
            let short = URL_SAFE_NO_PAD.encode(&bytes[..length]);
            refused(&all_keys(), &format!("{message}.{short}"), "a short signature");
        }
        refused(&all_keys(), &format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "zeros");
        let spellings = [
            message.to_owned(),
            format!("{message}."),
            format!("{message}.{signature}="),
            format!("{message}.{signature}A"),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}.{signature}"),
            format!("{token}\n"),
            format!(" {token}"),
            format!("Bearer {token}"),
            token.replacen('.', "..", 1),
            token.replace('.', "%2E"),
            format!("{token}\u{0}"),
            format!("ä{token}"),
        ];
        for spelling in spellings {
            refused(&all_keys(), &spelling, &spelling);
        }
    }
    for text in ["", ".", "..", "...", "null", "e30.e30.", "e30.e30.e30", "🦀.🦀.🦀"] {
        refused(&all_keys(), text, text);
    }
    let long = |n: usize| format!(r#"{{"sub":7,"exp":1800000000,"x":"{}"}}"#, "a".repeat(n));
    assert!(with_claims(&long(5_000)).is_ok());
    assert_eq!(with_claims(&long(6_200)).unwrap_err().detail, "the token is over 8 KiB");
    refused(&all_keys(), &".".repeat(1 << 20), "huge");
}

#[test]
fn keys_that_are_weak_private_or_unknown_are_refused() {
    let refused = |pem: &str| {
        let why = Keys::default().add_public_keys(pem).expect_err(pem);
        assert!(!why.contains("MI") && !why.contains('\n'), "{why}");
        why
    };
    assert_eq!(refused(RSA_1024), "block 1: an RSA key must have 2048 to 4096 bits");
    for pem in [P384, SECP256K1] {
        assert_eq!(refused(pem), "block 1: an EC key must be of the curve P-256");
    }
    for pem in [X25519, ED448] {
        assert_eq!(refused(pem), "block 1: must be an RSA, EC P-256 or Ed25519 key");
    }
    assert!(refused(&[ED25519, P384].concat()).starts_with("block 2: "));
    for kind in
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
    {
        let private = format!("-----BEGIN {kind}-----\nMIAA\n-----END {kind}-----\n");
        assert!(refused(&[RSA, &private].concat()).contains("private key"), "{kind}");
    }
    let certificate = RSA.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(refused(&certificate).contains("openssl x509"));
    let cut = &ED25519[..ED25519.len() - 10];
    let short = "-----BEGIN PUBLIC KEY-----\nMAwwBQYDK2VwAwMAZlw=\n-----END PUBLIC KEY-----\n";
    for bad in [
        "",
        "x",
        cut,
        &[ED25519, cut].concat(),
        short,
        &RSA.replace("MIIB", "!!!!"),
        &RSA.replace("MIIB", "MIIC"),
    ] {
        refused(bad);
    }
    for bad in ["", " \n", "0123456789abcdef0123456789abcde", &format!("{SECRET} short"), RSA] {
        let why = Keys::default().add_secrets(bad).expect_err(bad);
        assert!(!why.contains("short ") && !why.contains("0123"), "{why}");
    }
}

#[test]
fn keys_are_not_printed() {
    let shown = format!("{:?} {:#?}", all_keys(), all_keys());
    assert!(shown.contains("HS256") && !shown.contains(&SECRET[..6]) && !shown.contains("48, 49"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_nobody_signed_is_refused(
        text in "\\PC*",
        parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
        claims in proptest::collection::vec(any::<u8>(), 0..60),
        signature in proptest::collection::vec(any::<u8>(), 0..300),
        algorithm in prop::sample::select(vec!["HS256", "RS256", "ES256", "EdDSA", "none"]),
    ) {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let valid = URL_SAFE_NO_PAD.encode(r#"{"sub":7,"exp":1800000000}"#);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let keys = all_keys();
        for token in [
            text,
            parts.join("."),
            format!("{header}.{claims}.{signature}"),
            format!("{header}.{valid}.{signature}"),
        ] {
            prop_assert_eq!(keys.verify(&token, now()).unwrap_err().code, Code::InvalidToken);
        }
    }

    #[test]
    fn signed_claims_of_any_kind_never_panic(claims in "\\PC*", number in any::<f64>(), name in ".*") {
        let _ = with_claims(&claims);
        let claims = json!({"sub": 7, "exp": number, "nbf": number, "name": name});
        let _ = with_claims(&claims.to_string());
    }
}

//! SCRAM-SHA-256 verifiers as PostgreSQL stores them, from a password, without randomness.
//!
//! PostgreSQL salts at random; then the desired verifier could never be compared with the one in
//! the catalogue. Here the salt is a keyed digest of the password itself and the role's name:
//! as unpredictable as the password, different for each role, and the same in every pass.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::model::SecretText;

/// PostgreSQL's own default (`scram_iterations`).
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mut mac| {
            mac.update(message);
            mac.finalize().into_bytes().into()
        })
        .unwrap_or_default()
}

/// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey` for `ALTER ROLE … PASSWORD` and userlist.txt.
///
/// The password must be ASCII (validated where secrets are read), for SASLprep is the identity there.
pub fn verifier(role: &str, password: &SecretText) -> SecretText {
    let password = password.expose().as_bytes();
    let salt = &hmac(password, format!("reconcile scram salt for {role}").as_bytes())[..SALT_BYTES];
    let mut salted = [0_u8; 32];
    // The output length is valid for any HMAC, so this cannot fail.
    let _always_ok = pbkdf2::pbkdf2::<Hmac<Sha256>>(password, salt, ITERATIONS, &mut salted);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    SecretText::new(format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_password_gives_same_verifier_and_roles_differ() {
        let password = SecretText::new("correct horse battery staple");
        assert_eq!(verifier("app", &password), verifier("app", &password));
        assert_ne!(verifier("app", &password), verifier("other", &password));
        assert!(verifier("app", &password).expose().starts_with("SCRAM-SHA-256$4096:"));
    }

    /// RFC 7677, section 3, gives salt, iterations and the server's signature for this password;
    /// from them the keys follow. Here: our primitives reproduce its ServerSignature.
    #[test]
    fn primitives_match_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let mut salted = [0_u8; 32];
        let _always_ok = pbkdf2::pbkdf2::<Hmac<Sha256>>(b"pencil", &salt, 4096, &mut salted);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&hmac(&salted, b"Server Key"), message.as_bytes());
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }
}

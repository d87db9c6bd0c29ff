//! The page: one answer with its style and its script in it, and a policy that lets nothing else
//! run or load.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

const HTML: &str = include_str!("../page/index.html");
const CSS: &str = include_str!("../page/page.css");
const JS: &str = include_str!("../page/page.js");

/// The page as it is served.
pub(crate) struct Page {
    pub(crate) html: String,
    pub(crate) policy: String,
}

/// The page.
pub(crate) fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        Page {
            html: HTML.replace("{{style}}", CSS).replace("{{script}}", JS),
            policy: format!(
                "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
                 connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'",
                digest(JS),
                digest(CSS),
            ),
        }
    });
    &PAGE
}

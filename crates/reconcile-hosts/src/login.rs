//! Logging in with a key file or the agent's keys.

use std::{path::Path, sync::Arc};

use russh::{
    client::{AuthResult, Handle},
    keys::{
        HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey,
        agent::{AgentIdentity, client::AgentClient},
        decode_secret_key,
    },
};

use crate::{connect::Client, fault::Fault, limits};

/// What to log in with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    /// `192.0.2.11:22`, for messages.
    pub(crate) server: &'a str,
    pub(crate) identity_file: Option<&'a Path>,
    pub(crate) agent: bool,
}

/// What became of one key.
enum Answer {
    Accepted,
    Refused,
    /// The key was right, and the server wants something more.
    Partial(String),
}

/// Logs in, with the key file first and then with the agent's keys.
pub(crate) async fn log_in(handle: &mut Handle<Client>, login: Login<'_>) -> Result<(), Fault> {
    let Login { user, server, .. } = login;
    let mut tried = Vec::new();
    if let Some(path) = login.identity_file {
        match load_key(path).await {
            Ok(key) => {
                let label = format!("key file {} ({})", path.display(), fingerprint(&key));
                match offer_key(handle, user, key).await? {
                    Answer::Accepted => return Ok(()),
                    Answer::Refused => tried.push(label),
                    Answer::Partial(methods) => return Err(wants_more(login, &methods)),
                }
            }
            // With an agent at hand an unreadable file may still be the name of a key in there.
            Err(fault) if login.agent => tried.push(fault.cause),
            Err(fault) => return Err(fault),
        }
    }
    if login.agent {
        match offer_agent(handle, login).await? {
            (Answer::Accepted, _) => return Ok(()),
            (Answer::Partial(methods), _) => return Err(wants_more(login, &methods)),
            (Answer::Refused, label) => tried.push(label),
        }
    }
    if tried.is_empty() {
        return Err(Fault::after_change(format!(
            "there is no key to log in with as {user} at {server}: set identityFile or agent"
        )));
    }
    Err(Fault::after_change(format!(
        "sshd at {server} refuses the login of {user}; tried: {}",
        tried.join("; ")
    )))
}

fn wants_more(login: Login<'_>, methods: &str) -> Fault {
    Fault::after_change(format!(
        "sshd at {} accepts the key of {} but wants {methods} as well, which a program cannot give",
        login.server, login.user
    ))
}

fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

/// Reads a private key file.
async fn load_key(path: &Path) -> Result<PrivateKey, Fault> {
    let path = expand_home(path);
    let shown = path.display();
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(|e| Fault::after_change(format!("key file {shown} cannot be read: {e}")))?;
    decode_secret_key(&text, None).map_err(|e| {
        Fault::after_change(match e {
            russh::keys::Error::KeyIsEncrypted => format!(
                "key file {shown} is encrypted with a passphrase: load it into an SSH agent \
                 (ssh-add {shown}) and set `agent: true`, or use a key without one"
            ),
            other => format!("key file {shown} is not a private key that can be used: {other}"),
        })
    })
}

/// `~/` is our own home.
fn expand_home(path: &Path) -> std::path::PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

async fn offer_key(
    handle: &mut Handle<Client>,
    user: &str,
    key: PrivateKey,
) -> Result<Answer, Fault> {
    let hash = rsa_hash(handle, key.public_key()).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    let result = handle.authenticate_publickey(user, key).await;
    result.map(answer).map_err(|e| broke(&e))
}

/// The hash for signatures by an RSA key; None for the other kinds.
async fn rsa_hash(handle: &Handle<Client>, key: &PublicKey) -> Result<Option<HashAlg>, Fault> {
    if !key.algorithm().is_rsa() {
        return Ok(None);
    }
    let supported = handle.best_supported_rsa_hash().await.map_err(|e| broke(&e))?;
    // A server that does not say takes SHA-2 nowadays.
    Ok(supported.unwrap_or(Some(HashAlg::Sha512)))
}

fn answer(result: AuthResult) -> Answer {
    match result {
        AuthResult::Success => Answer::Accepted,
        AuthResult::Failure { partial_success: true, remaining_methods } => {
            let names: Vec<&str> = remaining_methods.iter().map(Into::into).collect();
            Answer::Partial(names.join(" or "))
        }
        AuthResult::Failure { .. } => Answer::Refused,
    }
}

fn broke(error: &russh::Error) -> Fault {
    Fault::soon(format!("the connection broke while logging in: {error}"))
}

/// Offers the agent's keys; with what was offered, for messages.
async fn offer_agent(
    handle: &mut Handle<Client>,
    login: Login<'_>,
) -> Result<(Answer, String), Fault> {
    let mut agent = match AgentClient::connect_env().await {
        Ok(agent) => agent,
        Err(e) => return Ok((Answer::Refused, format!("the SSH agent does not answer: {e}"))),
    };
    if let Some(binding) = handle.agent_session_binding() {
        // Only keys with destination constraints need it; old agents do not know it.
        let _ignored = agent.bind_session(binding, false).await;
    }
    let mut keys: Vec<PublicKey> = match agent.request_identities().await {
        Ok(identities) => identities.into_iter().filter_map(plain_key).collect(),
        Err(e) => return Ok((Answer::Refused, format!("the SSH agent lists no keys: {e}"))),
    };
    if let Some(wanted) = public_half(login.identity_file).await {
        keys.sort_by_key(|key| key.key_data() != wanted.key_data());
    }
    let mut tried = 0;
    for key in keys.into_iter().take(limits::AGENT_KEYS) {
        tried += 1;
        let hash = rsa_hash(handle, &key).await?;
        match handle.authenticate_publickey_with(login.user, key, hash, &mut agent).await {
            Ok(result) => match answer(result) {
                Answer::Refused => {}
                other => return Ok((other, String::new())),
            },
            // The agent would not sign with this one (its owner said no); the next may do.
            Err(e) => tracing::debug!(error = %e, "the agent did not sign"),
        }
    }
    Ok((Answer::Refused, format!("{tried} keys of the SSH agent")))
}

fn plain_key(identity: AgentIdentity) -> Option<PublicKey> {
    match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    }
}

/// The public key beside a private key file, which names the agent's key to offer first.
async fn public_half(path: Option<&Path>) -> Option<PublicKey> {
    let path = expand_home(path?);
    let mut name = path.into_os_string();
    if !name.to_string_lossy().ends_with(".pub") {
        name.push(".pub");
    }
    PublicKey::from_openssh(tokio::fs::read_to_string(name).await.ok()?.trim()).ok()
}

//! The certificate that is shown: read at the start, and again when its files change. Files that do
//! not fit together leave the last good ones in use.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{options::ListenError, validity::validity};

/// Certificate and key in use.
pub(crate) struct Tls {
    chain: PathBuf,
    key: PathBuf,
    /// What was read last, whether it is in use or not.
    read: Option<(Vec<u8>, Vec<u8>)>,
    acceptor: TlsAcceptor,
    valid: Option<Range<i64>>,
    fault: Option<String>,
}

impl Tls {
    /// Reads both.
    pub(crate) fn load(chain: &Path, key: &Path) -> Result<Self, ListenError> {
        let read = read(chain, key)?;
        let (acceptor, valid) = make(chain, key, &read)?;
        let (chain, key) = (chain.to_owned(), key.to_owned());
        Ok(Self { chain, key, read: Some(read), acceptor, valid, fault: None })
    }

    /// Takes the files as they are now. True: something about them is new.
    pub(crate) fn refresh(&mut self) -> bool {
        let news = match read(&self.chain, &self.key) {
            Ok(read) if self.read.as_ref() == Some(&read) => return false,
            Ok(read) => {
                let made = make(&self.chain, &self.key, &read);
                self.read = Some(read);
                made
            }
            Err(error) => {
                self.read = None;
                Err(error)
            }
        };
        let fault = match news {
            Ok((acceptor, valid)) => {
                (self.acceptor, self.valid) = (acceptor, valid);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(*fault)) {
            tracing::warn!(fault, "the certificate before stays in use");
        }
        self.fault = fault;
        true
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// From when until when it is valid, in seconds since 1970.
    pub(crate) fn valid(&self) -> Option<Range<i64>> {
        self.valid.clone()
    }

    /// Why the files are not in use as they are now.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

fn fault(path: &Path) -> impl Fn(String) -> ListenError {
    let path = path.to_owned();
    move |cause| ListenError::Tls { path: path.clone(), cause }
}

fn read(chain: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), ListenError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| fault(path)(error.to_string()));
    Ok((read(chain)?, read(key)?))
}

fn make(
    chain: &Path,
    key: &Path,
    (certificates, private): &(Vec<u8>, Vec<u8>),
) -> Result<(TlsAcceptor, Option<Range<i64>>), ListenError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(chain)(error.to_string()))?;
    let valid = certificates.first().and_then(|certificate| validity(certificate));
    let private =
        PrivateKeyDer::from_pem_slice(private).map_err(|error| fault(key)(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(chain)(error.to_string()))?
        .with_no_client_auth()
        // Also an error where the key is another certificate's.
        .with_single_cert(certificates, private)
        .map_err(|error| fault(chain)(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), valid))
}

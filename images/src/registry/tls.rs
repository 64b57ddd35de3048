//! TLS for registries: the system's certificate authorities plus those of `hosts.toml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Where distributions keep their authorities; the first that exists is read.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// TLS settings of one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// Authorities trusted besides the system's (PEM).
    pub(crate) authorities: Vec<PathBuf>,
    /// Own certificate chain and key (PEM).
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// Take any certificate.
    pub(crate) skip_verify: bool,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Unreadable, or not PEM.
    #[error("{path:?}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate or key is not usable.
    #[error("{path:?}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rustls::Error,
    },
    /// The library refuses the settings.
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

/// Builds the client side of TLS.
pub(crate) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = if files.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(files)?)
    };
    let Some((certificate, key)) = &files.client else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        path: key.clone(),
        source,
    })?;
    let config = builder
        .with_client_auth_cert(chain, private)
        .map_err(|source| TlsError::Certificate {
            path: certificate.clone(),
            source,
        })?;
    Ok(Arc::new(config))
}

fn roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(system) = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()) {
        // Authorities in odd encodings are common in such bundles and no reason to stop.
        roots.add_parsable_certificates(certificates(system)?);
    }
    for path in &files.authorities {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| TlsError::Certificate {
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if found.is_empty() {
        Err(failed(rustls::pki_types::pem::Error::NoItemsFound))
    } else {
        Ok(found)
    }
}

/// `skip_verify`: the operator asked for it, for this host only. Signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

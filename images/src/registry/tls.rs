//! TLS for registries: the system's certificate authorities plus those of `hosts.toml`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::p521;
use crate::chain::chain;

/// Where distributions keep their authorities; the first that exists is read.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Where they keep them one by one; read when there is no bundle.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

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
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = if files.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let (roots, trusted) = roots(files)?;
        let roots = Arc::new(roots);
        match WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build() {
            Ok(usual) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Trusted { usual, trusted })),
            // Nobody is trusted: only plain HTTP can work.
            Err(_) => builder.with_root_certificates(roots),
        }
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

/// ring's, and P-521, which it lacks (decision 0022).
fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: p521::supported(),
        ..ring::default_provider()
    }
}

/// All that is trusted: the system's and those of `hosts.toml`, as a store and byte for byte.
fn roots(files: &TlsFiles) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut trusted = system_authorities(
        std::env::var_os("SSL_CERT_FILE"),
        std::env::var_os("SSL_CERT_DIR"),
    );
    // Authorities in odd encodings are common in such bundles and no reason to stop.
    roots.add_parsable_certificates(trusted.iter().cloned());
    for path in &files.authorities {
        for certificate in certificates(path)? {
            roots
                .add(certificate.clone())
                .map_err(|source| TlsError::Certificate {
                    path: path.clone(),
                    source,
                })?;
            trusted.push(certificate);
        }
    }
    Ok((roots, trusted))
}

/// The system's authorities, found as OpenSSL and Go find them: `SSL_CERT_FILE` instead of the first bundle that exists, and what
/// lies in the directories of `SSL_CERT_DIR`, or in the usual ones when there is no bundle. What cannot be read is left out.
fn system_authorities(file: Option<OsString>, directories: Option<OsString>) -> Vec<CertificateDer<'static>> {
    let named = |value: Option<OsString>| value.filter(|value| !value.is_empty());
    let file = named(file).map(PathBuf::from).or_else(|| {
        let known = SYSTEM_ROOTS.iter().map(PathBuf::from);
        known.into_iter().find(|path| path.exists())
    });
    let directories: Vec<PathBuf> = match (named(directories), &file) {
        (Some(list), _) => std::env::split_paths(&list).collect(),
        (None, Some(_)) => Vec::new(),
        (None, None) => SYSTEM_DIRECTORIES.iter().map(PathBuf::from).collect(),
    };
    let mut found = Vec::new();
    if let Some(file) = file {
        match certificates(&file) {
            Ok(all) => found = all,
            Err(error) => tracing::warn!(error = chain(&error), "the system's authorities are not read"),
        }
    }
    let entries = directories
        .iter()
        .filter_map(|path| std::fs::read_dir(path).ok())
        .flatten();
    for entry in entries.filter_map(Result::ok) {
        // Such directories hold other files as well, and each certificate under several names.
        for certificate in certificates(&entry.path()).unwrap_or_default() {
            if !found.contains(&certificate) {
                found.push(certificate);
            }
        }
    }
    found
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

/// The usual rules; and a certificate that is trusted itself, byte for byte, may also be a server's own, whatever it says of being
/// an authority. What people make in one line with openssl says that it is one.
#[derive(Debug)]
struct Trusted {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .usual
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // The time has been checked before this is found.
            Err(error) if is_authority(&error) && self.trusted.iter().any(|own| own == certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a certificate was refused because it is an authority's.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(directory: &Path, name: &str) -> CertificateDer<'static> {
        let (key, out) = (directory.join("key"), directory.join(name));
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"])
            .args([
                "-days",
                "9",
                "-addext",
                "subjectAltName=DNS:reg.example,IP:192.0.2.1",
            ])
            .args(["-keyout", key.to_str().unwrap(), "-out", out.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(made.status.success());
        std::fs::remove_file(key).unwrap();
        certificates(&out).unwrap().remove(0)
    }

    #[test]
    fn the_environment_names_the_authorities() {
        let directory = tempfile::tempdir().unwrap();
        let [one, more] = ["one", "more"].map(|name| directory.path().join(name));
        for path in [&one, &more] {
            std::fs::create_dir(path).unwrap();
        }
        let a = certificate(&one, "a.pem");
        let b = certificate(&more, "b.0");
        std::fs::copy(one.join("a.pem"), more.join("again.pem")).unwrap();
        std::fs::write(more.join("README"), "no certificate").unwrap();
        let os = |path: &Path| Some(path.as_os_str().to_owned());
        let file = os(&one.join("a.pem"));
        assert_eq!(system_authorities(file.clone(), None), [a]);
        let both = system_authorities(file, os(&more));
        assert!(both.len() == 2 && both.contains(&b), "each once");
        let list = std::env::join_paths([&one, &more, Path::new("/nonexistent")]).unwrap();
        let missing = Some("/nonexistent".into());
        assert_eq!(system_authorities(missing.clone(), Some(list)).len(), 2);
        assert!(system_authorities(missing, os(Path::new("/nonexistent"))).is_empty());
        let usual = system_authorities(None, None);
        assert_eq!(system_authorities(Some("".into()), Some("".into())), usual);
    }

    #[test]
    fn a_trusted_authority_is_a_server_only_by_its_names_and_in_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let own = certificate(directory.path(), "own.pem");
        let stranger = certificate(directory.path(), "stranger.pem");
        let mut roots = RootCertStore::empty();
        roots.add(own.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = Trusted {
            usual: usual.build().unwrap(),
            trusted: vec![own.clone()],
        };
        let now = UnixTime::now();
        let days = |days: u64| std::time::Duration::from_secs(days * 24 * 3600);
        let at = |time: std::time::Duration| UnixTime::since_unix_epoch(time);
        let check = |certificate: &CertificateDer<'static>, name: &'static str, time: UnixTime| {
            let name = ServerName::try_from(name).unwrap();
            verifier
                .verify_server_cert(certificate, &[], &name, &[], time)
                .is_ok()
        };
        assert!(check(&own, "reg.example", now) && check(&own, "192.0.2.1", now));
        assert!(!check(&own, "other.example", now) && !check(&own, "192.0.2.2", now));
        let seconds = std::time::Duration::from_secs(now.as_secs());
        assert!(!check(&own, "reg.example", at(seconds + days(10))));
        assert!(!check(&own, "reg.example", at(seconds - days(1))));
        assert!(!check(&stranger, "reg.example", now));
    }
}

//! Sets up TLS to a store or a registry, and decides which servers to trust. Both use rustls.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, client};

use crate::base::error::{Error, Result};

/// The proof that a server must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing. The connection is encrypted, whoever answers.
    None,
    /// A trusted authority signed the server's certificate.
    Authority,
    /// A trusted authority signed its certificate, and the certificate is for the requested name.
    AuthorityAndName,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of the authorities in a PEM file. Without a file, they are the ones that this machine trusts;
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` replace those.
///
/// # Errors
/// [`Error::Usage`] if the file cannot be read or has no certificate, [`Error::Failed`] if this machine has none.
pub(crate) fn authorities(file: Option<&str>) -> Result<Vec<CertificateDer<'static>>> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        if let (true, why) = (found.certs.is_empty(), found.errors.first()) {
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            return Err(Error::failed(format!(
                "this machine has no certificates of authorities{why}; install ca-certificates, or name a file of certificates"
            )));
        }
        return Ok(found.certs);
    };
    let none = |why: &dyn std::fmt::Display| {
        Error::usage(format!("the certificates of the server's authority, {file}: {why}"))
    };
    let found = CertificateDer::pem_file_iter(file).map_err(|e| none(&e))?;
    let found: Vec<_> = found.collect::<std::result::Result<_, _>>().map_err(|e| none(&e))?;
    if found.is_empty() { Err(none(&"it holds no certificate in PEM")) } else { Ok(found) }
}

/// # Errors
/// As [`authorities`].
pub(crate) fn client(proof: Proof, file: Option<&str>) -> Result<ClientConfig> {
    let provider = provider();
    let (roots, inner) = if proof == Proof::None {
        (Vec::new(), None)
    } else {
        let roots = authorities(file)?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build();
        (roots, Some(inner.map_err(|e| Error::failed(format!("the certificates of authorities: {e}")))?))
    };
    let verifier = Verifier { proof, roots, inner, provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::failed(format!("TLS: {e}")))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The usual verifier, with libpq's exceptions.
#[derive(Debug)]
struct Verifier {
    proof: Proof,
    roots: Vec<CertificateDer<'static>>,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        // A server may use one of the given certificates itself, self-signed. The usual verifier refuses it, because it is an
        // authority's certificate.
        if self.roots.iter().any(|root| root == certificate) {
            if self.proof == Proof::AuthorityAndName {
                client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        // The verifier checks the name last, so everything else is right if it refuses the name.
        match inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.proof == Proof::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! Signatures of P-521 keys, which some certificate authorities have: the one thing of the field's servers that ring cannot
//! verify. The arithmetic is RustCrypto's; here is what rustls wants around it.

use std::sync::LazyLock;

use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use rustls::SignatureScheme;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

/// What ring verifies, and P-521 with SHA-512, of certificates and of handshakes.
pub(super) fn supported() -> WebPkiSupportedAlgorithms {
    *SUPPORTED
}

/// rustls wants lists that live for ever: made once.
static SUPPORTED: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let of_ring = ring::default_provider().signature_verification_algorithms;
    let own: &'static [&'static dyn SignatureVerificationAlgorithm] = &[&EcdsaP521Sha512];
    let mapping = (SignatureScheme::ECDSA_NISTP521_SHA512, own);
    WebPkiSupportedAlgorithms {
        all: [of_ring.all, own].concat().leak(),
        mapping: [of_ring.mapping, &[mapping]].concat().leak(),
    }
});

#[derive(Debug)]
struct EcdsaP521Sha512;

impl SignatureVerificationAlgorithm for EcdsaP521Sha512 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA512
    }
}

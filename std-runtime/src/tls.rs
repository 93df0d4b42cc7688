//! Mutual TLS 1.3 between nodes, tools and HTTP clients.
//!
//! A node has three files in PEM form: the certificates of the authorities it trusts, its own
//! certificate chain, and its key. Both ends of every link present a certificate, and each must
//! have been signed, directly or through an intermediate, by one of those authorities. What a
//! certificate says about hosts is not looked at between nodes: it names a *node*, and a node may
//! only speak as itself. See [`certificate_name`] for where the name stands.
//!
//! The files are read again when they change ([`Tls::watch`]); open links go on undisturbed, the
//! next handshake uses the new files. Sessions are never resumed, so that a reload counts for
//! every later link.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use replcore::stream::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::options::TlsFiles;
use crate::reload::{self, changed_at};

/// What stands before a node's name in a URI among the alternative names of its certificate.
pub const NAME_URI_PREFIX: &str = "replcore:";

/// What is wrong with the three files, in one line that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The TLS side of a node or tool. Cheap to clone; all clones see a reload.
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: TlsFiles,
    current: RwLock<Arc<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    name: Name,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// When the files were last changed, as far as the file system tells.
    stamps: [Option<SystemTime>; 3],
}

impl Tls {
    /// Reads the files and checks that they belong together: the key to the certificate, the
    /// certificate to an authority, and that it is in force and names a node.
    ///
    /// # Errors
    /// One line that names the file at fault.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(Loaded::read(&files)?));
        Ok(Self { shared: Arc::new(Shared { files, current }) })
    }

    /// The name in the own certificate.
    pub fn name(&self) -> Name {
        self.current().name
    }

    /// The files it was made from.
    pub fn files(&self) -> &TlsFiles {
        &self.shared.files
    }

    /// Answers a handshake; gives the stream and the name that the peer's certificate carries.
    ///
    /// # Errors
    /// The handshake failed, or the peer's certificate names no node.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(server::TlsStream<S>, Name)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.current().server.clone());
        let stream = acceptor.accept(stream).await?;
        let name = peer_name(stream.get_ref().1.peer_certificates())?;
        Ok((stream, name))
    }

    /// Starts a handshake; gives the stream and the name that the peer's certificate carries.
    ///
    /// # Errors
    /// The handshake failed, or the peer's certificate names no node.
    pub async fn connect<S>(&self, stream: S) -> io::Result<(client::TlsStream<S>, Name)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.current().client.clone());
        // An address instead of a host, so that none is sent: the certificate names a node.
        let nowhere = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let stream = connector.connect(nowhere, stream).await?;
        let name = peer_name(stream.get_ref().1.peer_certificates())?;
        Ok((stream, name))
    }

    /// Reads the files again if one of them has changed. Returns whether they were taken.
    ///
    /// # Errors
    /// The files are not good, or name another node; what was loaded before stays in force.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let current = self.current();
        if stamps(&self.shared.files) == current.stamps {
            return Ok(false);
        }
        let loaded = Loaded::read(&self.shared.files)?;
        if loaded.name != current.name {
            let cert = self.shared.files.certificate.display();
            return Err(TlsError(format!(
                "{cert} now names {}, but this node is {}; the old certificate stays in force",
                loaded.name, current.name
            )));
        }
        *self.shared.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Arc::new(loaded);
        Ok(true)
    }

    /// Looks for changed files every `period` and takes them, for as long as it is polled.
    pub async fn watch(self, period: Duration) {
        let tell = |reloaded: Result<(), &TlsError>| match reloaded {
            Ok(()) => tracing::info!("the TLS files have changed and are in force"),
            Err(error) => tracing::error!("TLS files: {error}"),
        };
        reload::watch(period, || self.reload(), tell).await;
    }

    fn current(&self) -> Arc<Loaded> {
        self.shared.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        // Before the contents, so that a change in between is seen as one later.
        let stamps = stamps(files);
        let provider = Arc::new(ring::default_provider());
        let roots = read_roots(&files.ca)?;
        let chain = read_certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
            TlsError(format!("{}: no private key in PEM form: {error}", files.key.display()))
        })?;
        let name = certificate_name(&chain[0])
            .map_err(|error| TlsError(format!("{}: {error}", files.certificate.display())))?;
        let clients = client_verifier(&roots, &provider, &files.ca)?;
        let servers = Arc::new(AnyNode { roots, provider: provider.clone() });
        check_own(&chain, &clients, &servers, files)?;

        let at_fault = |error: rustls::Error| {
            let (cert, key) = (files.certificate.display(), files.key.display());
            TlsError(format!("{cert} and {key} do not go together: {error}"))
        };
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(at_fault)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(at_fault)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(at_fault)?
            .dangerous()
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(chain, key)
            .map_err(at_fault)?;
        client.resumption = Resumption::disabled();
        Ok(Self { name, server: Arc::new(server), client: Arc::new(client), stamps })
    }
}

/// The name of the node that a certificate is for. It stands, first match counts,
///
/// 1. in a URI among the subject's alternative names that begins with `replcore:`, such as
///    `replcore:shop-3/till-7`; any name can be written so, and this is what `replcore ca` makes;
/// 2. in the subject's common name;
/// 3. in the only DNS name among the alternative names, when there is no common name.
///
/// # Errors
/// None of these is there, one is there twice, or it is not a node name; in one line.
pub fn certificate_name(certificate: &CertificateDer<'_>) -> Result<Name, String> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("not a certificate: {error}"))?;
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|error| format!("the alternative names do not decode: {error}"))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris = alternatives.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NAME_URI_PREFIX),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let hosts = alternatives.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(*host),
        _ => None,
    });
    for candidates in [uris.collect::<Vec<_>>(), common.collect(), hosts.collect()] {
        match candidates.as_slice() {
            [] => {}
            [name] => {
                return Name::new(name)
                    .map_err(|error| format!("the certificate's name {name:?}: {error}"));
            }
            several => {
                let several = several.join(", ");
                return Err(format!("the certificate has several names ({several}): which node?"));
            }
        }
    }
    Err("the certificate names no node: it needs a URI replcore:NAME or a common name".into())
}

fn peer_name(chain: Option<&[CertificateDer<'_>]>) -> io::Result<Name> {
    let first = chain.and_then(<[_]>::first).ok_or_else(|| {
        io::Error::new(io::ErrorKind::PermissionDenied, "the peer presented no certificate")
    })?;
    certificate_name(first)
        .map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, format!("peer: {error}")))
}

fn stamps(files: &TlsFiles) -> [Option<SystemTime>; 3] {
    [&files.ca, &files.certificate, &files.key].map(|path| changed_at(path))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong =
        |error| TlsError(format!("{}: no certificate in PEM form: {error}", path.display()));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(error.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("nothing between BEGIN CERTIFICATE and END CERTIFICATE".into()));
    }
    Ok(certificates)
}

fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError(format!("{}: no authority: {error}", path.display())))?;
    }
    Ok(Arc::new(roots))
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    path: &Path,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| TlsError(format!("{}: {error}", path.display())))
}

/// Says at start what every peer would say later: that the own certificate is not good. A tool's
/// certificate may be for clients only, so one of the two uses is enough.
fn check_own(
    chain: &[CertificateDer<'static>],
    clients: &Arc<dyn ClientCertVerifier>,
    servers: &Arc<AnyNode>,
    files: &TlsFiles,
) -> Result<(), TlsError> {
    let now = UnixTime::now();
    let as_client = clients.verify_client_cert(&chain[0], &chain[1..], now);
    let as_server = servers.verify(&chain[0], &chain[1..], now);
    match (as_client, as_server) {
        (Err(error), Err(_)) => Err(TlsError(format!(
            "{}: not a certificate that {} vouches for: {error}",
            files.certificate.display(),
            files.ca.display()
        ))),
        _ => Ok(()),
    }
}

/// Accepts the certificate of any node that one of the authorities signed, whatever its host: the
/// caller goes by the node's name.
#[derive(Debug)]
struct AnyNode {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl AnyNode {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(certificate, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

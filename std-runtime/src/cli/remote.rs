//! The node that a command talks to.

use std::path::PathBuf;
use std::time::Duration;

use replcore::stream::Name;

use super::Fault;
use crate::api::{ApiError, Reply, Request};
use crate::client::{Client, ClientError, ClientOptions};
use crate::cluster::api::ClusterRequest;
use crate::options::{Address, TlsFiles};
use crate::tls::Tls;

/// Longest wait for an answer, beside what the request itself waits.
const ANSWER: Duration = Duration::from_secs(30);

/// How long to try to reach the node: a person waits.
const PATIENCE: Duration = Duration::from_secs(6);

const TLS: &str = "TLS (all three, or none)";

/// Where the node is, and how to speak to it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RemoteArgs {
    /// The node: HOST:PORT, or unix:/path/of/socket.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// The three files of mutual TLS: all or none.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// Certificates of the authorities that are trusted, PEM.
    #[arg(long, value_name = "FILE", help_heading = TLS, requires_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Own certificate, PEM; it names the node or program.
    #[arg(long, value_name = "FILE", help_heading = TLS, requires_all = ["tls_ca", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM.
    #[arg(long, value_name = "FILE", help_heading = TLS, requires_all = ["tls_ca", "tls_cert"])]
    pub(crate) tls_key: Option<PathBuf>,
}

impl TlsArgs {
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(ca), Some(certificate), Some(key)) => Some(TlsFiles {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        }
    }
}

/// An open link to a node.
pub(crate) struct Remote {
    client: Client,
    address: String,
}

impl Remote {
    /// Opens a link to the node.
    pub(crate) async fn open(args: &RemoteArgs) -> Result<Self, Fault> {
        let address: Address = args.node.parse().map_err(Fault::usage)?;
        let tls = match args.tls.files() {
            Some(files) => {
                Some(Tls::load(files).map_err(|error| Fault::failed(error.to_string()))?)
            }
            None => None,
        };
        // Several programs may run at once, so the name is of the process.
        let name = match &tls {
            Some(tls) => tls.name(),
            None => Name::new(&format!("cli-{}", std::process::id()))
                .map_err(|error| Fault::failed(error.to_string()))?,
        };
        let mut options = ClientOptions::new(name, address);
        options.tls = tls;
        options.patience = PATIENCE;
        let client = Client::open(options);
        match client.connected().await {
            Ok(()) => Ok(Self { client, address: args.node.clone() }),
            Err(error) => Err(unreachable_fault(&args.node, &error)),
        }
    }

    /// Asks the node.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, ApiError> {
        let wait = match request {
            Request::Read { wait_ms, .. }
            | Request::Fetch { wait_ms, .. }
            | Request::Cluster(ClusterRequest::Events { wait_ms, .. }) => *wait_ms,
            _ => 0,
        };
        let wait = ANSWER + Duration::from_millis(wait.into());
        self.client.call(request, wait).await.map_err(|mut error| {
            if error.kind == crate::api::ErrorKind::Unavailable {
                error.message = format!("{}: {}", self.address, error.message);
            }
            error
        })
    }

    /// Says good-bye.
    pub(crate) async fn close(self) {
        self.client.close().await;
    }
}

fn unreachable_fault(address: &str, error: &ClientError) -> Fault {
    match error {
        ClientError::Unreachable(why) => Fault::unreachable(format!(
            "cannot reach {address}: {why}; is a node running there, and with the same TLS setting?"
        )),
        other => Fault::unreachable(format!("{address}: {other}")),
    }
}

/// What a node says that does not belong to what was asked.
pub(crate) fn unexpected(reply: &Reply) -> Fault {
    Fault::failed(format!("the node answered something else: {reply:?}"))
}

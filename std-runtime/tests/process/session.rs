//! Calls to a node over its binary protocol, from code that is not asynchronous.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use replcore::stream::Name;
use replcore_runtime::api::{ApiError, ErrorKind, Reply, Request};
use replcore_runtime::client::{Client, ClientOptions};

/// How long one call may take before it counts as failed. The caller may try again.
const CALL: Duration = Duration::from_secs(10);

/// Runs `work` to its end on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Asks the node at `address` one thing.
///
/// # Errors
/// What the node answers, or [`ErrorKind::Unavailable`] when it does not.
pub(crate) fn call(address: &str, request: &Request) -> Result<Reply, ApiError> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed) % 64;
    let name = format!("test.{}.{number}", std::process::id());
    let options = ClientOptions::new(Name::new(&name).unwrap(), address.parse().unwrap());
    let late = || ApiError::new(ErrorKind::Unavailable, format!("{address} does not answer"));
    block_on(async {
        let client = Client::open(options);
        let answer = tokio::time::timeout(CALL, client.call(request, CALL)).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        let _ = tokio::time::timeout(Duration::from_secs(1), client.close()).await;
        answer
    })
}

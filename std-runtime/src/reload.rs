//! Files that are taken up again when they change.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// When a file was last changed, as far as the file system tells.
pub(crate) fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// Calls `reload` every `period`, for as long as it is polled, and `tell` with what came of it when
/// files were taken or are wrong.
pub(crate) async fn watch<E: PartialEq>(
    period: Duration,
    reload: impl Fn() -> Result<bool, E>,
    tell: impl Fn(Result<(), &E>),
) {
    let mut reported = None;
    loop {
        tokio::time::sleep(period).await;
        match reload() {
            Ok(true) => tell(Ok(())),
            Ok(false) => {}
            // A file that is being replaced is wrong for a moment: say each error once.
            Err(error) if reported.as_ref() == Some(&error) => {}
            Err(error) => {
                tell(Err(&error));
                reported = Some(error);
            }
        }
    }
}

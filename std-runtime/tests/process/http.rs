//! A producer over HTTP, with nothing but a socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::ledger::{Journal, body_of, class_of};
use crate::player::{acknowledged, batch_length};

/// Posts a JSON document. The status, and what was answered.
///
/// # Errors
/// The connection failed; what was posted is there or not.
pub(crate) fn post(address: &str, document: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        document.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(document.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no answer"))?;
    Ok((status, answer))
}

/// Posts batches until the stop file is there; one that is not answered is posted again.
pub(crate) fn produce(name: &str, address: &str, path: &Path, stop: &Path, per_second: u32) {
    let mut acknowledged = acknowledged(path);
    let mut journal = Journal::open(path);
    while !stop.exists() {
        let batch = batch_length(acknowledged);
        let message = |number: u64| {
            serde_json::json!({
                "type": "campaign",
                "class": class_of(number),
                "idempotency_key": format!("{name}/{number}"),
                "body": body_of(name, number),
            })
        };
        let messages: Vec<_> = (acknowledged + 1..=acknowledged + batch).map(message).collect();
        let document = serde_json::to_string(&messages).unwrap();
        match post(address, &document) {
            Ok((200 | 201, _)) => {
                acknowledged += batch;
                journal.write(&format!("acknowledged {acknowledged}\n"));
            }
            // Stopping, or at a limit: it may be tried again.
            Ok((429 | 503, _)) | Err(_) => {}
            Ok((status, answer)) => panic!("{status}: {answer}"),
        }
        std::thread::sleep(Duration::from_secs(1) * batch as u32 / per_second);
    }
    journal.write(&format!("done {acknowledged}\n"));
}

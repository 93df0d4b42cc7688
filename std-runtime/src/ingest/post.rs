//! Lines to the node, batch by batch.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::lines::{Line, LineRules, LineSplitter};
use crate::api::{ApiError, Bytes, ErrorKind, NewMessage, PostedId};

/// A batch ends at this many bytes.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// Bytes read at a time.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Lines that wait to be posted, within the limits of a batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: VecDeque<Line>,
    bytes: usize,
}

/// What came of posting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) posted: u64,
    pub(crate) duplicates: u64,
}

impl Batch {
    pub(crate) fn push(&mut self, line: Line) {
        self.bytes += line.text.as_ref().map_or(0, Vec::len);
        self.lines.push_back(line);
    }

    pub(crate) fn is_full(&self, messages_max: usize) -> bool {
        self.lines.len() >= messages_max || self.bytes >= BATCH_BYTES
    }

    /// Posts the lines in order, at most `messages_max` at a time, and takes them out as they are
    /// done. A line that is no message, or that is refused for good, goes to `reject` with the
    /// reason. `name` gives a message of a line its idempotency key. `taken` counts, also when it
    /// ends with an error.
    ///
    /// # Errors
    /// The node cannot take more now; what was not done is still in the batch.
    pub(crate) async fn post(
        &mut self,
        messages_max: usize,
        rules: &LineRules,
        name: impl Fn(u64) -> Option<Bytes>,
        post: &mut impl AsyncFnMut(Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError>,
        reject: &mut impl FnMut(&Line, &str),
        taken: &mut Taken,
    ) -> Result<(), ApiError> {
        let mut at_once = messages_max;
        while !self.lines.is_empty() {
            let messages = self.messages(at_once, rules, &name, reject);
            if messages.is_empty() {
                continue;
            }
            let count = messages.len();
            match post(messages).await {
                Ok(ids) => {
                    let duplicates = ids.iter().filter(|id| id.duplicate).count() as u64;
                    taken.duplicates += duplicates;
                    taken.posted += count as u64 - duplicates;
                    self.lines.drain(..count);
                }
                Err(error) => {
                    // Those before the named one are taken.
                    let before = error.index.filter(|index| *index < count);
                    let refused = is_final(error.kind);
                    if let Some(before) = before.filter(|_| error.kind != ErrorKind::Unavailable) {
                        taken.posted += before as u64;
                        self.lines.drain(..before);
                    }
                    if !refused {
                        return Err(error);
                    }
                    if before.is_none() && count > 1 {
                        // Which one it is about shows when they go one by one.
                        at_once = 1;
                        continue;
                    }
                    if let Some(line) = self.lines.pop_front() {
                        reject(&line, &error.message);
                    }
                }
            }
        }
        self.bytes = 0;
        Ok(())
    }

    /// The messages of the first lines; those that are none are rejected and taken out.
    fn messages(
        &mut self,
        count: usize,
        rules: &LineRules,
        name: &impl Fn(u64) -> Option<Bytes>,
        reject: &mut impl FnMut(&Line, &str),
    ) -> Vec<NewMessage> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let Some(line) = self.lines.get(messages.len()) else { break };
            let message = match &line.text {
                Some(text) => rules.message(text),
                None => {
                    Err("it is longer than a message may be (16 MiB, or message_bytes_max)".into())
                }
            };
            match message {
                Ok(mut message) => {
                    message.idempotency_key = message.idempotency_key.or_else(|| name(line.number));
                    messages.push(message);
                }
                Err(error) => {
                    if let Some(line) = self.lines.remove(messages.len()) {
                        reject(&line, &error);
                    }
                }
            }
        }
        messages
    }
}

/// Whether trying again later cannot help.
pub(crate) fn is_final(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Invalid
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::TooLarge => true,
        ErrorKind::Full | ErrorKind::Unavailable => false,
    }
}

/// How lines of a stream are posted.
#[derive(Clone, Debug, PartialEq)]
pub struct LinesOptions {
    /// How lines become messages.
    pub rules: LineRules,
    /// With a name, message of line n gets the idempotency key `lines/NAME/n`, so that the same
    /// stream given again is posted once. At most 900 bytes.
    pub name: Option<String>,
    /// Longest line, in bytes. Default 16 MiB.
    pub line_bytes_max: usize,
    /// Messages posted at a time. Default 256.
    pub batch_messages_max: usize,
    /// How long to try again while the node cannot take more, in milliseconds. Default 60,000.
    pub retry_ms_max: u64,
}

impl Default for LinesOptions {
    fn default() -> Self {
        Self {
            rules: LineRules::default(),
            name: None,
            line_bytes_max: 16 << 20,
            batch_messages_max: 256,
            retry_ms_max: 60_000,
        }
    }
}

/// What came of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinesSummary {
    /// Messages that were new.
    pub posted: u64,
    /// Messages that had been posted before.
    pub duplicates: u64,
    /// Lines that are no messages or were refused.
    pub rejected: u64,
}

/// Why a stream was not posted to its end.
#[derive(Debug)]
pub enum LinesError {
    /// It could not be read.
    Read(std::io::Error),
    /// The node would not take more, and `retry_ms_max` is over.
    Post(ApiError),
}

impl std::fmt::Display for LinesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the input cannot be read: {error}"),
            Self::Post(error) => write!(f, "the node takes no more: {error}"),
        }
    }
}

impl std::error::Error for LinesError {}

/// Posts the lines of `input` with `post`, which makes one call to a node. A batch goes when it is
/// full, and when the input has nothing more for the moment, so that a live stream is not held up.
/// `reject` is told number and reason of each line that is no message or is refused for good; the
/// others are posted. `progress` is told after each batch.
///
/// # Errors
/// See [`LinesError`]; what the last progress told is posted, and possibly a part of the next batch.
pub async fn post_lines(
    mut input: impl AsyncRead + Unpin,
    options: &LinesOptions,
    mut post: impl AsyncFnMut(Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError>,
    mut reject: impl FnMut(u64, &str),
    mut progress: impl FnMut(LinesSummary),
) -> Result<LinesSummary, LinesError> {
    let mut summary = LinesSummary::default();
    let mut splitter = LineSplitter::new(options.line_bytes_max, 0, 0);
    let mut batch = Batch::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // One read gives what is there, and every read is followed by a post of what it completed.
        let count = input.read(&mut buffer).await.map_err(LinesError::Read)?;
        if count == 0 {
            splitter.finish(|line| batch.push(line));
        } else {
            splitter.push(&buffer[..count], |line| batch.push(line));
        }
        if !batch.lines.is_empty() {
            post_patiently(&mut batch, options, &mut post, &mut summary, &mut reject).await?;
            progress(summary);
        }
        if count == 0 {
            return Ok(summary);
        }
    }
}

async fn post_patiently(
    batch: &mut Batch,
    options: &LinesOptions,
    post: &mut impl AsyncFnMut(Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError>,
    summary: &mut LinesSummary,
    reject: &mut impl FnMut(u64, &str),
) -> Result<(), LinesError> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(options.retry_ms_max);
    let mut wait = Duration::from_millis(50);
    let name = |line: u64| {
        options.name.as_ref().map(|name| Bytes(format!("lines/{name}/{line}").into_bytes()))
    };
    loop {
        let mut rejected = 0;
        let mut each = |line: &Line, error: &str| {
            rejected += 1;
            reject(line.number, error);
        };
        let max = options.batch_messages_max;
        let mut taken = Taken::default();
        let result = batch.post(max, &options.rules, name, post, &mut each, &mut taken).await;
        summary.posted += taken.posted;
        summary.duplicates += taken.duplicates;
        summary.rejected += rejected;
        match result {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() + wait > deadline => {
                return Err(LinesError::Post(error));
            }
            Err(_) => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }
}

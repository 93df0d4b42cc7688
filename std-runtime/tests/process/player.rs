//! Parts that this program plays when a test starts it anew: producers and consumers, which can be
//! killed as the nodes can.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use replcore::log::record::Message;
use replcore::stream::Name;
use replcore_runtime::client::{Client, ClientOptions, ConsumerOptions, Delivery};

use crate::harness::start_process;
use crate::ledger::{Journal, body_of, class_of, lines};
use crate::{http, session};

const PART: &str = "REPLCORE_TEST_PART";

/// A part, and what it is told.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Part {
    /// Posts numbered messages over the binary protocol until the stop file is there.
    Producer { name: String, address: String, journal: PathBuf, stop: PathBuf, per_second: u32 },
    /// The same over HTTP.
    HttpProducer { name: String, address: String, journal: PathBuf, stop: PathBuf, per_second: u32 },
    /// Processes everything that a node holds, as its consumer `audit`.
    Consumer { name: String, address: String, journal: PathBuf },
}

impl Part {
    /// Starts a process that plays it.
    pub(crate) fn start(&self, log: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_part_in_another_test_is_played", "--nocapture", "--quiet"]);
        command.env(PART, serde_json::to_string(self).unwrap());
        start_process(command, log)
    }
}

/// Plays the part that the environment names, if it names one.
pub(crate) fn play_if_asked() {
    let Ok(text) = std::env::var(PART) else { return };
    match serde_json::from_str(&text).unwrap() {
        Part::Producer { name, address, journal, stop, per_second } => {
            session::block_on(produce(&name, &address, &journal, &stop, per_second));
        }
        Part::HttpProducer { name, address, journal, stop, per_second } => {
            http::produce(&name, &address, &journal, &stop, per_second);
        }
        Part::Consumer { name, address, journal } => {
            session::block_on(consume(&name, &address, &journal));
        }
    }
}

/// The number up to which a producer's messages are acknowledged, by its journal.
pub(crate) fn acknowledged(journal: &Path) -> u64 {
    let last = |line: &String| line.split(' ').nth(1).and_then(|word| word.parse().ok());
    lines(journal).iter().rev().find_map(last).unwrap_or(0)
}

/// Whether a producer has ended because it was told to.
pub(crate) fn is_done(journal: &Path) -> bool {
    lines(journal).last().is_some_and(|line| line.starts_with("done "))
}

/// How many messages the batch after `acknowledged` has; 1 to 100.
pub(crate) fn batch_length(acknowledged: u64) -> u64 {
    1 + acknowledged.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100
}

/// What was posted and not acknowledged when an earlier life was killed is posted again under the
/// same keys: whether it had arrived or not, it is there once.
async fn produce(name: &str, address: &str, path: &Path, stop: &Path, per_second: u32) {
    let mut acknowledged = acknowledged(path);
    let mut journal = Journal::open(path);
    let mut options = ClientOptions::new(Name::new(name).unwrap(), address.parse().unwrap());
    options.patience = Duration::from_secs(600);
    let client = Client::open(options);
    while !stop.exists() {
        let batch = batch_length(acknowledged);
        for number in acknowledged + 1..=acknowledged + batch {
            let body = body_of(name, number);
            let key = format!("{name}/{number}");
            let message = Message {
                message_type: "campaign",
                idempotency_key: key.as_bytes(),
                body: body.as_bytes(),
                ..Message::default()
            };
            client.post(&message, class_of(number)).await.unwrap();
        }
        client.flush().await.unwrap();
        acknowledged += batch;
        journal.write(&format!("acknowledged {acknowledged}\n"));
        tokio::time::sleep(Duration::from_secs(1) * batch as u32 / per_second).await;
    }
    journal.write(&format!("done {acknowledged}\n"));
}

async fn consume(name: &str, address: &str, path: &Path) {
    let identity = |line: &String| line.split(' ').nth(1).map(String::from);
    let mut known: HashSet<String> = lines(path).iter().filter_map(identity).collect();
    let mut journal = Journal::open(path);
    journal.write("start\n");
    let mut options = ClientOptions::new(Name::new(name).unwrap(), address.parse().unwrap());
    options.patience = Duration::from_secs(600);
    options.consumer = Some(ConsumerOptions {
        name: Name::new("audit").unwrap(),
        message_type: "campaign".into(),
        from_start: true,
    });
    let client = Client::open(options);
    loop {
        let mut batch = vec![client.next().await.unwrap()];
        while batch.len() < 50
            && let Some(delivery) = client.try_next()
        {
            batch.push(delivery);
        }
        let noted: String = batch.iter().map(|delivery| note(delivery, &mut known)).collect();
        // Processed first, in one write, and acknowledged then: a kill in between brings them
        // again, and the identities in the journal tell that they were there.
        journal.write(&noted);
        tokio::time::sleep(Duration::from_millis(noted.len() as u64 % 16)).await;
        for delivery in &batch {
            client.acknowledge(delivery);
        }
    }
}

fn note(delivery: &Delivery, known: &mut HashSet<String>) -> String {
    let record = delivery.record().unwrap();
    let id = record.id();
    let id = format!("{:016x}/{:x}/{}/{}", id.origin.0, id.epoch.0, id.class, id.seq.0);
    let body = std::str::from_utf8(record.body()).unwrap();
    let mut words = body.split(' ');
    let (producer, number) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(body, body_of(producer, number.parse().unwrap()), "{id} has another body");
    let word = if known.insert(id.clone()) { "new" } else { "again" };
    format!("{word} {id} {producer} {number}\n")
}

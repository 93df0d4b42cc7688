//! Streams of lines.

use replcore_runtime::api::{ApiError, ErrorKind, NewMessage, PostedId, Reply, Request};
use replcore_runtime::handle::NodeHandle;
use replcore_runtime::ingest::{
    LineFormat, LineRules, LinesError, LinesOptions, LinesSummary, post_lines,
};
use tokio::io::AsyncWriteExt;

use crate::support::FakeNode;

async fn post(node: &NodeHandle, messages: Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError> {
    match node.call(Request::Post { messages }).await? {
        Reply::Posted { ids } => Ok(ids),
        other => panic!("{other:?}"),
    }
}

fn options(format: LineFormat, name: Option<&str>) -> LinesOptions {
    LinesOptions {
        rules: LineRules { format, ..LineRules::default() },
        name: name.map(String::from),
        line_bytes_max: 1000,
        batch_messages_max: 7,
        ..LinesOptions::default()
    }
}

/// Posts `text`; gives the summary and the rejected lines.
async fn run(
    node: &FakeNode,
    text: &str,
    options: &LinesOptions,
) -> (Result<LinesSummary, LinesError>, Vec<u64>) {
    let handle = node.start();
    let mut rejected = Vec::new();
    let result = post_lines(
        text.as_bytes(),
        options,
        async |messages| post(&handle, messages).await,
        |line, error| {
            assert!(!error.is_empty());
            rejected.push(line);
        },
        |_| {},
    )
    .await;
    (result, rejected)
}

#[tokio::test]
async fn lines_become_messages_in_order_and_bad_ones_are_named_hs_28() {
    let node = FakeNode::default();
    let mut text = String::new();
    for n in 0..100 {
        text.push_str(&format!("{{\"body\":\"{n}\"}}\n"));
        if n % 10 == 3 {
            text.push_str("{\"bod\n");
        }
        if n % 10 == 5 {
            text.push_str(&format!("{{\"class\":9,\"body\":\"{n}\"}}\r\n"));
        }
    }
    text.push_str(&"x".repeat(1001));
    let (summary, rejected) = run(&node, &text, &options(LineFormat::Message, None)).await;
    assert_eq!(summary.unwrap(), LinesSummary { posted: 100, duplicates: 0, rejected: 21 });
    assert_eq!(rejected.len(), 21);
    assert!(rejected.contains(&5) && rejected.contains(&8) && rejected.contains(&121));
    assert!(node.bodies().iter().enumerate().all(|(n, body)| *body == n.to_string()));
}

#[tokio::test]
async fn the_same_stream_given_again_is_posted_once() {
    let node = FakeNode::default();
    let text = "a\nb\nc";
    let named = options(LineFormat::Raw, Some("import-7"));
    let first = run(&node, text, &named).await.0.unwrap();
    let again = run(&node, "a\nb\nc\nd\n", &named).await.0.unwrap();
    assert_eq!((first.posted, again.posted, again.duplicates), (3, 1, 3));
    assert_eq!(node.bodies(), ["a", "b", "c", "d"]);
    run(&node, text, &options(LineFormat::Raw, None)).await.0.unwrap();
    assert_eq!(node.messages().len(), 7);
}

#[tokio::test]
async fn a_live_stream_is_not_held_up_until_a_batch_is_full() {
    let node = FakeNode::default();
    let handle = node.start();
    let (mut writer, reader) = tokio::io::duplex(64);
    let options = LinesOptions { batch_messages_max: 1000, ..options(LineFormat::Raw, None) };
    let posting = post_lines(reader, &options, async |m| post(&handle, m).await, |_, _| {}, |_| {});
    let writing = async {
        for n in 0..3 {
            writer.write_all(format!("{n}\n").as_bytes()).await.unwrap();
            let request = Request::Read {
                from: n,
                limit: None,
                message_type: None,
                key: None,
                wait_ms: 30_000,
            };
            let reply = handle.call(request).await.unwrap();
            assert!(matches!(reply, Reply::Messages { messages, .. } if messages.len() == 1));
        }
        drop(writer);
    };
    let (summary, ()) = tokio::join!(posting, writing);
    assert_eq!(summary.unwrap().posted, 3);
}

#[tokio::test]
async fn a_full_node_is_waited_for_and_then_given_up() {
    let node = FakeNode::default();
    node.refuse(5, ErrorKind::Full);
    let handle = node.start();
    let text = (0..20).map(|n| format!("{n}\n")).collect::<String>();
    let options = options(LineFormat::Raw, None);
    let posting = post_lines(
        text.as_bytes(),
        &options,
        async |messages| {
            let result = post(&handle, messages).await;
            if result.is_err() {
                node.accept();
            }
            result
        },
        |_, _| {},
        |_| {},
    );
    assert_eq!(posting.await.unwrap().posted, 20);
    assert_eq!(node.messages().len(), 20);

    node.refuse(0, ErrorKind::Full);
    let impatient = LinesOptions { retry_ms_max: 0, ..options };
    let (result, _) = run(&node, &text, &impatient).await;
    assert!(matches!(result, Err(LinesError::Post(error)) if error.kind == ErrorKind::Full));
}

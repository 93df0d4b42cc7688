//! Real sockets: deadlines, limits, TLS, the stop.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use replcore::stream::Name;
use replcore_runtime::ca;
use replcore_runtime::http::{Behind, HttpOptions, serve};
use replcore_runtime::options::TlsFiles;
use replcore_runtime::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::FakeNode;

/// Long enough for a busy machine; nothing waits for it when things go well.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    node: FakeNode,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(options: HttpOptions, tls: Option<Tls>) -> Server {
    let node = FakeNode::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = async { drop(stopped.await) };
    let task = tokio::spawn(serve(listener, tls, (Behind::Node, node.start()), options, ended));
    Server { node, address, stop, task }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text));
    // A reset is an end as well.
    let _ = read.await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_request_is_answered_over_a_socket() {
    let server = start(HttpOptions::default(), None).await;
    let mut stream = connect(&server).await;
    stream.write_all(STATUS).await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    let mut stream = connect(&server).await;
    stream.write_all(b"BLAH\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_client_that_sends_half_a_head_is_cut_off_hs_14() {
    let server = start(HttpOptions { header_ms_max: 50, ..HttpOptions::default() }, None).await;
    for part in [&b""[..], b"GET / HTTP/1.1\r\nHo"] {
        let mut stream = connect(&server).await;
        stream.write_all(part).await.unwrap();
        assert!(!read_all(&mut stream).await.contains("200 OK"));
    }
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Kept alive for another request, but not for longer than the head may take.
    assert!(read_all(&mut stream).await.contains("200 OK"));
}

#[tokio::test]
async fn a_client_that_sends_half_a_body_gets_a_problem_hs_14() {
    let server = start(HttpOptions { body_ms_max: 50, ..HttpOptions::default() }, None).await;
    let mut stream = connect(&server).await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("408 Request Timeout") && answer.contains("problem+json"), "{answer}");
    assert!(server.node.messages().is_empty());
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_off_hs_14() {
    let options = HttpOptions { write_ms_max: 100, connections_max: 1, ..HttpOptions::default() };
    let server = start(options, None).await;
    let handle = server.node.start();
    let big = replcore_runtime::api::NewMessage {
        body: replcore_runtime::api::Bytes(vec![b'x'; 1 << 20]),
        ..Default::default()
    };
    for _ in 0..20 {
        let messages = vec![big.clone()];
        handle.call(replcore_runtime::api::Request::Post { messages }).await.unwrap();
    }
    let mut greedy = connect(&server).await;
    greedy.write_all(b"GET /v1/messages HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // The only place is free again when the first client was cut off.
    let mut next = connect(&server).await;
    next.write_all(STATUS).await.unwrap();
    assert!(read_all(&mut next).await.contains("200 OK"));
    drop(greedy);
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_a_place() {
    let options = HttpOptions { connections_max: 2, ..HttpOptions::default() };
    let server = start(options, None).await;
    let first = connect(&server).await;
    let second = connect(&server).await;
    let mut third = connect(&server).await;
    third.write_all(STATUS).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), third.read(&mut byte)).await;
    assert!(early.is_err(), "it was served beyond the limit");
    drop((first, second));
    assert!(read_all(&mut third).await.contains("200 OK"));
}

#[tokio::test]
async fn a_stop_ends_event_streams_and_lets_open_requests_finish() {
    let server = start(HttpOptions::default(), None).await;
    let mut events = connect(&server).await;
    events.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut start = [0; 15];
    events.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let mut half = connect(&server).await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 2\r\n\r\n";
    half.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    half.read_exact(&mut go_on).await.unwrap();
    server.stop.send(()).unwrap();
    read_all(&mut events).await;
    half.write_all(b"ok").await.unwrap();
    assert!(read_all(&mut half).await.contains("201 Created"));
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
    assert_eq!(server.node.bodies(), ["ok"]);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_after_the_drain() {
    let server = start(HttpOptions { drain_ms_max: 50, ..HttpOptions::default() }, None).await;
    let mut half = connect(&server).await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 2\r\n\r\n";
    half.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    half.read_exact(&mut go_on).await.unwrap();
    server.stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn options_out_of_range_do_not_start() {
    let server = start(HttpOptions { call_ms_max: 0, ..HttpOptions::default() }, None).await;
    let error = server.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("http.call_ms_max"), "{error}");
}

/// The files of a node of this name, signed by the authority in `folder`.
fn files(folder: &Path, name: &str) -> TlsFiles {
    let made = ca::issue(folder, &Name::new(name).unwrap(), &[], 1).unwrap();
    TlsFiles { ca: folder.join("ca.pem"), certificate: made.cert, key: made.key }
}

async fn ask_over_tls(
    server: &Server,
    client: TlsFiles,
    request: &[u8],
) -> std::io::Result<String> {
    let client = Tls::load(client).unwrap();
    let (mut stream, _) = client.connect(connect(server).await).await?;
    stream.write_all(request).await?;
    Ok(read_all(&mut stream).await)
}

#[tokio::test]
async fn over_tls_only_clients_with_a_certificate_of_the_authority_are_served_hs_33() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&own, &other] {
        ca::init(folder.path()).unwrap();
    }
    let tls = Tls::load(files(own.path(), "hub")).unwrap();
    let server = start(HttpOptions::default(), Some(tls)).await;
    let answer = ask_over_tls(&server, files(own.path(), "tool"), STATUS).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // Who changes what belongs to others is known to the node, which judges it.
    server.node.add_leaf("till-7");
    let forget = b"DELETE /v1/nodes/till-7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ask_over_tls(&server, files(own.path(), "ops"), forget).await.unwrap();
    assert_eq!(server.node.administrators(), ["ops"]);
    let mut foreign = files(other.path(), "tool");
    foreign.ca = own.path().join("ca.pem");
    // A certificate of another authority does not even load beside this one.
    assert!(Tls::load(foreign).is_err());
    let outsider = ask_over_tls(&server, files(other.path(), "outsider"), STATUS).await;
    assert!(!outsider.unwrap_or_default().contains("200 OK"));
    let mut plain = connect(&server).await;
    plain.write_all(STATUS).await.unwrap();
    assert!(!read_all(&mut plain).await.contains("200 OK"));
}

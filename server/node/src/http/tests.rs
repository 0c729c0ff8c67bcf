//! The API and the page's files of a real node process's routes, over TLS on loopback.

use crate::app::App;
use crate::client::{Answer, Client, connect, post_as_peer};
use crate::data::{DataDir, LocalAccess};
use crate::disks::Backing;
use crate::http::{auth, listen, router};
use crate::node::NodeOptions;
use crate::pairing::{self, Pairing};
use crate::peers::{Hello, HelloAnswer, Role};
use crate::tls::{Identity, Pin};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _};
use wire::feed::{FEED_VERSION, FromPage};
use wire::{ClusterView, NodeId, Revision, WallClock};

/// A node process in a folder of its own, listening on loopback.
pub struct Node {
    _folder: tempfile::TempDir,
    /// Its inside.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Node {
    /// Starts it.
    pub async fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let identity = Identity::open(&data, "server1").unwrap();
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = NodeOptions {
            data: folder.path().into(),
            listen: address,
            name: "server1".into(),
            host_run: folder.path().join("run"),
            demo_control: None,
            backing: Backing::Plain,
        };
        let fingerprint = identity.fingerprint.clone();
        let access = LocalAccess { address, fingerprint: fingerprint.clone(), token: "root".into(), pid: 1 };
        data.write_access(&access).unwrap();
        let app = Arc::new(App {
            options,
            pairing: Pairing::of(&data, &fingerprint),
            store: Store::open(&data.file("store.db")).await.unwrap(),
            data,
            identity,
            token: "root".into(),
            wrong_logins: auth::WrongLogins::default(),
            views: watch::Sender::new(None),
            demo_control: None,
            creating: Mutex::new(()),
            changing: Mutex::new(()),
            cluster: OnceLock::new(),
        });
        let serving = app.clone();
        tokio::spawn(async move {
            listen::serve(listener, &serving.identity, router::router(serving.clone())).await.unwrap();
        });
        Node { _folder: folder, app, address }
    }

    /// Somebody who is not logged in.
    pub fn visitor(&self) -> Client {
        Client::new(&self.address.to_string(), Pin::Fingerprint(self.app.identity.fingerprint.clone()), None)
            .unwrap()
    }

    /// Root of its host.
    pub fn root(&self) -> Client {
        Client::from_data(&self.app.options.data).unwrap()
    }
}

/// An answer as JSON.
pub fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn nothing_is_told_or_done_without_a_login() {
    let node = Node::start().await;
    let visitor = node.visitor();
    for path in ["/api/cluster", "/api/view", "/api/code", "/api/demo"] {
        assert_eq!(visitor.get(path).await.unwrap().status, StatusCode::UNAUTHORIZED, "{path}");
    }
    for path in ["/api/cluster", "/api/command", "/api/logins", "/api/password", "/api/demo"] {
        let status = visitor.post(path, &json!({})).await.unwrap().status;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let session = value(&visitor.get("/api/session").await.unwrap());
    assert_eq!(session["logged_in"], false);
    assert_eq!(session["server"]["name"], "server1");
    assert!(session.get("pairing_code").is_none());
    assert_eq!(value(&visitor.get("/healthz").await.unwrap())["cluster"], false);
    assert_eq!(visitor.get("/api/nothing").await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_one_time_login_opens_once_and_a_password_again_and_again() {
    let node = Node::start().await;
    let made = value(&node.root().post("/api/logins", &json!({})).await.unwrap());
    let one_time = made["password"].as_str().unwrap();
    let mut operator = node.visitor();
    operator.log_in(&one_time.to_lowercase()).await.unwrap();
    let session = value(&operator.get("/api/session").await.unwrap());
    assert_eq!(session["logged_in"], true);
    assert!(pairing::read(session["pairing_code"].as_str().unwrap()).is_some());
    assert!(node.visitor().log_in(one_time).await.is_err(), "used");
    let short = operator.post("/api/password", &json!({ "password": "short" })).await.unwrap();
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    let set = operator.post("/api/password", &json!({ "password": "correct horse" })).await.unwrap();
    assert_eq!(set.status, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        node.visitor().log_in("correct horse").await.unwrap();
    }
    assert!(node.visitor().log_in("correct mouse").await.is_err());
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let node = Node::start().await;
    let mut last = StatusCode::OK;
    for _ in 0..10 {
        last = node.visitor().post("/api/login", &json!({ "password": "wrong" })).await.unwrap().status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn orders_without_a_cluster_are_refused_with_a_reason() {
    let node = Node::start().await;
    let root = node.root();
    let reply =
        value(&root.post("/api/command", &json!({ "what": { "StopGroup": { "group": 1 } } })).await.unwrap());
    assert_eq!(reply["result"]["Err"]["kind"], "NoCluster");
    assert_eq!(root.get("/api/view").await.unwrap().status, StatusCode::CONFLICT);
    let server = json!({ "name": "server1", "address": "192.0.2.1:8443" });
    let twin = json!({ "name": "server2", "address": "192.0.2.2:8443", "code": "ABC" });
    let wanted = json!({ "name": "c", "this": server, "twin": twin, "links": [] });
    let refused = root.post("/api/cluster", &wanted).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(value(&refused)["field"], "twin.code");
}

#[tokio::test]
async fn only_the_bearer_of_the_pairing_code_is_met() {
    let (node, other) = (Node::start().await, Node::start().await);
    let code = pairing::read(&node.app.pairing.code().unwrap()).unwrap();
    let meet = async |secret: &str, pin: Pin| {
        let hello = Hello { secret: secret.into() };
        post_as_peer(node.address, pin, &other.app.identity, "/peer/hello", &hello).await
    };
    let (answer, fingerprint) = meet(&code.secret, code.pin.clone()).await.unwrap();
    assert_eq!(answer.json::<HelloAnswer>().unwrap().role, Role::Node);
    assert_eq!(fingerprint, node.app.identity.fingerprint);
    let (refused, _) = meet("00", code.pin.clone()).await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let foreign = Pin::Fingerprint(other.app.identity.fingerprint.clone());
    assert!(meet(&code.secret, foreign).await.is_err(), "another process behind that address");
}

#[tokio::test]
async fn a_browser_gets_the_page_with_its_policy_and_is_never_asked_for_a_certificate() {
    let node = Node::start().await;
    let mut stream = connect(&node.address.to_string(), "localhost", Pin::Nobody, None).await.unwrap();
    stream.write_all(b"GET /groups HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for wanted in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "text/html",
        "etag",
    ] {
        assert!(text.to_lowercase().contains(wanted), "{wanted} is missing in {text}");
    }
}

type Feed = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn open_feed(node: &Node) -> Feed {
    let stream = connect(&node.address.to_string(), "localhost", Pin::Nobody, None).await.unwrap();
    let mut request = format!("wss://{}/api/feed", node.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer root".parse().unwrap());
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn say(feed: &mut Feed, message: &FromPage) {
    let text = serde_json::to_string(message).unwrap();
    feed.send(tungstenite::Message::Text(text.into())).await.unwrap();
}

/// The next message that is not a mere sign of life.
async fn hear(feed: &mut Feed) -> wire::Feed {
    loop {
        let message = feed.next().await.unwrap().unwrap();
        let text = message.into_text().unwrap();
        let heard: wire::Feed = serde_json::from_str(&text).unwrap();
        if !matches!(heard, wire::Feed::Pulse { .. }) {
            return heard;
        }
    }
}

fn view(revision: u64, cluster: &str) -> Arc<ClusterView> {
    Arc::new(ClusterView {
        revision: Revision(revision),
        server: NodeId(1),
        at: WallClock(1),
        cluster: cluster.into(),
        config_version: 1,
        servers: Vec::new(),
        links: Vec::new(),
        witness: None,
        groups: Vec::new(),
        sets: Vec::new(),
        events: Vec::new(),
        incident: None,
        forecasts: Vec::new(),
        operations: Vec::new(),
        halted: None,
        maintenance: false,
    })
}

#[tokio::test]
async fn a_page_gets_a_snapshot_then_changes_and_a_snapshot_again_after_a_gap() {
    let node = Node::start().await;
    let mut feed = open_feed(&node).await;
    say(&mut feed, &FromPage::Hello(wire::Hello { version: FEED_VERSION })).await;
    assert_eq!(hear(&mut feed).await, wire::Feed::NoCluster);
    node.app.views.send_replace(Some(view(7, "a")));
    assert_eq!(hear(&mut feed).await, wire::Feed::Snapshot(Box::new((*view(7, "a")).clone())));
    node.app.views.send_replace(Some(view(8, "b")));
    let wire::Feed::Delta(delta) = hear(&mut feed).await else { panic!("no delta") };
    assert_eq!((delta.base, delta.cluster), (Revision(7), Some(("b".into(), 1))));
    node.app.views.send_replace(Some(view(10, "c")));
    let wire::Feed::Snapshot(shown) = hear(&mut feed).await else { panic!("no snapshot after a gap") };
    assert_eq!(shown.revision, Revision(10));
    say(&mut feed, &FromPage::Again).await;
    let wire::Feed::Snapshot(shown) = hear(&mut feed).await else { panic!("no snapshot on request") };
    assert_eq!(shown.cluster, "c");
    let what = wire::Operation::StopGroup { group: wire::GroupId(1) };
    let command = wire::Command { id: wire::CommandId(3), revision: Revision(10), what };
    say(&mut feed, &FromPage::Command(command)).await;
    let wire::Feed::Reply(reply) = hear(&mut feed).await else { panic!("no reply") };
    assert_eq!(reply.id, wire::CommandId(3));
}

#[tokio::test]
async fn a_page_of_another_version_is_told_to_reload_and_one_without_login_gets_nothing() {
    let node = Node::start().await;
    let mut feed = open_feed(&node).await;
    say(&mut feed, &FromPage::Hello(wire::Hello { version: FEED_VERSION + 1 })).await;
    assert_eq!(hear(&mut feed).await, wire::Feed::Reload);
    let stream = connect(&node.address.to_string(), "localhost", Pin::Nobody, None).await.unwrap();
    let request = format!("wss://{}/api/feed", node.address).into_client_request().unwrap();
    let refused = tokio_tungstenite::client_async(request, stream).await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(answer)) if answer.status() == 401));
}

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
use hyper::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};

struct Node {
    _folder: tempfile::TempDir,
    app: Arc<App>,
    address: SocketAddr,
}

impl Node {
    async fn start() -> Node {
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
            cluster: OnceLock::new(),
        });
        let serving = app.clone();
        tokio::spawn(async move {
            listen::serve(listener, &serving.identity, router::router(serving.clone())).await.unwrap();
        });
        Node { _folder: folder, app, address }
    }

    fn visitor(&self) -> Client {
        Client::new(&self.address.to_string(), Pin::Fingerprint(self.app.identity.fingerprint.clone()), None)
            .unwrap()
    }

    fn root(&self) -> Client {
        Client::from_data(&self.app.options.data).unwrap()
    }
}

fn value(answer: &Answer) -> Value {
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

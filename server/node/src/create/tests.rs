//! Two node processes made one cluster by the pairing code, over TLS on loopback.

use crate::http::tests::{Node, value};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use wire::NodeId;

fn wanted(first: &Node, second: &Node, code: &str, name: &str) -> Value {
    let address = |node: &Node| node.address.to_string();
    let link = json!({ "id": 0, "name": "ic1", "kind": "Interconnect", "addresses": ["127.0.0.1", "127.0.0.2"], "prefix": 8 });
    json!({
        "name": name,
        "this": { "name": "one", "address": address(first) },
        "twin": { "name": "two", "address": address(second), "code": code },
        "links": [link],
    })
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), wait).await.is_ok(), "not within 30 s: {what}");
}

#[tokio::test]
async fn two_servers_become_a_cluster_by_the_code_and_share_their_logins() {
    let (first, second) = (Node::start().await, Node::start().await);
    let code = second.app.pairing.code().unwrap();
    let faulty = first.root().post("/api/cluster", &wanted(&first, &second, &code, "a b")).await.unwrap();
    assert_eq!(faulty.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(value(&faulty)["faults"][0]["field"], "name");
    assert!(second.app.running().is_none(), "nothing is changed before everything fits");

    let order = wanted(&first, &second, &code, "pair");
    let made = first.root().post("/api/cluster", &order).await.unwrap();
    assert_eq!(made.status, StatusCode::CREATED, "{}", value(&made));
    let (one, two) = (first.app.running().unwrap(), second.app.running().unwrap());
    assert_eq!((one.me, two.me), (NodeId(1), NodeId(2)));
    assert_eq!(one.config(), two.config());
    assert_eq!(one.key, two.key);
    assert_eq!(two.config().server(NodeId(2)).unwrap().fingerprint, second.app.identity.fingerprint);
    let again = first.root().post("/api/cluster", &order).await.unwrap();
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(second.root().get("/api/code").await.unwrap().status, StatusCode::CONFLICT);

    for node in [&first, &second] {
        until("a view", async || node.root().get("/api/view").await.unwrap().status == StatusCode::OK).await;
    }
    let login = value(&first.root().post("/api/logins", &json!({})).await.unwrap());
    let password = login["password"].as_str().unwrap();
    until("the login at the other server", async || {
        sleep(Duration::from_millis(300)).await; // wrong logins are counted
        second.visitor().log_in(password).await.is_ok()
    })
    .await;
    first.visitor().log_in(password).await.unwrap();
    assert!(first.visitor().log_in(password).await.is_err(), "once on each server");
}

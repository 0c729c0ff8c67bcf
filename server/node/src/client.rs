//! A small HTTPS client: for the command line, the demo, and between servers. One connection for each request.

use crate::data::DataDir;
use crate::tls::{self, Identity, PEER_NAME, Pin};
use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderName;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// To be connected, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the whole answer: creating a cluster makes control areas on two servers, the longest thing asked here.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// An answer is a view or a configuration; 64 groups with scripts stay below this.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where to ask, whom to expect there, and as whom.
pub struct Client {
    address: String,
    pin: Pin,
    token: Option<String>,
    cookie: Option<String>,
}

/// An answer as it came.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    cookie: Option<String>,
}

impl Client {
    /// A client of `https://host:port`, with a session's or process's token if there is one.
    ///
    /// # Errors
    /// The address is not of that form.
    pub fn new(address: &str, pin: Pin, token: Option<String>) -> anyhow::Result<Client> {
        let rest = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/');
        let address = if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            rest.to_string()
        } else {
            format!("{rest}:8443")
        };
        Ok(Client { address, pin, token, cookie: None })
    }

    /// A client of the node whose folder this is, as its own root.
    ///
    /// # Errors
    /// No node ran there, or the folder is not readable.
    pub fn from_data(folder: &Path) -> anyhow::Result<Client> {
        let access = DataDir::existing(folder).access()?;
        let mut address = access.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0u16, 0, 0, 0, 0, 0, 0, 1].into()
            });
        }
        Client::new(&address.to_string(), Pin::Fingerprint(access.fingerprint), Some(access.token))
    }

    /// The same, reached at another address.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Client {
        self.address = address.to_string();
        self
    }

    /// Logs in; what is asked afterwards is asked as that operator.
    ///
    /// # Errors
    /// The login is wrong, or as of [`Client::post`].
    pub async fn log_in(&mut self, password: &str) -> anyhow::Result<()> {
        let answer = self.post("/api/login", &serde_json::json!({ "password": password })).await?;
        answer.done()?;
        self.cookie = answer.cookie;
        Ok(())
    }

    /// Asks.
    ///
    /// # Errors
    /// No connection, another certificate, no answer in time.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Orders.
    ///
    /// # Errors
    /// No connection, another certificate, no answer in time.
    pub async fn post<T: Serialize + Sync>(&self, path: &str, body: &T) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let talk = async {
            let stream = connect(&self.address, "localhost", self.pin.clone(), None).await?;
            let proof = match (&self.token, &self.cookie) {
                (Some(token), _) => Some((header::AUTHORIZATION, format!("Bearer {token}"))),
                (None, Some(cookie)) => Some((header::COOKIE, cookie.clone())),
                (None, None) => None,
            };
            exchange(stream, &self.address, proof, method, path, body).await
        };
        timeout(ANSWER_LIMIT, talk)
            .await
            .with_context(|| format!("no answer from {} in {} s", self.address, ANSWER_LIMIT.as_secs()))?
    }
}

impl Answer {
    /// The body of a success, or the reason of the refusal as an error.
    ///
    /// # Errors
    /// Any status but 2xx; a body of another form.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        self.done()?;
        serde_json::from_slice(&self.body)
            .context("the answer has an unknown form: is the other side of another version?")
    }

    /// Whether it is a success.
    ///
    /// # Errors
    /// Any status but 2xx, with the reason given.
    pub fn done(&self) -> anyhow::Result<()> {
        if self.status.is_success() {
            return Ok(());
        }
        match serde_json::from_slice::<crate::http::error::FaultBody>(&self.body) {
            Ok(fault) => {
                let faults: String =
                    fault.faults.iter().map(|f| format!("\n  {}: {}", f.field, f.remedy)).collect();
                anyhow::bail!("{}{faults}", fault.reason)
            }
            Err(_) => anyhow::bail!("the server answered {}", self.status),
        }
    }
}

/// Opens a TLS connection. With an identity it speaks as a peer.
///
/// # Errors
/// No route, refused, another certificate, or not in time.
pub async fn connect(
    address: &str,
    name: &'static str,
    pin: Pin,
    identity: Option<&Identity>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = tls::client_config(pin, identity)?;
    let dial = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config)
            .connect(ServerName::try_from(name)?, stream)
            .await
            .map_err(anyhow::Error::from)
    };
    timeout(CONNECT_LIMIT, dial)
        .await
        .with_context(|| format!("no connection to {address} in {} s", CONNECT_LIMIT.as_secs()))?
        .with_context(|| format!("connect to {address}"))
}

/// Asks a peer's route, showing one's own certificate; returns the answer and the peer's full fingerprint.
///
/// # Errors
/// As of [`Client::post`].
pub async fn post_as_peer<T: Serialize + Sync>(
    address: SocketAddr,
    pin: Pin,
    identity: &Identity,
    path: &str,
    body: &T,
) -> anyhow::Result<(Answer, String)> {
    let address = address.to_string();
    let body = serde_json::to_vec(body)?.into();
    let talk = async {
        let stream = connect(&address, PEER_NAME, pin, Some(identity)).await?;
        let found = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let found = found.map(|certificate| tls::fingerprint(certificate)).unwrap_or_default();
        Ok((exchange(stream, &address, None, Method::POST, path, body).await?, found))
    };
    timeout(ANSWER_LIMIT, talk)
        .await
        .with_context(|| format!("no answer from {address} in {} s", ANSWER_LIMIT.as_secs()))?
}

async fn exchange(
    stream: TlsStream<TcpStream>,
    host: &str,
    proof: Option<(HeaderName, String)>,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some((name, value)) = proof {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = answer.status();
    let cookie = answer.headers().get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    let cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_string);
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|fault| anyhow::anyhow!("{fault}"))?;
    drop(sender);
    connection.abort();
    Ok(Answer { status, body: body.to_bytes(), cookie })
}

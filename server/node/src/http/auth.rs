//! Who may order: a session's cookie, or the token of this host's root. Passwords by Argon2, wrong ones slowed down.

use super::error::Fault;
use super::listen::Caller;
use crate::app::{App, wall_clock};
use crate::data::{hex, random, secret_hash, spell, unhex, unspell};
use argon2::{Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _, password_hash::SaltString};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::WallClock;

/// The one operator of this version (F-roles come with their own requirement).
pub const OPERATOR: &str = "admin";
/// A session lasts a working day.
const SESSION_SECONDS: u64 = 12 * 3600;
/// A one-time login lasts a day: long enough to walk to the other room.
const ONE_TIME_SECONDS: u64 = 24 * 3600;
/// 80 bits: not to be guessed over a network.
const ONE_TIME_BYTES: usize = 10;
/// Letters in a group of a one-time login.
const GROUP: usize = 4;
/// Shortest password.
pub const PASSWORD_MIN: usize = 12;
/// Longest password: bounds the work of hashing.
pub const PASSWORD_MAX: usize = 256;
/// Wrong logins from one address within the window before it has to wait.
const WRONG_MAX: u32 = 8;
/// The window.
const WRONG_WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it the oldest are forgotten.
const ADDRESSES_MAX: usize = 1_024;

/// Proof that the request comes from an operator or from this host's root.
pub struct Operator;

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Operator, Fault> {
        if parts.method != Method::GET || parts.headers.contains_key(header::UPGRADE) {
            same_origin(&parts.headers)?;
        }
        if let Some(token) = bearer(&parts.headers) {
            let known = blake3::hash(token.as_bytes()) == blake3::hash(app.token.as_bytes());
            return known.then_some(Operator).ok_or(Fault::NotLoggedIn);
        }
        let cookie = session_cookie(app, &parts.headers).ok_or(Fault::NotLoggedIn)?;
        let session = app.store.session(&secret_hash(&cookie), wall_clock()).await?;
        session.map(|_| Operator).ok_or(Fault::NotLoggedIn)
    }
}

impl OptionalFromRequestParts<Arc<App>> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Operator>, Infallible> {
        Ok(<Operator as FromRequestParts<Arc<App>>>::from_request_parts(parts, app).await.ok())
    }
}

/// A page of another origin may not order, even of the same host on another port (cookies do not know ports).
///
/// # Errors
/// The origin differs from the host asked.
pub fn same_origin(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let origin = origin.to_str().unwrap_or("").split_once("://").map_or("", |(_, authority)| authority);
    if !host.is_empty() && origin.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    Err(Fault::Forbidden("the request comes from a page of another origin"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Named by the server's certificate: pages of both servers under one host name keep their sessions apart.
fn cookie_name(app: &App) -> String {
    format!("__Host-futago-{}", app.identity.fingerprint.get(..8).unwrap_or_default())
}

/// The session's secret, if a cookie brings one.
#[must_use]
pub fn session_cookie(app: &App, headers: &HeaderMap) -> Option<Vec<u8>> {
    let name = cookie_name(app);
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| unhex(value))
}

/// The header that gives a browser its session, or takes it away.
#[must_use]
pub fn set_cookie(app: &App, secret: Option<&[u8]>) -> String {
    let (value, age) = secret.map_or((String::new(), 0), |secret| (hex(secret), SESSION_SECONDS));
    format!("{}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age}", cookie_name(app))
}

fn after(now: WallClock, seconds: u64) -> WallClock {
    WallClock(now.0.saturating_add(seconds * 1_000))
}

/// Logs in with a one-time login or the password; returns the new session's secret.
///
/// # Errors
/// Wrong, or too many wrong ones from this address.
pub async fn log_in(app: &App, caller: &Caller, password: &str) -> Result<[u8; 32], Fault> {
    let from = caller.address.ip();
    app.wrong_logins.check(from)?;
    let now = wall_clock();
    if password.len() > PASSWORD_MAX || !is_right(app, password, now).await? {
        app.wrong_logins.count(from);
        tracing::info!(%from, "wrong login");
        return Err(Fault::NotLoggedIn);
    }
    let secret = random::<32>()?;
    app.store.put_session(&secret_hash(&secret), OPERATOR, after(now, SESSION_SECONDS), now).await?;
    tracing::info!(%from, "logged in");
    Ok(secret)
}

async fn is_right(app: &App, password: &str, now: WallClock) -> Result<bool, Fault> {
    if let Some(one_time) = unspell(password, ONE_TIME_BYTES)
        && app.store.use_one_time(&secret_hash(&one_time), now).await?
    {
        return Ok(true);
    }
    let Some(hash) = app.store.operator_hash(OPERATOR).await? else { return Ok(false) };
    let password = password.to_string();
    let check = tokio::task::spawn_blocking(move || {
        PasswordHash::new(&hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    });
    Ok(check.await.map_err(anyhow::Error::from)?)
}

/// Makes a one-time login; only its hash is kept.
///
/// # Errors
/// The store, or no random bytes.
pub async fn make_one_time(app: &App) -> anyhow::Result<String> {
    let secret = random::<ONE_TIME_BYTES>()?;
    let now = wall_clock();
    app.store.put_one_time(&secret_hash(&secret), after(now, ONE_TIME_SECONDS), now).await?;
    Ok(spell(&secret, GROUP))
}

/// The Argon2id hash of a password.
///
/// # Errors
/// No random bytes, or not enough memory.
pub async fn hash_password(password: String) -> anyhow::Result<String> {
    let salt = random::<16>()?;
    let work = tokio::task::spawn_blocking(move || {
        let salt = SaltString::encode_b64(&salt).map_err(|fault| anyhow::anyhow!("{fault}"))?;
        let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
        hash.map(|hash| hash.to_string()).map_err(|fault| anyhow::anyhow!("{fault}"))
    });
    work.await?
}

/// Counts wrong logins by address.
#[derive(Debug, Default)]
pub struct WrongLogins(Mutex<BTreeMap<IpAddr, (u32, Option<Instant>)>>);

impl WrongLogins {
    /// Whether a try from this address is allowed now.
    ///
    /// # Errors
    /// Not before so many seconds.
    pub fn check(&self, from: IpAddr) -> Result<(), Fault> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, began)| began.is_some_and(|began| began.elapsed() < WRONG_WINDOW));
        match known.get(&from) {
            Some((count, Some(began))) if *count >= WRONG_MAX => {
                Err(Fault::TooMany(WRONG_WINDOW.saturating_sub(began.elapsed()).as_secs() + 1))
            }
            _ => Ok(()),
        }
    }

    /// A wrong try came from this address.
    pub fn count(&self, from: IpAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES_MAX {
            known.pop_first();
        }
        let entry = known.entry(from).or_insert((0, Some(Instant::now())));
        entry.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_logins_are_slowed_for_their_own_address_only() {
        let wrong = WrongLogins::default();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..WRONG_MAX {
            assert!(wrong.check(a).is_ok());
            wrong.count(a);
        }
        assert!(matches!(wrong.check(a), Err(Fault::TooMany(seconds)) if seconds <= 61));
        assert!(wrong.check(b).is_ok());
    }

    #[test]
    fn only_the_same_origin_orders() {
        let headers = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:8443".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        assert!(same_origin(&headers(None)).is_ok());
        assert!(same_origin(&headers(Some("https://127.0.0.1:8443"))).is_ok());
        for foreign in ["https://127.0.0.1:8444", "https://evil.example", "null", ""] {
            assert!(same_origin(&headers(Some(foreign))).is_err(), "{foreign}");
        }
    }
}

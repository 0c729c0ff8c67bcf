//! Everything that can be answered instead of what was asked, as one enum with its status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use wire::config::ConfigFault;

/// A request that was not fulfilled.
#[derive(Debug)]
pub enum Fault {
    /// No session, or the login was wrong.
    NotLoggedIn,
    /// Too many wrong logins; try again after so many seconds.
    TooMany(u64),
    /// The page of another origin, or a peer that is not of this cluster.
    Forbidden(&'static str),
    /// No such thing here.
    NotFound(&'static str),
    /// It cannot be done in the present state.
    Conflict(String),
    /// The request has a fault in a field.
    Field(&'static str, String),
    /// The configuration has faults.
    Config(Vec<ConfigFault>),
    /// Another process did not do its part: the twin, the witness, the demo.
    Elsewhere(String),
    /// Something failed here.
    Internal(anyhow::Error),
}

/// A fault as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FaultBody {
    /// Stable word for programs.
    pub code: String,
    /// What happened and what to do, in English.
    pub reason: String,
    /// The field it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Of a configuration: every fault found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ConfigFault>,
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        Fault::Internal(error)
    }
}

impl Fault {
    /// Why, for a person, in one sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Fault::NotLoggedIn => "log in first".into(),
            Fault::TooMany(seconds) => format!("try again in {seconds} s"),
            Fault::Forbidden(reason) | Fault::NotFound(reason) => (*reason).into(),
            Fault::Conflict(reason) | Fault::Elsewhere(reason) | Fault::Field(_, reason) => reason.clone(),
            Fault::Config(faults) => {
                let told: Vec<String> =
                    faults.iter().map(|fault| format!("{}: {}", fault.field, fault.remedy)).collect();
                told.join("; ")
            }
            Fault::Internal(error) => format!("{error:#}"),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Fault::NotLoggedIn => (StatusCode::UNAUTHORIZED, "not-logged-in"),
            Fault::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
            Fault::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Fault::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
            Fault::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Fault::Field(..) => (StatusCode::UNPROCESSABLE_ENTITY, "field"),
            Fault::Config(_) => (StatusCode::UNPROCESSABLE_ENTITY, "configuration"),
            Fault::Elsewhere(_) => (StatusCode::BAD_GATEWAY, "elsewhere"),
            Fault::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let mut body = FaultBody { code: code.into(), ..FaultBody::default() };
        let mut retry = None;
        body.reason = match self {
            Fault::NotLoggedIn => "log in first: the login is wrong, used or expired".into(),
            Fault::TooMany(seconds) => {
                retry = HeaderValue::from_str(&seconds.to_string()).ok();
                format!("too many wrong logins: try again in {seconds} s")
            }
            Fault::Forbidden(reason) | Fault::NotFound(reason) => reason.into(),
            Fault::Conflict(reason) | Fault::Elsewhere(reason) => reason,
            Fault::Field(field, remedy) => {
                body.field = Some(field.into());
                remedy
            }
            Fault::Config(faults) => {
                body.faults = faults;
                "the configuration has faults".into()
            }
            Fault::Internal(error) => {
                tracing::warn!("a request failed: {error:#}");
                format!("{error:#}")
            }
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(retry) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, retry);
        }
        response
    }
}

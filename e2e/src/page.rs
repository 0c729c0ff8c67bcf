//! The page as a person uses it: log in, look, click. What moves is found by its `data-testid`.

use std::time::Duration;

use anyhow::{Context, Result};
use fantoccini::Locator;
use wire::ids::NodeId;

use crate::browser::{Browser, Look, PATIENCE};
use crate::lab::Lab;

/// The selector of a part of the page.
#[must_use]
pub fn part(name: &str) -> String {
    format!("[data-testid='{name}']")
}

/// A browser that is logged in at a server of the lab and shows the live overview.
///
/// # Errors
/// When the page does not come to be live.
pub async fn log_in(lab: &Lab, server: NodeId, look: Look) -> Result<Browser> {
    let page = lab.status()?.server(server)?.page.clone();
    let password = lab.login(server)?;
    let browser = Browser::start(look).await?;
    browser.open(&page).await?;
    browser.see(&part("login-password")).await?.send_keys(&password).await.context("type the login")?;
    browser.see(&part("login-submit")).await?.click().await.context("press the button")?;
    browser.see(&format!("{}[data-live='yes']", part("live"))).await?;
    Ok(browser)
}

/// Waits until the page shows two normal servers, a running group and an equal mirror.
///
/// # Errors
/// When it does not; the text holds what it shows instead.
pub async fn see_healthy(browser: &Browser, limit: Duration) -> Result<()> {
    for server in ["server-1-state", "server-2-state"] {
        see_text(browser, server, &["Normal", "正常"], limit).await?;
    }
    see_text(browser, "set-1-state", &["In sync", "同期済み"], limit).await?;
    let active = "document.querySelector(\"[data-testid^='group-1-on-'][data-active='true']\")";
    browser.until("an active group", active, limit).await
}

/// Waits until a part of the page holds one of these texts.
///
/// # Errors
/// When it does not come in time.
pub async fn see_text(browser: &Browser, name: &str, texts: &[&str], limit: Duration) -> Result<()> {
    let list = serde_json::to_string(texts).context("write texts")?;
    let selector = serde_json::to_string(&part(name)).context("write a selector")?;
    let expression = format!(
        "{list}.some(text => (document.querySelector({selector})?.textContent ?? '').includes(text))"
    );
    browser.until(&format!("{name}: {}", texts.join(" or ")), &expression, limit).await
}

/// Presses a button, and the confirmation where one is asked for.
///
/// # Errors
/// When the button does not come, is greyed, or the confirmation does not go away.
pub async fn press(browser: &Browser, name: &str) -> Result<()> {
    browser
        .see(&format!("{}[data-phase='ready']", part(name)))
        .await?
        .click()
        .await
        .context("press a button")?;
    confirm(browser).await
}

/// Confirms the dialog that says what will stop, if one has opened.
///
/// # Errors
/// When it does not go away.
pub async fn confirm(browser: &Browser) -> Result<()> {
    let dialog = browser.client.find(Locator::Css(&part("dialog-confirm"))).await;
    if let Ok(button) = dialog {
        button.click().await.context("confirm")?;
        let gone = format!("!document.querySelector(\"{}\")", part("dialog-confirm"));
        browser.until("the dialog closed", &gone, PATIENCE).await?;
    }
    Ok(())
}

/// Runs what a browser does to its end.
///
/// # Errors
/// As the future's own.
pub fn drive<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("a runtime for the browser")?.block_on(future)
}

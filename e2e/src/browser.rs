//! A real Chromium, driven through its own driver: one fresh profile each, nothing left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::command;

/// The accessibility checker, run inside the page.
const AXE: &str = include_str!("../vendor/axe-core/axe.min.js");
/// How long the driver may take to say on which port it listens.
const DRIVER_START: Duration = Duration::from_secs(30);
/// How long the page may take to show what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Width and height of the window, in CSS pixels.
    pub size: (u32, u32),
    /// Whether the system asks for a dark page.
    pub dark: bool,
    /// The language the browser asks for.
    pub language: &'static str,
}

/// A desk: light, English, wide.
pub const DESK: Look = Look { size: (1440, 1000), dark: false, language: "en" };

/// A running browser; it ends with this value.
pub struct Browser {
    driver: Child,
    /// The session, for what has no helper here.
    pub client: Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a driver and a browser with a fresh profile. The demo's certificate is its own: it is accepted.
    ///
    /// # Errors
    /// When Chromium or its driver is missing or does not start.
    pub async fn start(look: Look) -> Result<Self> {
        let profile = tempfile::tempdir().context("a folder for the profile")?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start chromedriver (Debian package chromium-driver)")?;
        match session(&mut driver, look, profile.path()).await {
            Ok(client) => Ok(Self { driver, client, _profile: profile }),
            Err(error) => {
                end(&mut driver);
                Err(error)
            }
        }
    }

    /// Opens an address.
    ///
    /// # Errors
    /// When the page does not load.
    pub async fn open(&self, address: &str) -> Result<()> {
        self.client.goto(address).await.with_context(|| format!("open {address}"))
    }

    /// Waits for an element.
    ///
    /// # Errors
    /// When it does not come; the text holds what the page shows instead.
    pub async fn see(&self, selector: &str) -> Result<Element> {
        match self.client.wait().at_most(PATIENCE).for_element(Locator::Css(selector)).await {
            Ok(element) => Ok(element),
            Err(error) => bail!("no {selector} on the page: {error}\n{}", self.words().await),
        }
    }

    /// The words of an element, waited for.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn text(&self, selector: &str) -> Result<String> {
        Ok(self.see(selector).await?.text().await?)
    }

    /// Waits until a piece of JavaScript (an expression) is true in the page.
    ///
    /// # Errors
    /// When it does not become true in time.
    pub async fn until(&self, what: &str, expression: &str, limit: Duration) -> Result<()> {
        let script = format!("return Boolean({expression})");
        let end = std::time::Instant::now() + limit;
        loop {
            if self.client.execute(&script, vec![]).await? == Value::Bool(true) {
                return Ok(());
            }
            if std::time::Instant::now() >= end {
                bail!("the page does not come to show: {what}\n{}", self.words().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether the page holds this text anywhere, waited for.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn says(&self, text: &str, limit: Duration) -> Result<()> {
        let expression = format!("document.body.innerText.includes({})", Value::from(text));
        self.until(&format!("\"{text}\""), &expression, limit).await
    }

    /// All words on the page, for a message about what went wrong.
    pub async fn words(&self) -> String {
        match self.client.execute("return document.body ? document.body.innerText : ''", vec![]).await {
            Ok(words) => format!("the page says:\n{}", words.as_str().unwrap_or_default()),
            Err(error) => format!("the page cannot be asked: {error}"),
        }
    }

    /// Saves a picture of the window.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub async fn picture(&self, file: &Path) -> Result<()> {
        let png = self.client.screenshot().await.context("take a picture")?;
        std::fs::write(file, png).with_context(|| format!("write {}", file.display()))
    }

    /// Lets axe-core look at the page and returns each fault with the elements that have it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn axe(&self) -> Result<Vec<String>> {
        self.client.execute(AXE, vec![]).await.context("load axe-core")?;
        let script = "const done = arguments[arguments.length - 1];
            axe.run().then(found => done(found), error => done({ error: String(error) }))";
        let found = self.client.execute_async(script, vec![]).await.context("run axe-core")?;
        let Some(faults) = found["violations"].as_array() else {
            bail!("axe-core says {}", found["error"]);
        };
        if found["passes"].as_array().is_none_or(Vec::is_empty) {
            bail!("axe-core checked nothing");
        }
        let fault = |fault: &Value| {
            let nodes = fault["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let places: Vec<String> = nodes.iter().map(|node| node["target"].to_string()).collect();
            format!("{}: {} at {}", fault["id"], fault["help"], places.join(", "))
        };
        Ok(faults.iter().map(fault).collect())
    }

    /// Ends the session in order.
    ///
    /// # Errors
    /// When the browser does not answer; it is killed all the same.
    pub async fn end(self) -> Result<()> {
        self.client.clone().close().await.context("end the browser's session")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.driver);
    }
}

/// The driver's children are in its group: killing it alone would leave the browser running.
fn end(driver: &mut Child) {
    command::kill_group(driver);
    let _ = driver.wait();
}

async fn session(driver: &mut Child, look: Look, profile: &Path) -> Result<Client> {
    let port = port(driver)?;
    let mut arguments: Vec<String> = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    .map(str::to_owned)
    .to_vec();
    let (width, height) = look.size;
    arguments.push(format!("--window-size={width},{height}"));
    arguments.push(format!("--lang={}", look.language));
    arguments.push(format!("--user-data-dir={}", profile.display()));
    if look.dark {
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    let Value::Object(mut capabilities) = json!({
        "acceptInsecureCerts": true,
        "timeouts": { "script": 60_000, "pageLoad": 60_000 },
        "goog:chromeOptions": {
            "args": arguments,
            "prefs": { "intl.accept_languages": look.language },
        },
    }) else {
        bail!("capabilities are an object");
    };
    // Chromium's window cannot be as narrow as a phone; the driver can still show the page so.
    if width < 500 {
        capabilities["goog:chromeOptions"]["mobileEmulation"] =
            json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 2.0 } });
    }
    let client = ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .context("start Chromium")?;
    Ok(client)
}

/// The port that the driver says it listens on; the rest of what it says is read and dropped, so that it never waits.
fn port(driver: &mut Child) -> Result<u16> {
    let out = driver.stdout.take().context("chromedriver has no output")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
            if let Some((_, rest)) = line.split_once("successfully on port ") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let _ = tell.send(digits);
            }
        }
    });
    let digits = told.recv_timeout(DRIVER_START).context("chromedriver does not say its port")?;
    digits.parse().with_context(|| format!("chromedriver's port {digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn axe_finds_what_is_wrong_with_a_page_and_the_browser_ends_with_its_children() {
        let page = "data:text/html,<html><body><button></button><img src='x'></body></html>";
        let browser = Browser::start(DESK).await.unwrap();
        browser.open(page).await.unwrap();
        let faults = browser.axe().await.unwrap();
        assert!(faults.iter().any(|fault| fault.starts_with("\"button-name\"")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("\"image-alt\"")), "{faults:?}");
        let profile = browser._profile.path().to_owned();
        drop(browser);
        let left = crate::leftovers::Leftovers::look(std::path::Path::new("/usr/lib/chromium/chromium"));
        let ours = left
            .since(&Default::default(), &profile)
            .into_iter()
            .filter(|found| found.contains(profile.to_str().unwrap()));
        assert_eq!(ours.count(), 0);
    }

    #[tokio::test]
    async fn a_look_is_what_the_page_sees() {
        let look = Look { size: (390, 844), dark: true, language: "ja" };
        let browser = Browser::start(look).await.unwrap();
        browser
            .open("data:text/html,<html><meta name='viewport' content='width=device-width'></html>")
            .await
            .unwrap();
        let seen =
            "return [matchMedia('(prefers-color-scheme: dark)').matches, navigator.language, innerWidth]";
        assert_eq!(browser.client.execute(seen, vec![]).await.unwrap(), json!([true, "ja", 390]));
        browser.end().await.unwrap();
    }
}

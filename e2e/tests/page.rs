//! The page in a real Chromium: what it shows follows the cluster, what it offers works by mouse and by keyboard.

use anyhow::{Context as _, Result, ensure};
use e2e::browser::{Browser, DESK, Look, PATIENCE};
use e2e::lab::{Lab, Setup};
use e2e::page::{drive, log_in, part, press, see_healthy, see_text};
use e2e::{paths, scenes};
use fantoccini::key::Key;
use std::num::NonZeroU64;
use wire::command::{Operation, VerifyTurn};
use wire::ids::{NodeId, SetId};

const PHONE: Look = Look { size: (390, 844), dark: false, language: "en" };
const DARK: Look = Look { dark: true, ..DESK };
const JAPANESE: Look = Look { language: "ja", ..DESK };

/// One lab for all of it: starting one takes longer than looking at it.
#[test]
fn the_page_shows_and_does_what_it_says() -> Result<()> {
    let mut lab = Lab::start(&Setup::default())?;
    drive(async {
        wrong_login(&lab).await?;
        looks(&lab).await?;
        move_by_button_and_keyboard(&mut lab).await?;
        compare_by_button(&mut lab).await?;
        refused_with_reason(&mut lab).await?;
        stale_and_back(&mut lab).await
    })?;
    lab.end()
}

async fn wrong_login(lab: &Lab) -> Result<()> {
    let browser = Browser::start(DESK).await?;
    browser.open(&lab.status()?.server(NodeId(1))?.page).await?;
    browser.see(&part("login-password")).await?.send_keys("not the login").await?;
    browser.see(&part("login-submit")).await?.click().await?;
    browser.see(&part("login-error")).await?;
    nothing_found(&browser, "login").await?;
    browser.end().await
}

/// Healthy, in every look: the words are there, nothing scrolls sideways, axe-core finds nothing.
async fn looks(lab: &Lab) -> Result<()> {
    for (name, look) in [("light", DESK), ("dark", DARK), ("phone", PHONE), ("japanese", JAPANESE)] {
        let browser = log_in(lab, NodeId(1), look).await?;
        see_healthy(&browser, PATIENCE).await?;
        let script = "document.documentElement.scrollWidth <= window.innerWidth";
        browser.until("no sideways scrolling", script, PATIENCE).await?;
        nothing_found(&browser, name).await?;
        browser.end().await?;
    }
    let browser = log_in(lab, NodeId(2), JAPANESE).await?;
    see_text(&browser, "server-1-state", &["正常"], PATIENCE).await?;
    browser.until("the page's language", "document.documentElement.lang === 'ja'", PATIENCE).await?;
    browser.end().await
}

async fn nothing_found(browser: &Browser, name: &str) -> Result<()> {
    browser.picture(&paths::out()?.join(format!("page-{name}.png"))).await?;
    let found = browser.axe().await?;
    ensure!(found.is_empty(), "axe-core, {name}: {}", found.join("\n"));
    Ok(())
}

async fn move_by_button_and_keyboard(lab: &mut Lab) -> Result<()> {
    let from = lab.wait_healthy(scenes::RECOVER)?;
    let to = from.twin();
    let browser = log_in(lab, to, DESK).await?;
    press(&browser, &format!("op-move-1-{}", to.0)).await?;
    active_on(&browser, to).await?;
    lab.wait_healthy(scenes::RECOVER)?;
    // Back by keyboard alone: focus the button, press Enter.
    let button = format!("{}[data-phase='ready']", part(&format!("op-move-1-{}", from.0)));
    browser.see(&button).await?;
    let focus = format!("document.querySelector(\"{button}\").focus()");
    browser.client.execute(&focus, vec![]).await?;
    browser.client.active_element().await?.send_keys(&char::from(Key::Enter).to_string()).await?;
    active_on(&browser, from).await?;
    lab.wait_healthy(scenes::RECOVER)?;
    browser.end().await
}

async fn active_on(browser: &Browser, server: NodeId) -> Result<()> {
    let there =
        format!("document.querySelector(\"[data-testid='group-1-on-{}'][data-active='true']\")", server.0);
    browser.until("the group is there", &there, scenes::TAKE_OVER).await
}

/// Opens what is folded away and brings it into sight.
async fn unfold(browser: &Browser, panel: &str) -> Result<()> {
    browser.see(panel).await?;
    let script = format!(
        "const it = document.querySelector(\"{panel}\"); it.open = true; it.scrollIntoView({{ block: 'start' }})"
    );
    browser.client.execute(&script, vec![]).await?;
    Ok(())
}

/// Both copies are compared by a button on the server that serves, and how it ended stands there, in every look; on the other one
/// the button is greyed.
async fn compare_by_button(lab: &mut Lab) -> Result<()> {
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let set = lab.status()?.views().find_map(|view| Some(view.sets.first()?.id.0)).context("a mirror set")?;
    let start = format!("op-verify-start-{set}");
    let panel = part(&format!("set-{set}-admin"));
    let browser = log_in(lab, active.twin(), PHONE).await?;
    unfold(&browser, &panel).await?;
    let reason = browser.text(&part(&format!("{start}-reason"))).await?;
    ensure!(reason.contains("M-2078"), "the reason says {reason:?}");
    nothing_found(&browser, "verify-elsewhere").await?;
    browser.end().await?;
    let browser = log_in(lab, active, DESK).await?;
    unfold(&browser, &panel).await?;
    press(&browser, &start).await?;
    see_text(&browser, &format!("set-{set}-verified"), &["all equal"], PATIENCE).await?;
    let turn = VerifyTurn::Start { limit: NonZeroU64::new(1 << 20) };
    lab.operate(active, Operation::VerifySet { set: SetId(set), turn })?;
    see_text(&browser, &format!("set-{set}-state"), &["Comparing"], PATIENCE).await?;
    nothing_found(&browser, "verify-runs").await?;
    press(&browser, &format!("op-verify-pause-{set}")).await?;
    browser.see(&part(&format!("op-verify-resume-{set}"))).await?;
    nothing_found(&browser, "verify-paused").await?;
    press(&browser, &format!("op-verify-end-{set}")).await?;
    see_text(&browser, &format!("set-{set}-verified"), &["Ended early"], PATIENCE).await?;
    browser.end().await?;
    for (name, look) in [("dark", DARK), ("phone", PHONE), ("japanese", JAPANESE)] {
        let browser = log_in(lab, active, look).await?;
        unfold(&browser, &panel).await?;
        browser.see(&part(&format!("set-{set}-verified"))).await?;
        nothing_found(&browser, &format!("verify-{name}")).await?;
        browser.end().await?;
    }
    Ok(())
}

/// With one server dead the move there is greyed, and the reason stands beside it.
async fn refused_with_reason(lab: &mut Lab) -> Result<()> {
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let victim = active.twin();
    let browser = log_in(lab, active, DESK).await?;
    lab.demo(&["kill", &scenes::name(victim)])?;
    see_text(&browser, &format!("server-{}-state", victim.0), &["Down"], scenes::TAKE_OVER).await?;
    let operation = format!("op-move-1-{}", victim.0);
    browser.see(&format!("{}[data-phase='greyed']", part(&operation))).await?;
    let reason = browser.text(&part(&format!("{operation}-reason"))).await?;
    ensure!(reason.contains("M-2038"), "the reason says {reason:?}");
    nothing_found(&browser, "down").await?;
    lab.demo(&["restart", &scenes::name(victim)])?;
    see_text(&browser, &format!("server-{}-state", victim.0), &["Restarted"], scenes::RECOVER).await?;
    press(&browser, &format!("op-recover-{}", victim.0)).await?;
    see_healthy(&browser, scenes::RECOVER).await?;
    browser.end().await
}

/// The manager that feeds the page goes away: the page says so, and is live again by itself.
async fn stale_and_back(lab: &mut Lab) -> Result<()> {
    let active = lab.wait_healthy(scenes::RECOVER)?;
    let feeder = active.twin();
    let browser = log_in(lab, feeder, DESK).await?;
    see_healthy(&browser, PATIENCE).await?;
    lab.demo(&["stop-node", &scenes::name(feeder)])?;
    browser.see(&format!("{}[data-live='no']", part("live"))).await?;
    browser.see(&part("open-twin")).await?;
    nothing_found(&browser, "stale").await?;
    lab.demo(&["start-node", &scenes::name(feeder)])?;
    browser.see(&format!("{}[data-live='yes']", part("live"))).await?;
    browser.end().await?;
    // Its twin may have judged it down meanwhile: either way the pair comes back.
    lab.heal()
}

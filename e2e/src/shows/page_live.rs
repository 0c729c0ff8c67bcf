//! `page-live`: the page follows a failover and the return live, in every look, and axe-core finds nothing.

use anyhow::{Context, Result};
use serde_json::json;

use super::Options;
use crate::browser::{Browser, DESK, Look};
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table};
use crate::{page, paths, scenes};

/// A phone.
pub const PHONE: Look = Look { size: (390, 844), dark: false, language: "en" };
/// At night.
pub const DARK: Look = Look { dark: true, ..DESK };
/// In Japanese.
pub const JAPANESE: Look = Look { language: "ja", ..DESK };

/// The show.
///
/// # Errors
/// When the page does not follow.
pub fn run(_options: &Options) -> Result<Outcome> {
    let mut lab = Lab::start(&Setup::default())?;
    let victim = lab.wait_healthy(scenes::RECOVER)?;
    let survivor = victim.twin();
    let mut table = Table::new(&["picture", "axe-core finds"]);
    let mut faults = Vec::new();
    page::drive(async {
        let mut browsers = Vec::new();
        for (name, look) in [("light", DESK), ("dark", DARK), ("phone", PHONE), ("japanese", JAPANESE)] {
            browsers.push((name, page::log_in(&lab, survivor, look).await?));
        }
        for (name, browser) in &browsers {
            page::see_healthy(browser, scenes::TAKE_OVER).await?;
            keep(&mut table, &mut faults, browser, &format!("healthy-{name}")).await?;
        }
        lab.demo(&["kill", &scenes::name(victim)])?;
        for (name, browser) in &browsers {
            page::see_text(
                browser,
                &format!("server-{}-state", victim.0),
                &["Down", "ダウン"],
                scenes::TAKE_OVER,
            )
            .await?;
            let here = format!(
                "document.querySelector(\"[data-testid='group-1-on-{}'][data-active='true']\")",
                survivor.0
            );
            browser.until("the group on the other server", &here, scenes::TAKE_OVER).await?;
            keep(&mut table, &mut faults, browser, &format!("down-{name}")).await?;
        }
        lab.demo(&["restart", &scenes::name(victim)])?;
        let state = format!("server-{}-state", victim.0);
        for (name, browser) in &browsers {
            page::see_text(browser, &state, &["Restarted", "ダウン後再起動"], scenes::RECOVER).await?;
            keep(&mut table, &mut faults, browser, &format!("returned-{name}")).await?;
        }
        let (_, first) = browsers.first().context("a browser")?;
        page::press(first, &format!("op-recover-{}", victim.0)).await?;
        for (name, browser) in &browsers {
            page::see_healthy(browser, scenes::RECOVER).await?;
            keep(&mut table, &mut faults, browser, &format!("recovered-{name}")).await?;
        }
        stale(&mut lab, survivor, first, &mut table, &mut faults).await
    })?;
    table.print();
    println!("pictures: {}", paths::out()?.display());
    lab.end()?;
    Ok(Outcome::new(faults.is_empty(), json!({"pictures": pictures(&table), "axe_faults": faults})))
}

fn pictures(table: &Table) -> usize {
    table.text().lines().count().saturating_sub(1)
}

async fn keep(table: &mut Table, faults: &mut Vec<String>, browser: &Browser, name: &str) -> Result<()> {
    browser.picture(&paths::out()?.join(format!("{name}.png"))).await?;
    let found = browser.axe().await?;
    let said = if found.is_empty() { "nothing".to_owned() } else { found.join("; ") };
    table.row(&[name.to_owned(), said]);
    faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
    Ok(())
}

/// The manager that feeds the page goes away: the page says that it is stale, and is live again when it is back.
async fn stale(
    lab: &mut Lab,
    server: wire::ids::NodeId,
    browser: &Browser,
    table: &mut Table,
    faults: &mut Vec<String>,
) -> Result<()> {
    lab.demo(&["stop-node", &scenes::name(server)])?;
    browser.see(&format!("{}[data-live='no']", page::part("live"))).await?;
    keep(table, faults, browser, "stale").await?;
    lab.demo(&["start-node", &scenes::name(server)])?;
    browser.see(&format!("{}[data-live='yes']", page::part("live"))).await?;
    lab.wait_healthy(scenes::RECOVER)?;
    Ok(())
}

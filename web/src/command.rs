//! Orders: sent with the revision the operator saw, then followed in the state until the view shows their effect.

use crate::browser;
use crate::feed;
use crate::page::Page;
use leptos::prelude::*;
use wire::command::Operation;
use wire::feed::FromPage;
use wire::ids::CommandId;

/// Gives an order. Without a connection nothing is sent and nothing is pretended.
pub fn give(page: Page, what: Operation) {
    if page.stale.get_untracked() {
        return;
    }
    let id = CommandId(browser::random_id());
    let command = page.state.try_update(|s| s.order(id, what)).flatten();
    if let Some(command) = command
        && !feed::send(&FromPage::Command(command))
    {
        page.state.update(|s| s.closed());
    }
    page.asking.set(None);
}

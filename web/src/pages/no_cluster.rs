//! Before there is a cluster: this server's pairing code, and how the first server makes twins of two.

use crate::api;
use crate::page::page;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wire::text::Label;

/// The page of a server without a cluster.
#[component]
pub fn NoCluster() -> impl IntoView {
    let page = page();
    // The session may be older than the server's code.
    spawn_local(async move {
        if let Ok(session) = api::session().await {
            page.session.set(Some(session));
        }
    });
    let code = move || page.session.with(|s| s.as_ref().and_then(|s| s.pairing_code.clone()));
    view! {
        <main id="main" class="narrow" data-testid="no-cluster">
            <section class="panel pad">
                <h1 class="title">{move || page.t(Label::NoClusterTitle)}</h1>
                <p>{move || page.t(Label::NoClusterIntro)}</p>
                <ol class="how">
                    <li>{move || page.t(Label::NoClusterFirst)}</li>
                    <li>{move || page.t(Label::NoClusterThen)}</li>
                </ol>
                {move || code().map(|code| view! {
                    <h2>{page.t(Label::PairingCode)}</h2>
                    <p class="code" data-testid="pairing-code">{code}</p>
                    <p class="detail">{page.t(Label::PairingUse)}</p>
                })}
            </section>
        </main>
    }
}

//! The frame of the page: who is asked for what, and which page is shown.

use crate::api;
use crate::browser;
use crate::components::bar::Bar;
use crate::feed;
use crate::page::{Page, Theme};
use crate::pages::login::Login;
use crate::pages::no_cluster::NoCluster;
use crate::pages::overview::Overview;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::time::Duration;
use wire::text::Label;

/// Wait before the session is asked for again when the server does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Which page is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Connecting,
    Login,
    NoCluster,
    Overview,
}

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    let page = Page::new();
    provide_context(page);
    Effect::new(move |_| browser::mark_document("lang", page.lang.get().tag()));
    Effect::new(move |_| {
        browser::mark_document("data-theme", if page.theme.get() == Theme::Dark { "dark" } else { "light" });
    });
    Effect::new(move |_| browser::mark_document("data-stale", if page.stale.get() { "yes" } else { "no" }));
    feed::keep_time(page);
    ask(page);
    let signed_in = Memo::new(move |_| page.session.with(|s| s.as_ref().map(|s| s.logged_in)));
    Effect::new(move |before: Option<Option<bool>>| {
        let signed_in = signed_in.get();
        if signed_in == Some(true) && before.flatten() != Some(true) {
            feed::connect(page);
        }
        signed_in
    });
    let shown = Memo::new(move |_| match signed_in.get() {
        None => Shown::Connecting,
        Some(false) => Shown::Login,
        Some(true) if page.state.with(|s| s.no_cluster) => Shown::NoCluster,
        Some(true) if page.view.with(Option::is_some) => Shown::Overview,
        Some(true) => Shown::Connecting,
    });
    view! {
        <a class="skip" href="#main">{move || page.t(Label::SkipToContent)}</a>
        <Bar/>
        {move || match shown.get() {
            Shown::Connecting => view! { <Connecting/> }.into_any(),
            Shown::Login => view! { <Login/> }.into_any(),
            Shown::NoCluster => view! { <NoCluster/> }.into_any(),
            Shown::Overview => view! { <Overview/> }.into_any(),
        }}
    }
}

#[component]
fn Connecting() -> impl IntoView {
    let page = crate::page::page();
    view! {
        <main id="main" class="narrow" data-testid="connecting">
            <section class="panel pad">
                <h1 class="title">{move || page.t(Label::Connecting)}</h1>
                <p class="detail">{move || page.t(Label::ConnectingDetail)}</p>
            </section>
        </main>
    }
}

/// Asks until the server says who is signed in.
fn ask(page: Page) {
    spawn_local(async move {
        match api::session().await {
            Ok(session) => page.session.set(Some(session)),
            Err(api::Away) => set_timeout(move || ask(page), ASK_AGAIN),
        }
    });
}

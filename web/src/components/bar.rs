//! The bar: mark, cluster, tabs, live sign, language, colours, session.

use crate::api;
use crate::browser;
use crate::components::sign::Sign;
use crate::look::Look;
use crate::page::{Page, Theme, page};
use crate::shape::Shape;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wire::text::{self, Label, Lang};
use wire::verdict::Tone;

/// The bar over every page.
#[component]
pub fn Bar() -> impl IntoView {
    let page = page();
    let name = move || {
        let cluster = page.with(|_, view, _| view.cluster.clone());
        let server = || page.session.with(|s| s.as_ref().map(|s| s.server.name.clone()));
        if cluster.is_empty() { server().unwrap_or_default() } else { cluster }
    };
    let has_view = move || page.view.with(Option::is_some);
    let signed_in = move || page.session.with(|s| s.as_ref().is_some_and(|s| s.logged_in));
    view! {
        <header class="bar">
            <span class="mark">
                <svg viewBox="0 0 24 24" aria-hidden="true" focusable="false">
                    <circle cx="12" cy="12" r="10" fill="none" stroke="currentColor" stroke-width="2"/>
                    <path d="M11 2.2v19.6A10 10 0 0 1 11 2.2Z" fill="currentColor"/>
                    <path d="M13 2.2v19.6" stroke="currentColor" stroke-width="2"/>
                </svg>
                <span class="mark-name">"futago"</span>
            </span>
            <span class="cluster" data-testid="cluster">{name}</span>
            <nav aria-label=move || page.t(Label::Pages)>
                <Show when=has_view>
                    <a class="tab" href="/" aria-current="page">{move || page.t(Label::Overview)}</a>
                </Show>
            </nav>
            <Show when=has_view><Live/></Show>
            <Choices/>
            <Show when=signed_in>
                <button class="plain" data-testid="sign-out" on:click=move |_| sign_out(page)>
                    {move || page.t(Label::SignOut)}
                </button>
            </Show>
        </header>
    }
}

#[component]
fn Live() -> impl IntoView {
    let page = page();
    let look = Signal::derive(move || page.look(Look { shape: Shape::Disc, tone: Tone::Ok }));
    let words = move || {
        let stale = page.stale.get();
        page.with(|lang, view, names| {
            if stale {
                text::not_live(lang, view.at, page.east)
            } else {
                text::live_from(lang, &names.server(view.server), view.at, page.east)
            }
        })
    };
    view! {
        <span class="live" class:old=move || page.stale.get() data-testid="live"
            data-live=move || if page.stale.get() { "no" } else { "yes" }>
            <Sign look=look size="s13"/>
            <span>{words}</span>
        </span>
    }
}

/// Language and colours.
#[component]
fn Choices() -> impl IntoView {
    let page = page();
    let language = |lang: Lang| {
        view! {
            <button class="plain" lang=lang.tag() data-testid=format!("language-{}", lang.tag())
                aria-pressed=move || (page.lang.get() == lang).to_string()
                on:click=move |_| { browser::remember("language", lang.tag()); page.lang.set(lang); }>
                {lang.own_name()}
            </button>
        }
    };
    let other = move || if page.theme.get() == Theme::Dark { Label::ThemeLight } else { Label::ThemeDark };
    let turn = move |_| {
        let theme = if page.theme.get_untracked() == Theme::Dark { Theme::Light } else { Theme::Dark };
        browser::remember("theme", if theme == Theme::Dark { "dark" } else { "light" });
        page.theme.set(theme);
    };
    view! {
        <span class="choices" role="group" aria-label=move || page.t(Label::Language)>
            {Lang::ALL.map(language)}
        </span>
        <button class="plain" data-testid="theme" on:click=turn>{move || page.t(other())}</button>
    }
}

fn sign_out(page: Page) {
    spawn_local(async move {
        if api::logout().await.is_ok() {
            page.session.update(|s| {
                if let Some(session) = s {
                    session.logged_in = false;
                }
            });
        }
    });
}

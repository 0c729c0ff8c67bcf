//! The demo's panel: break something on purpose and watch. Shown only when the server says that it is the demo's.

use crate::api;
use crate::page::{Page, page};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wire::config::LinkKind;
use wire::ids::{LinkId, NodeId};
use wire::text::{self, Label};

/// The panel.
#[component]
pub fn Demo() -> impl IntoView {
    let page = page();
    let busy = RwSignal::new(false);
    let failed = RwSignal::new(None::<String>);
    let servers = Memo::new(move |_| {
        page.view.with(|v| {
            let pair = |s: &wire::view::ServerView| (s.id, s.name.clone());
            v.as_ref().map_or(Vec::<(NodeId, String)>::new(), |v| v.servers.iter().map(pair).collect())
        })
    });
    let links = Memo::new(move |_| {
        page.view.with(|v| {
            let pair = |l: &wire::view::LinkView| (l.id, l.name.clone(), l.kind);
            v.as_ref()
                .map_or(Vec::<(LinkId, String, LinkKind)>::new(), |v| v.links.iter().map(pair).collect())
        })
    });
    let act = move |what: &'static str, target: String| order(page, busy, failed, what, target);
    view! {
        <section class="panel pad demo" data-testid="demo" aria-labelledby="demo-title">
            <h2 id="demo-title">{move || page.t(Label::Demo)}</h2>
            <p class="detail">{move || page.t(Label::DemoHelp)}</p>
            <div class="demo-acts">
                {move || servers.get().into_iter().map(|(id, name)| {
                    let (kill, restart) = (name.clone(), name.clone());
                    let lang = page.lang.get();
                    view! {
                        <p class="choice">
                            <button class="button" data-testid=format!("demo-kill-{}", id.0)
                                on:click=move |_| act("kill", kill.clone())>{text::server_kill(lang, &name)}</button>
                            <button class="button" data-testid=format!("demo-restart-{}", id.0)
                                on:click=move |_| act("restart", restart.clone())>{text::server_restart(lang, &name)}</button>
                        </p>
                    }
                }).collect_view()}
                {move || links.get().into_iter().map(|(id, name, _)| {
                    let (cut, mend) = (name.clone(), name.clone());
                    let lang = page.lang.get();
                    view! {
                        <p class="choice">
                            <button class="button" data-testid=format!("demo-cut-{}", id.0)
                                on:click=move |_| act("cut", cut.clone())>{text::link_cut(lang, &name)}</button>
                            <button class="button" data-testid=format!("demo-mend-{}", id.0)
                                on:click=move |_| act("mend", mend.clone())>{text::link_mend(lang, &name)}</button>
                        </p>
                    }
                }).collect_view()}
            </div>
            <p class="reason" role="status" data-testid="demo-answer">
                {move || if busy.get() { page.t(Label::DemoAsked).to_owned() } else { failed.get().unwrap_or_default() }}
            </p>
        </section>
    }
}

fn order(
    page: Page,
    busy: RwSignal<bool>,
    failed: RwSignal<Option<String>>,
    what: &'static str,
    target: String,
) {
    busy.set(true);
    failed.set(None);
    spawn_local(async move {
        let lang = page.lang.get_untracked();
        let reason = match api::demo(what, &target).await {
            Ok(reason) => reason,
            Err(api::Away) => Some(text::label(lang, Label::ErrorUnreachable).to_owned()),
        };
        let _ = failed.try_set(reason.map(|reason| text::demo_failed(lang, &reason)));
        let _ = busy.try_set(false);
    });
}

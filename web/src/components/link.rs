//! The lines between the servers: name, network, value above each line, ports at both edges.

use crate::components::sign::Sign;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::config::LinkKind;
use wire::ids::{LinkId, NodeId};
use wire::text::{self, Label};
use wire::view::{LinkState, LinkView};

/// The links of one kind, in the configured order.
fn of_kind(kind: LinkKind) -> Memo<Vec<LinkId>> {
    let view = page().view;
    Memo::new(move |_| {
        let ids = |v: &wire::ClusterView| v.links.iter().filter(|l| l.kind == kind).map(|l| l.id).collect();
        view.with(|v| v.as_ref().map_or(Vec::new(), ids))
    })
}

/// The interconnects.
#[component]
pub fn LinkList() -> impl IntoView {
    let page = page();
    let links = of_kind(LinkKind::Interconnect);
    view! {
        <ul class="links" aria-label=move || page.t(Label::Links)>
            <For each=move || links.get() key=|id| *id let(id)>
                <li class="link-item"><Link id=id/></li>
            </For>
        </ul>
    }
}

/// The public LAN, over both servers.
#[component]
pub fn PublicLan() -> impl IntoView {
    let links = of_kind(LinkKind::Public);
    view! {
        <div class="lan">
            <For each=move || links.get() key=|id| *id let(id)><Link id=id/></For>
        </div>
    }
}

/// One link: its words and its line.
#[component]
fn Link(id: LinkId) -> impl IntoView {
    let page = page();
    let link = page.link(id);
    let of = move |read: fn(&LinkView) -> String| link.with(|l| l.as_ref().map_or_else(String::new, read));
    let state = move || link.with(|l| l.as_ref().map_or(LinkState::Unknown, |l| l.state));
    let look = Signal::derive(move || page.look(look::link(state())));
    let value = move || {
        let lang = page.lang.get();
        link.with(|l| l.as_ref().map_or_else(String::new, |l| text::link_value(lang, l)))
    };
    let note = move || {
        page.with(|lang, _, names| {
            link.with(|l| {
                l.as_ref().map_or_else(String::new, |l| match no_cable_at(l) {
                    Some(at) => names.server(at),
                    None if l.primary => text::label(lang, Label::Primary).to_owned(),
                    None => String::new(),
                })
            })
        })
    };
    // Where a cable is out, the server with the empty port matters more than the network.
    let network = move || of(|l| if no_cable_at(l).is_some() { String::new() } else { l.network.clone() });
    let class = move || {
        let lost = !page.stale.get() && matches!(state(), LinkState::Lost | LinkState::NoCable);
        let unknown = !page.stale.get() && state() == LinkState::Unknown;
        let double = link.with(|l| l.as_ref().is_some_and(|l| l.carries_blocks));
        format!(
            "link tone-{}{}{}{}",
            look.get().tone.name(),
            if lost { " lost" } else { "" },
            if unknown { " unknown" } else { "" },
            if double { " double" } else { "" }
        )
    };
    view! {
        <div class=class data-testid=format!("link-{}", id.0) data-state=move || format!("{:?}", state())>
            <p class="words">
                <Sign look=look size="s13"/>
                <b class="name">{move || of(|l| l.name.clone())}</b>
                <span class="network"><span class="ip">{network}</span>" "<span class="ip">{note}</span></span>
                <b class="value" data-testid=format!("link-{}-value", id.0)>{value}</b>
            </p>
            <span class="line" aria-hidden="true">
                <svg class="cross" viewBox="0 0 24 24" focusable="false">
                    <path d="m4 4 16 16M20 4 4 20" fill="none" stroke="currentColor" stroke-width="3" stroke-linecap="round"/>
                </svg>
            </span>
        </div>
    }
}

/// The server that sees no carrier, when that is why the link is out.
fn no_cable_at(link: &LinkView) -> Option<NodeId> {
    link.no_cable_at.filter(|_| link.state == LinkState::NoCable)
}

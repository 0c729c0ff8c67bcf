//! One server: its head with the state, a place for each group, its readings. Server 2 mirrors server 1.

use crate::components::group::Place;
use crate::components::sign::Sign;
use crate::look;
use crate::page::page;
use leptos::prelude::*;
use wire::ids::NodeId;
use wire::text::{self, Label};
use wire::view::{GroupState, LinkState, Readings, ServerState};

/// A server's card.
#[component]
pub fn Server(id: NodeId) -> impl IntoView {
    let page = page();
    let server = page.server(id);
    let state = move || server.with(|s| s.as_ref().map(|s| s.state));
    let state_name = move || state().map_or_else(String::new, |s| format!("{s:?}"));
    let look =
        Signal::derive(move || page.look(server.with(|s| s.as_ref().map_or(look::STALE, look::server))));
    let name = move || server.with(|s| s.as_ref().map_or_else(String::new, |s| s.name.clone()));
    let word = move || {
        let lang = page.lang.get();
        state().map_or_else(String::new, |s| page.word(text::server_state(lang, s).to_owned()))
    };
    let everything = Memo::new(move |_| {
        page.with(|_, view, _| {
            let twin_out = view.servers.iter().any(|s| s.id != id && s.state != ServerState::Normal);
            let mut running = view.groups.iter().filter(|g| g.state == GroupState::Running).peekable();
            twin_out && running.peek().is_some() && running.all(|g| g.active == Some(id))
        })
    });
    let line = move || {
        let lang = page.lang.get();
        server.with(|s| {
            s.as_ref().map_or_else(String::new, |s| text::server_line(lang, s, everything.get(), page.east))
        })
    };
    let lan_lost = move || {
        page.with(|_, view, _| {
            let lost = |l: &&wire::view::LinkView| l.kind == wire::config::LinkKind::Public;
            let out = view.links.iter().filter(lost).any(|l| match l.state {
                LinkState::NoCable => l.no_cable_at.is_none_or(|at| at == id),
                LinkState::Lost | LinkState::Up | LinkState::Slow | LinkState::Unknown => false,
            });
            let down = view.servers.iter().any(|s| s.id == id && s.state == ServerState::Down);
            (out || down) && !page.stale.get()
        })
    };
    let class = move || {
        let tone = look.get().tone.name();
        let side = if id.0 == 1 { "left" } else { "right" };
        let long = state() == Some(ServerState::RestartedAfterDown);
        format!(
            "server {side} edge-{tone}{}{}{}",
            if state() == Some(ServerState::Normal) { " calm" } else { "" },
            if long { " long" } else { "" },
            if lan_lost() { " lan-lost" } else { "" }
        )
    };
    let groups = page.groups();
    let heading = format!("server-{}-name", id.0);
    view! {
        <article class=class data-testid=format!("server-{}", id.0) data-state=state_name aria-labelledby=heading>
            <header class="head">
                <div>
                    <h2 id=heading.clone()>{name}</h2>
                    <p class=move || format!("state tone-{}", look.get().tone.name())
                        data-testid=format!("server-{}-state", id.0)>{word}</p>
                    <p class="detail" data-testid=format!("server-{}-sub", id.0)>{line}</p>
                </div>
                <Sign look=look size="s56"/>
            </header>
            <For each=move || groups.get().into_iter().enumerate() key=|(i, group)| (*i, *group) let((i, group))>
                <Place group=group on=id row=i/>
            </For>
            <footer class="foot">{move || {
                let readings = server.with(|s| s.as_ref().and_then(|s| s.readings.clone()));
                match readings {
                    Some(readings) => view! { <Bars readings/> }.into_any(),
                    None => {
                        let words = text::no_readings(page.lang.get(), &name());
                        view! { <p class="detail">{words}</p> }.into_any()
                    }
                }
            }}</footer>
        </article>
    }
}

#[component]
fn Bars(readings: Readings) -> impl IntoView {
    let page = page();
    let bar = move |what: Label, percent: u8| {
        let percent = percent.min(100);
        view! {
            <span class="reading">
                <span>{move || page.t(what)}</span>
                <span class="track" aria-hidden="true"><i style:width=format!("{percent}%")></i></span>
                <span class="figure">{format!("{percent}\u{a0}%")}</span>
            </span>
        }
    };
    view! { {bar(Label::Cpu, readings.cpu_percent)} {bar(Label::Memory, readings.memory_percent)} }
}

//! One operation: a button that shows what the server said, never what the click hoped for.

use crate::command;
use crate::components::ask::Ask;
use crate::components::sign::Sign;
use crate::look::Look;
use crate::offer::Offer;
use crate::page::{Page, page};
use crate::shape::Shape;
use crate::state::{Order, Phase};
use leptos::prelude::*;
use wire::command::{OldChoice, Operation, RebuildTurn, RefusalKind, VerifyTurn};
use wire::text::{self, Label, Lang};
use wire::verdict::Tone;

/// The stable name of an operation's button.
fn test_id(what: Operation) -> String {
    match what {
        Operation::StartGroup { group, on } => format!("op-start-{}-{}", group.0, on.0),
        Operation::StopGroup { group } => format!("op-stop-{}", group.0),
        Operation::MoveGroup { group, to } => format!("op-move-{}-{}", group.0, to.0),
        Operation::KeepGroup { group } => format!("op-keep-{}", group.0),
        Operation::FreeGroup { group } => format!("op-free-{}", group.0),
        Operation::Maintain { on } => format!("op-maintenance-{on}"),
        Operation::StopCluster => "op-stop-cluster".to_owned(),
        Operation::StartCluster => "op-start-cluster".to_owned(),
        Operation::StopServer { server } => format!("op-stop-server-{}", server.0),
        Operation::StartServer { server } => format!("op-start-server-{}", server.0),
        Operation::RecoverServer { server } => format!("op-recover-{}", server.0),
        Operation::BuildSet { set, to } => format!("op-build-{}-{}", set.0, to.0),
        Operation::ForceRecovery { set, good } => format!("op-force-recovery-{}-{}", set.0, good.0),
        Operation::PermitSet { set, on } => format!("op-permit-{}-{}", set.0, on.0),
        Operation::RestrictSet { set, on } => format!("op-restrict-{}-{}", set.0, on.0),
        Operation::ForcePermit { set, on } => format!("op-force-permit-{}-{}", set.0, on.0),
        Operation::ExchangeDisk { set, server } => format!("op-exchange-{}-{}", set.0, server.0),
        Operation::OldVersion { set, on, choice } => {
            let word = match choice {
                OldChoice::PutBack => "put-back",
                OldChoice::Drop => "drop",
                OldChoice::Waive => "waive",
            };
            format!("op-old-{word}-{}-{}", set.0, on.0)
        }
        Operation::ReleaseSet { set } => format!("op-release-{}", set.0),
        Operation::VerifySet { set, turn } => {
            let word = match turn {
                VerifyTurn::Start { .. } => "start",
                VerifyTurn::Pause => "pause",
                VerifyTurn::Resume => "resume",
                VerifyTurn::Limit { .. } => "limit",
                VerifyTurn::End => "end",
            };
            format!("op-verify-{word}-{}", set.0)
        }
        Operation::PaceRebuild { set, turn } => {
            let word = match turn {
                RebuildTurn::Pause => "pause",
                RebuildTurn::Resume => "resume",
                RebuildTurn::Limit { .. } => "limit",
            };
            format!("op-rebuild-{word}-{}", set.0)
        }
    }
}

/// What the button is.
#[derive(Clone, PartialEq, Eq)]
enum Face {
    Ready,
    Greyed(RefusalKind),
    Stale,
    Pending,
    Refused(Order),
}

/// A button with what stands beside it.
#[component]
pub fn Action(offer: Signal<Offer>) -> impl IntoView {
    let page = page();
    let what = Memo::new(move |_| offer.get().what);
    let order = Memo::new(move |_| page.order(what.get()));
    let face = Memo::new(move |_| match (order.get(), offer.get().refused) {
        _ if page.stale.get() => Face::Stale,
        (Some(order), _) if order.pending() => Face::Pending,
        (Some(order), _) => Face::Refused(order),
        (None, Some(kind)) => Face::Greyed(kind),
        (None, None) => Face::Ready,
    });
    let phase = move || match face.get() {
        Face::Ready => "ready",
        Face::Greyed(_) | Face::Stale => "greyed",
        Face::Pending => "pending",
        Face::Refused(_) => "refused",
    };
    let usable = move || matches!(face.get(), Face::Ready | Face::Refused(_));
    let words = move || {
        page.with(|lang, view, names| match face.get() {
            Face::Pending => text::operation_pending(lang, what.get(), view),
            Face::Ready | Face::Greyed(_) | Face::Stale | Face::Refused(_) => {
                text::operation(lang, what.get(), names)
            }
        })
    };
    let reason_id = move || format!("{}-reason", test_id(what.get()));
    let press = move |_| {
        if usable() {
            ask_or_give(page, what.get_untracked());
        }
    };
    let asking = move || page.asking.get() == Some(what.get());
    view! {
        <div class="action">
            <button class=move || format!("button {}", phase()) data-testid=move || test_id(what.get())
                data-phase=phase aria-disabled=move || (!usable()).to_string()
                aria-describedby=reason_id on:click=press>
                <Show when=move || face.get() == Face::Pending>
                    <Sign look=Signal::derive(|| Look { shape: Shape::ArrowRight, tone: Tone::Move }) size="s16"/>
                </Show>
                <span>{words}</span>
            </button>
            <p class="reason" id=reason_id data-testid=reason_id>
                {move || page.with(|lang, _, _| beside(page, lang, &face.get(), what.get()))}
                {move || number(page, &face.get())}
            </p>
            <Show when=asking><Ask what/></Show>
        </div>
    }
}

/// The sentence beside the button.
fn beside(page: Page, lang: Lang, face: &Face, what: Operation) -> String {
    match face {
        Face::Stale => text::label(lang, Label::NotNowStale).to_owned(),
        Face::Greyed(kind) => text::greyed(lang, *kind),
        Face::Pending => match page.order(what).map(|o| o.phase) {
            Some(Phase::Asked) => text::label(lang, Label::Asked).to_owned(),
            _ => String::new(),
        },
        Face::Refused(order) => match order.phase {
            Phase::Refused(kind) => text::refused(lang, kind),
            Phase::Lost => text::label(lang, Label::AnswerLost).to_owned(),
            Phase::NoEffect | Phase::Asked | Phase::Accepted { .. } => {
                text::label(lang, Label::NoEffect).to_owned()
            }
        },
        Face::Ready => page.with(|lang, view, _| text::consequence(lang, what, view).unwrap_or_default()),
    }
}

/// The number of a reason, and the way to dismiss a refusal.
fn number(page: Page, face: &Face) -> impl IntoView + use<> {
    let kind = match face {
        Face::Greyed(kind) => Some(*kind),
        Face::Refused(order) => match order.phase {
            Phase::Refused(kind) => Some(kind),
            Phase::Asked | Phase::Accepted { .. } | Phase::Lost | Phase::NoEffect => None,
        },
        Face::Ready | Face::Stale | Face::Pending => None,
    };
    let number = kind.map(|kind| view! { " " <span class="number">{text::event_number(kind.code())}</span> });
    let dismiss = if let Face::Refused(order) = face { Some(order.id) } else { None };
    let dismiss = dismiss.map(|id| view! {
        " " <button class="plain" data-testid="dismiss" on:click=move |_| page.state.update(|s| s.dismiss(id))>
            {page.t(Label::Dismiss)}
        </button>
    });
    (number, dismiss)
}

/// A stop is explained first; everything else is ordered at once.
fn ask_or_give(page: Page, what: Operation) {
    match what {
        Operation::StopGroup { .. }
        | Operation::StopCluster
        | Operation::StopServer { .. }
        | Operation::BuildSet { .. }
        | Operation::ForceRecovery { .. }
        | Operation::PermitSet { .. }
        | Operation::ForcePermit { .. }
        | Operation::ExchangeDisk { .. }
        | Operation::OldVersion { .. }
        | Operation::ReleaseSet { .. } => page.asking.set(Some(what)),
        Operation::RestrictSet { .. }
        | Operation::KeepGroup { .. }
        | Operation::FreeGroup { .. }
        | Operation::Maintain { .. }
        | Operation::StartCluster
        | Operation::VerifySet { .. }
        | Operation::PaceRebuild { .. }
        | Operation::StartGroup { .. }
        | Operation::MoveGroup { .. }
        | Operation::StartServer { .. }
        | Operation::RecoverServer { .. } => command::give(page, what),
    }
}

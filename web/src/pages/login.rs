//! The login: one field for the one-time password that the server printed.

use crate::api;
use crate::page::{Page, page};
use leptos::ev::SubmitEvent;
use leptos::html::Input;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wire::text::Label;

/// The login page.
#[component]
pub fn Login() -> impl IntoView {
    let page = page();
    let field = NodeRef::<Input>::new();
    let busy = RwSignal::new(false);
    let fault = RwSignal::new(None::<Label>);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let password = field.get_untracked().map(|f| f.value()).unwrap_or_default();
        let password = password.trim().to_owned();
        if busy.get_untracked() {
            return;
        }
        if password.is_empty() {
            return fault.set(Some(Label::LoginEmpty));
        }
        sign_in(page, password, busy, fault);
    };
    let invalid = move || fault.get().is_some().to_string();
    view! {
        <main id="main" class="narrow" data-testid="login">
            <form class="panel pad" on:submit=submit>
                <h1 class="title">{move || page.t(Label::LoginTitle)}</h1>
                <p class="detail" id="login-help">{move || page.t(Label::LoginHelp)}</p>
                <input type="text" autocomplete="username" value="admin" hidden/>
                <label for="password">{move || page.t(Label::Password)}</label>
                <input id="password" type="password" autocomplete="current-password" data-testid="login-password"
                    aria-describedby="login-help login-fault" aria-invalid=invalid node_ref=field/>
                <p class="reason" id="login-fault" role="alert" data-testid="login-error">
                    {move || fault.get().map_or("", |label| page.t(label))}
                </p>
                <button class=move || if busy.get() { "button main pending" } else { "button main primary" }
                    type="submit" data-testid="login-submit" aria-disabled=move || busy.get().to_string()>
                    {move || page.t(if busy.get() { Label::LoginPending } else { Label::LoginButton })}
                </button>
            </form>
        </main>
    }
}

fn sign_in(page: Page, password: String, busy: RwSignal<bool>, fault: RwSignal<Option<Label>>) {
    busy.set(true);
    fault.set(None);
    spawn_local(async move {
        let answer = match api::login(&password).await {
            Ok(status) if (200..300).contains(&status) => api::session().await.map(Some),
            Ok(401 | 403) => {
                let _ = fault.try_set(Some(Label::LoginWrong));
                Ok(None)
            }
            Ok(429) => {
                let _ = fault.try_set(Some(Label::LoginSlow));
                Ok(None)
            }
            Ok(_) => {
                let _ = fault.try_set(Some(Label::ErrorOther));
                Ok(None)
            }
            Err(away) => Err(away),
        };
        let _ = busy.try_set(false);
        match answer {
            Ok(Some(session)) => {
                if !session.logged_in {
                    let _ = fault.try_set(Some(Label::LoginCookie));
                }
                page.session.set(Some(session));
            }
            Ok(None) => {}
            Err(api::Away) => {
                let _ = fault.try_set(Some(Label::ErrorUnreachable));
            }
        }
    });
}

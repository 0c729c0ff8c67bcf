//! The page of futago: draws what a server's feed says, and carries an operator's orders back.

mod api;
mod app;
mod browser;
mod command;
mod components;
mod feed;
mod look;
mod offer;
mod page;
mod pages;
mod shape;
mod state;

fn main() {
    leptos::mount::mount_to_body(app::App);
}

//! The frame of every page.

use maud::{DOCTYPE, Markup, html};
use worker::{Response, Result};

/// Answers with a page.
pub fn page(content: Markup) -> Result<Response> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "The shop" } }
            body { (content) }
        }
    };
    Response::from_html(page.into_string())
}

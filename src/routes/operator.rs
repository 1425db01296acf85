//! The operators' page at `{base_path}/admin/`. It is the same for everybody and holds no secret: what it shows, its script
//! asks of the service API, with the token that the operator gives it. Its files are in `src/operator`.

use crate::{
    context::Context,
    host::Host,
    http::{Problem, Response},
};

/// What the page may do: run its own script, look as its own style says, and call this origin. No page can frame it, nothing
/// in it is run as HTML or sent by a form of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const PAGE: &str = include_str!("../operator/index.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page by their names, with their media types.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css; charset=utf-8", include_str!("../operator/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../operator/icon.svg")),
    ("app.js", SCRIPT, include_str!("../operator/app.js")),
    ("api.js", SCRIPT, include_str!("../operator/api.js")),
    ("ask.js", SCRIPT, include_str!("../operator/ask.js")),
    ("chart.js", SCRIPT, include_str!("../operator/chart.js")),
    ("cookie.js", SCRIPT, include_str!("../operator/cookie.js")),
    ("counters.js", SCRIPT, include_str!("../operator/counters.js")),
    ("dom.js", SCRIPT, include_str!("../operator/dom.js")),
    ("find.js", SCRIPT, include_str!("../operator/find.js")),
    ("keys.js", SCRIPT, include_str!("../operator/keys.js")),
    ("reset.js", SCRIPT, include_str!("../operator/reset.js")),
    ("session.js", SCRIPT, include_str!("../operator/session.js")),
    ("user.js", SCRIPT, include_str!("../operator/user.js")),
];

/// `GET /auth/admin`: what the page names is found from a path with a slash at its end.
pub(super) fn to_page() -> Result<Response, Problem> {
    Ok(Response::new(308).header("Location", "admin/"))
}

/// `GET /auth/admin/`
pub(super) fn page() -> Result<Response, Problem> {
    Ok(file("text/html; charset=utf-8", PAGE))
}

/// `GET /auth/admin/page/{name}`: its script, its style.
pub(super) fn part<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (_, media_type, text) =
        FILES.iter().find(|(name, ..)| *name == cx.param).ok_or_else(super::nothing_here)?;
    Ok(file(media_type, text))
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    Response { body: text.to_owned(), ..Response::new(200) }
        .header("Content-Type", media_type)
        .header("Content-Security-Policy", POLICY)
        // No other page, of this site neither, keeps a hand on its window.
        .header("Cross-Origin-Opener-Policy", "same-origin")
        .header("Cross-Origin-Resource-Policy", "same-origin")
        .header("Referrer-Policy", "no-referrer")
        .header("X-Frame-Options", "DENY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_under_its_name() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/operator");
        let entries = std::fs::read_dir(folder).expect("the folder");
        let mut there: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        let mut served: Vec<_> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        served.push("index.html".to_owned());
        there.sort();
        served.sort();
        assert_eq!(there, served);
        for (name, _, text) in FILES {
            let written = std::fs::read_to_string(format!("{folder}/{name}")).expect(name);
            assert_eq!(written, *text, "{name}");
        }
    }

    #[test]
    fn the_policy_lets_nothing_in_but_the_page_s_own_files() {
        assert!(!POLICY.contains("unsafe") && !POLICY.contains(':') && !POLICY.contains('*'));
        let page = page().expect("a page");
        assert!(page.headers.contains(&("Content-Security-Policy", POLICY.into())));
        assert!(!page.is_cacheable(), "it leaves as all answers do: kept by no cache");
        assert!(!PAGE.contains("style=") && !PAGE.contains("onclick") && !PAGE.contains("<style"));
    }
}

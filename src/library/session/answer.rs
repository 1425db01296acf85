//! The answer to the request.

use worker::Context as WorkerContext;

use super::Session;
use crate::{
    context::TOKEN,
    http::Response,
    library::{Error, ResponseHead, run_background},
};

impl Session {
    /// Answers: writes the changes, and adds the cookies, the rate-limit fields and `Vary: Cookie`. A response that says nothing
    /// of caching gets `Cache-Control: no-store`; so does one that shared caches might keep, if a cookie comes with it. What may
    /// wait is done after the response.
    ///
    /// If the changes cannot be written, the answer is that problem ([`Session::save`] lists them) in the place of `response`.
    /// Errors: the platform refuses a header.
    pub async fn respond<R: ResponseHead>(
        mut self,
        response: R,
        context: &WorkerContext,
    ) -> worker::Result<R> {
        match self.save().await {
            Ok(()) => {
                let answer = self.cx.answer(Ok(Response::new(200)), false);
                let cookies = std::mem::take(&mut self.cookies).into_iter();
                let answer = cookies.fold(answer, |answer, line| answer.header("Set-Cookie", line));
                self.leave(context);
                add_fields(response, &answer)
            }
            Err(error) => self.refuse(error, context).await,
        }
    }

    /// Answers with a problem, and forgets the changes that are not written. Errors: the error is not ours.
    pub async fn refuse<R: ResponseHead>(
        mut self,
        error: Error,
        context: &WorkerContext,
    ) -> worker::Result<R> {
        self.data.discard_changes();
        match error.into_problem() {
            Ok(problem) => {
                let answer = self.cx.answer(Err(problem), self.needs_cookie).uncacheable();
                self.leave(context);
                R::from_response(&answer)
            }
            Err(error) => {
                run_background(self.cx.app, context);
                Err(error)
            }
        }
    }

    /// The answer is made. What may wait is done after it.
    fn leave(&mut self, context: &WorkerContext) {
        self.needs_cookie = false;
        run_background(self.cx.app, context);
    }
}

/// The handler's response with what `answer` has of cookies and fields.
fn add_fields<R: ResponseHead>(mut response: R, answer: &Response) -> worker::Result<R> {
    let mut has_cookie = false;
    for (name, value) in &answer.headers {
        has_cookie |= ["Set-Cookie", TOKEN].contains(name);
        response = response.append_header(name, value)?;
    }
    if has_cookie {
        // For some shared caches these stand above Cache-Control (RFC 9213).
        for name in ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control"] {
            if response.header(name)?.is_some() {
                response = response.set_header(name, "no-store")?;
            }
        }
    }
    match response.header("Cache-Control")? {
        Some(caching) if !has_cookie || is_private(&caching) => Ok(response),
        _ => response.set_header("Cache-Control", "no-store"),
    }
}

/// Whether no shared cache may keep a response with this `Cache-Control`. With an argument `private` concerns some of its
/// headers alone.
fn is_private(caching: &str) -> bool {
    let mut directives = caching.split(',').map(|directive| directive.trim_matches([' ', '\t']));
    directives.any(|one| one.eq_ignore_ascii_case("private") || one.eq_ignore_ascii_case("no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_private_as_a_whole() {
        for (caching, expected) in [
            ("private", true),
            ("max-age=60, Private", true),
            ("no-cache,\tNO-STORE", true),
            ("", false),
            ("public, max-age=60", false),
            ("public, private=\"x-name\"", false),
            ("max-age=60, x-private", false),
            ("max-age=60, note=no-store", false),
        ] {
            assert_eq!(is_private(caching), expected, "{caching}");
        }
    }
}

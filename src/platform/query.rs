//! Asking other services than the store.

use futures_util::future::{Either, select};
use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    AbortController, AbortSignal, ReadableStreamDefaultReader, RequestInit, RequestRedirect, Response,
};
use worker::Delay;

use super::Platform;
use crate::host::{Document, Query, Unreachable};

impl Platform {
    pub(super) async fn fetch_document(&self, query: Query) -> Result<Document, Unreachable> {
        let stop = AbortController::new().map_err(|_| Unreachable)?;
        let signal = stop.signal();
        let answer = std::pin::pin!(self.read_document(&query, &signal));
        match select(answer, Delay::from(query.timeout)).await {
            Either::Left((document, _)) => document.map_err(|_| Unreachable),
            Either::Right(_) => {
                stop.abort();
                self.refresh_clock();
                Err(Unreachable)
            }
        }
    }

    /// `Err` is whatever JavaScript has thrown. Its text could hold the URL, so it goes no further.
    async fn read_document(&self, query: &Query, signal: &AbortSignal) -> Result<Document, JsValue> {
        let headers = web_sys::Headers::new()?;
        for (name, value) in &query.headers {
            headers.set(name, value)?;
        }
        headers.set("user-agent", "cloakroom")?;
        let init = RequestInit::new();
        init.set_method(if query.form.is_some() { "POST" } else { "GET" });
        if let Some(form) = &query.form {
            headers.set("content-type", "application/x-www-form-urlencoded")?;
            init.set_body_opt_str(Some(form));
        }
        init.set_redirect(RequestRedirect::Manual);
        init.set_headers_headers(&headers);
        init.set_signal(Some(signal));
        let sent = self.global.fetch_with_str_and_init(&query.url, &init);
        let response: Response = self.wait_for(sent).await?.unchecked_into();
        let status = response.status();
        let cache_control = response.headers().get("cache-control")?.unwrap_or_default();
        if status == 200 {
            let text = self.read_text(&response, query.max_bytes).await?;
            return Ok(Document { status, text, cache_control });
        }
        if let Some(stream) = response.body() {
            // Whether the body could be cancelled makes no difference.
            drop(self.wait_for(stream.cancel()).await);
        }
        Ok(Document { status, text: Some(String::new()), cache_control })
    }

    /// A body of at most so many bytes; `None` if it has more, of which no more are received.
    async fn read_text(&self, response: &Response, max_bytes: usize) -> Result<Option<String>, JsValue> {
        let Some(stream) = response.body() else { return Ok(Some(String::new())) };
        let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
        let mut bytes = Vec::new();
        loop {
            let read = self.wait_for(reader.read()).await?;
            if Reflect::get(&read, &"done".into())?.is_truthy() {
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
            let chunk: Uint8Array = Reflect::get(&read, &"value".into())?.dyn_into()?;
            let length = usize::try_from(chunk.length()).unwrap_or(usize::MAX);
            if length > max_bytes.saturating_sub(bytes.len()) {
                // Whether the rest could be cancelled makes no difference.
                drop(self.wait_for(reader.cancel()).await);
                return Ok(None);
            }
            bytes.extend(chunk.to_vec());
        }
    }
}

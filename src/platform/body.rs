//! Receiving a request's body.

use std::time::Duration;

use futures_util::future::{Either, select};
use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStreamDefaultReader;
use worker::Delay;

use super::Platform;
use crate::{
    host::Host,
    http::{Body, MAX_BODY, SMALL_BODY},
    limit::{ASK_EVERY, LONGEST_WAIT, LargeBodies, Place, Subject},
    time::Time,
};

/// After this long a large body gives its place to another that waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a body may take if nobody waits.
const LONGEST_UPLOAD: Duration = Duration::from_secs(30);

impl Platform {
    /// Receives a request's body: at most [`MAX_BODY`] bytes of it. A large one waits until there is a place for it, which
    /// must be kept for as long as the body.
    pub async fn read_body<'b>(
        &self,
        request: &web_sys::Request,
        bodies: &'b LargeBodies,
    ) -> (Body, Option<Place<'b>>) {
        let Some(stream) = request.body() else { return (Body::None, None) };
        let length = request.headers().get("content-length").ok().flatten();
        let length = length.and_then(|length| length.parse::<usize>().ok());
        match length {
            Some(length) if length <= SMALL_BODY => {
                (self.read_whole(request).await.unwrap_or(Body::Incomplete), None)
            }
            Some(length) if length > MAX_BODY => (Body::TooLarge, None),
            _ => {
                let reader = stream.get_reader().unchecked_into();
                let now = self.now();
                let patience = Delay::from(PATIENCE);
                let mut upload = Upload {
                    platform: self,
                    request,
                    bodies,
                    reader,
                    bytes: Vec::new(),
                    place: None,
                    began: now,
                    patience,
                };
                match upload.receive(length).await {
                    Ok(()) => (Body::Bytes(upload.bytes), upload.place),
                    Err(refused) => (refused, None),
                }
            }
        }
    }

    async fn read_whole(&self, request: &web_sys::Request) -> Result<Body, JsValue> {
        let buffer = self.wait_for(request.array_buffer()?).await?;
        Ok(Body::Bytes(Uint8Array::new(&buffer).to_vec()))
    }
}

/// A body on its way.
struct Upload<'a, 'b> {
    platform: &'a Platform,
    request: &'a web_sys::Request,
    bodies: &'b LargeBodies,
    reader: ReadableStreamDefaultReader,
    /// What has arrived.
    bytes: Vec<u8>,
    place: Option<Place<'b>>,
    began: Time,
    patience: Delay,
}

impl Upload<'_, '_> {
    /// Receives all of it. An error is what there is instead of it; no more chunks are read than it takes to see that.
    async fn receive(&mut self, length: Option<usize>) -> Result<(), Body> {
        if let Some(length) = length {
            self.wait_for_place(length).await?;
        }
        while let Some(chunk) = self.next_chunk().await? {
            let start = self.bytes.len();
            let end = start + usize::try_from(chunk.length()).unwrap_or(MAX_BODY);
            if end > MAX_BODY {
                self.cancel().await;
                return Err(Body::TooLarge);
            }
            if end > SMALL_BODY && self.place.is_none() {
                self.wait_for_place(MAX_BODY).await?;
            }
            self.bytes.resize(end, 0);
            if let Some(free) = self.bytes.get_mut(start..) {
                chunk.copy_to(free);
            }
        }
        Ok(())
    }

    /// Waits for a place, and makes room for all bytes at once: a buffer that grows takes twice as much.
    async fn wait_for_place(&mut self, bytes: usize) -> Result<(), Body> {
        let platform = self.platform;
        let address = self.request.headers().get("cf-connecting-ip").ok().flatten().unwrap_or_default();
        let asked = platform.now();
        let place = self.bodies.ask(bytes, Subject::address(&address), asked).ok_or(Body::NoPlace)?;
        while !place.is_given(platform.now()) {
            if platform.now() - asked >= LONGEST_WAIT {
                return Err(Body::NoPlace);
            }
            platform.sleep(ASK_EVERY).await;
        }
        self.bytes.reserve_exact(bytes - self.bytes.len());
        self.place = Some(place);
        (self.began, self.patience) = (platform.now(), Delay::from(PATIENCE));
        Ok(())
    }

    /// The next chunk; `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Uint8Array>, Body> {
        let mut read = JsFuture::from(self.reader.read());
        let read = loop {
            let is_read = match select(&mut read, &mut self.patience).await {
                Either::Left((read, _)) => Some(read),
                Either::Right(_) => None,
            };
            self.platform.refresh_clock();
            if let Some(read) = is_read {
                break read.map_err(|_| Body::Incomplete)?;
            }
            let now = self.platform.now();
            let is_wanted = self.place.as_ref().is_some_and(|place| place.is_wanted(now));
            if is_wanted || now - self.began >= LONGEST_UPLOAD {
                self.cancel().await;
                return Err(if is_wanted { Body::NoPlace } else { Body::Incomplete });
            }
            self.patience = Delay::from(PATIENCE);
        };
        let member = |name: &str| Reflect::get(&read, &name.into()).map_err(|_| Body::Incomplete);
        if member("done")?.is_truthy() {
            return Ok(None);
        }
        member("value")?.dyn_into().map(Some).map_err(|_| Body::Incomplete)
    }

    /// Whether the rest could be cancelled makes no difference to the answer.
    async fn cancel(&self) {
        drop(self.platform.wait_for(self.reader.cancel()).await);
    }
}

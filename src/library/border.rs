//! Requests and responses of the kinds that a Rust Worker has: `worker`'s, the platform's own, and with the feature `http` those
//! of the crate `http`.

use worker::web_sys;

use crate::{
    http::{Body, Request, Response},
    platform::{RequestHeaders, write_response},
};

/// A request of which a session can be loaded. Its body stays the handler's.
pub trait RequestHead {
    /// Its method, its URL and its headers.
    fn head(&self) -> Request<'static>;
}

/// A response that can carry a session's cookies and fields.
pub trait ResponseHead: Sized {
    /// A response of ours as one of this kind. Errors: the platform refuses it.
    fn from_response(response: &Response) -> worker::Result<Self>;

    /// The value of a header, if there is one; several of one name are joined by `, `.
    fn header(&self, name: &str) -> worker::Result<Option<String>>;

    /// The same response with one header more, beside others of that name.
    fn append_header(self, name: &str, value: &str) -> worker::Result<Self>;

    /// The same response with this header in the place of others of that name.
    fn set_header(self, name: &str, value: &str) -> worker::Result<Self>;
}

impl RequestHead for web_sys::Request {
    fn head(&self) -> Request<'static> {
        Request::new(&self.method(), self.url(), RequestHeaders::new(self), Body::None)
    }
}

impl RequestHead for worker::Request {
    fn head(&self) -> Request<'static> {
        self.inner().head()
    }
}

impl ResponseHead for worker::Response {
    fn from_response(response: &Response) -> worker::Result<Self> {
        Ok(write_response(response)?.into())
    }

    fn header(&self, name: &str) -> worker::Result<Option<String>> {
        self.headers().get(name)
    }

    fn append_header(self, name: &str, value: &str) -> worker::Result<Self> {
        with_headers(self, |headers| headers.append(name, value))
    }

    fn set_header(self, name: &str, value: &str) -> worker::Result<Self> {
        with_headers(self, |headers| headers.set(name, value))
    }
}

/// Changes the headers. Those of a redirect and of what another server has answered cannot be changed: then a copy is.
fn with_headers(
    response: worker::Response,
    change: impl Fn(&worker::Headers) -> worker::Result<()>,
) -> worker::Result<worker::Response> {
    if change(response.headers()).is_ok() {
        return Ok(response);
    }
    let copy = worker::Headers::new();
    response.headers().entries().try_for_each(|(name, value)| copy.append(&name, &value))?;
    change(&copy)?;
    Ok(response.with_headers(copy))
}

impl ResponseHead for web_sys::Response {
    fn from_response(response: &Response) -> worker::Result<Self> {
        Ok(write_response(response)?)
    }

    fn header(&self, name: &str) -> worker::Result<Option<String>> {
        Ok(self.headers().get(name)?)
    }

    fn append_header(self, name: &str, value: &str) -> worker::Result<Self> {
        Ok(worker::Response::from(self).append_header(name, value)?.into())
    }

    fn set_header(self, name: &str, value: &str) -> worker::Result<Self> {
        Ok(worker::Response::from(self).set_header(name, value)?.into())
    }
}

#[cfg(feature = "http")]
mod http_types {
    use http::{HeaderMap, HeaderName, HeaderValue, Uri};

    use super::{Body, Request, RequestHead, Response, ResponseHead};
    use crate::http::Headers;

    impl Headers for HeaderMap {
        fn get(&self, name: &'static str) -> Option<String> {
            let mut values = self.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            let first = values.next()?.into_owned();
            Some(values.fold(first, |joined, value| joined + ", " + &value))
        }
    }

    fn head(method: &http::Method, uri: &Uri, headers: &HeaderMap) -> Request<'static> {
        Request::new(method.as_str(), uri.to_string(), headers.clone(), Body::None)
    }

    impl<B> RequestHead for http::Request<B> {
        fn head(&self) -> Request<'static> {
            head(self.method(), self.uri(), self.headers())
        }
    }

    impl RequestHead for http::request::Parts {
        fn head(&self) -> Request<'static> {
            head(&self.method, &self.uri, &self.headers)
        }
    }

    fn refused(_: impl std::error::Error) -> worker::Error {
        worker::Error::RustError("a header that cannot be sent".to_owned())
    }

    impl<B: From<String>> ResponseHead for http::Response<B> {
        fn from_response(response: &Response) -> worker::Result<Self> {
            let builder = http::Response::builder().status(response.status);
            let builder = response
                .headers
                .iter()
                .fold(builder, |builder, (name, value)| builder.header(*name, &**value));
            builder.body(response.body.clone().into()).map_err(refused)
        }

        fn header(&self, name: &str) -> worker::Result<Option<String>> {
            let values = self.headers().get_all(name).iter();
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            Ok((!values.is_empty()).then(|| values.join(", ")))
        }

        fn append_header(mut self, name: &str, value: &str) -> worker::Result<Self> {
            let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
            self.headers_mut().append(name.map_err(refused)?, value.map_err(refused)?);
            Ok(self)
        }

        fn set_header(mut self, name: &str, value: &str) -> worker::Result<Self> {
            let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
            self.headers_mut().insert(name.map_err(refused)?, value.map_err(refused)?);
            Ok(self)
        }
    }
}

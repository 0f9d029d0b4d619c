//! Bodies of HTTP answers: no more is read of one than an honest service would send.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
    },
    orchestrator::HttpRequest,
};
use aws_smithy_types::body::SdkBody;
use http_body::{Body, Frame};

/// What a body may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) bytes: usize,
    /// `<`: an element of 10 bytes can be a structure of 1,000 once it is parsed.
    pub(crate) elements: usize,
}

/// The body, which ends with an error once it has more than the limits.
pub(crate) fn bounded(body: SdkBody, limits: Limits) -> SdkBody {
    SdkBody::from_body_1_x(Bounded { body, limits, left: limits })
}

/// A client for plain HTTP with no answer beyond the limits.
pub(crate) fn plain_http(limits: Limits) -> SharedHttpClient {
    let http = Builder::new().build_http();
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Connector { inner: http.http_connector(settings, components), limits })
    })
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    limits: Limits,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, limits) = (self.inner.call(request), self.limits);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            let body = answer.take_body();
            *answer.body_mut() = bounded(body, limits);
            Ok(answer)
        })
    }
}

struct Bounded {
    body: SdkBody,
    limits: Limits,
    left: Limits,
}

impl Bounded {
    /// Counts some more of the body.
    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        let elements = bytes.iter().filter(|byte| **byte == b'<').count();
        let wrong = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
        let too_long = || wrong(format!("it has more than {} bytes", self.limits.bytes));
        self.left.bytes = self.left.bytes.checked_sub(bytes.len()).ok_or_else(too_long)?;
        let too_many = || wrong(format!("it has more than {} elements", self.limits.elements));
        self.left.elements = self.left.elements.checked_sub(elements).ok_or_else(too_many)?;
        Ok(())
    }
}

impl Body for Bounded {
    type Data = <SdkBody as Body>::Data;
    type Error = <SdkBody as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(error) = this.count(data)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        polled
    }
}

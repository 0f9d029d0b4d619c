//! A guard against partial answers that look complete, and against endless ones.

use aws_sdk_elasticache::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{
            AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
        },
    },
    error::BoxError,
};

use crate::bounded::{Limits, bounded};

/// Of 100 clusters, the most that one answer has, each with 40 nodes, it is about 3 MiB and 80,000 tags.
const LIMITS: Limits = Limits { bytes: 64 << 20, elements: 150_000 };

/// Refuses a successful answer whose XML is not closed, and any that is too long.
///
/// The SDK's parser takes the end of the text for the end of every open element, so a listing that was cut off would
/// pass for a shorter one, and its nodes for deleted.
#[derive(Debug)]
pub(crate) struct WholeAnswer;

impl Intercept for WholeAnswer {
    fn name(&self) -> &'static str {
        "WholeAnswer"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        let body = answer.take_body();
        *answer.body_mut() = bounded(body, LIMITS);
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default();
        match context.output_or_error().is_ok() && !is_closed(body) {
            true => Err("the XML breaks off".into()),
            false => Ok(()),
        }
    }
}

/// Whether the text ends with the end of its root, `</DescribeCacheClustersResponse>`.
fn is_closed(body: &[u8]) -> bool {
    let root_end = body.trim_ascii_end().strip_suffix(b"Response>");
    // Only a closing tag has its slash between the last `<` and the name.
    root_end.is_some_and(|before| {
        before.iter().rposition(|byte| *byte == b'<').is_some_and(|at| before.get(at + 1) == Some(&b'/'))
    })
}

#[cfg(test)]
mod tests {
    use super::is_closed;

    #[test]
    fn only_a_closed_root_is_whole() {
        assert!(is_closed(b"<DescribeCacheClustersResponse><a/></DescribeCacheClustersResponse>\n"));
        let cut =
            b"<DescribeCacheClustersResponse><DescribeCacheClustersResult></DescribeCacheClustersResult>";
        assert!((0..cut.len()).all(|end| !is_closed(&cut[..end])));
        assert!(!is_closed(b"<DescribeCacheClustersResponse>"));
        assert!(!is_closed(b""));
    }
}

//! The service's clock, by the `Date` of its answers (RFC 9110, 6.6.1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_sdk_elasticache::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::AfterDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};

/// By how much the two clocks differed when an answer came last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<Mutex<Option<i64>>>);

impl Clock {
    /// By how many seconds this host's clock is ahead; `None`: no answer has told the time.
    pub(crate) fn ahead(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let theirs = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(theirs) = theirs {
            let ours = DateTime::from(SystemTime::now()).secs();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ours - theirs.secs());
        }
        Ok(())
    }
}

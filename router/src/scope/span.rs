//! The span of a scope: what a reader of logs and traces sees of it.

use std::time::Instant;

use tracing::field::{Empty, display};
use tracing::span::EnteredSpan;

use super::open::{Opened, Target};
use super::options::Options;
use crate::site::Site;
use crate::telemetry::{self, TARGET};

/// The span of a scope that is running; it ends with the scope. Costs next to nothing where nobody listens.
pub(super) struct ScopeSpan(Option<(EnteredSpan, Instant)>);

impl ScopeSpan {
    #[inline]
    pub(super) fn enter(site: Site, targets: &[Target], options: &Options) -> Self {
        Self(telemetry::spans_are_seen().then(|| (span(site, targets, options).entered(), Instant::now())))
    }

    /// The scope is open: on these databases.
    #[inline]
    pub(super) fn opened(&self, opened: &Opened) {
        if self.0.is_some() {
            self.tell_databases(opened);
        }
    }

    #[cold]
    fn tell_databases(&self, opened: &Opened) {
        let Some((span, _)) = &self.0 else { return };
        let mut aliases: Vec<&str> = opened.indices.iter().map(|at| opened.databases.at(at).alias().as_str()).collect();
        aliases.dedup();
        span.record("alias", aliases.join(","));
        if !opened.in_transaction {
            span.record("outcome", "autocommit");
        }
    }

    pub(super) fn attempt(&self, attempt: u32) {
        if let Some((span, _)) = &self.0 {
            span.record("attempt", attempt);
        }
    }

    pub(super) fn refused(&self) {
        if let Some((span, _)) = &self.0 {
            span.record("outcome", "refused");
        }
    }
}

impl Drop for ScopeSpan {
    fn drop(&mut self) {
        if let Some((span, begin)) = &self.0 {
            span.record("duration_us", u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
}

#[cold]
fn span(site: Site, targets: &[Target], options: &Options) -> tracing::Span {
    let span = tracing::info_span!(
        target: TARGET,
        "transaction",
        function = site.function(),
        label = Empty,
        app = Empty,
        model = Empty,
        alias = Empty,
        propagation = options.propagation.word(),
        isolation = Empty,
        attempt = 1,
        outcome = Empty,
        duration_us = Empty,
    );
    if let Some(label) = options.label {
        span.record("label", label);
    }
    if let Some(isolation) = options.terms.characteristics.isolation {
        span.record("isolation", isolation.word());
    }
    if let Some(app) = targets.first().and_then(Target::app_name) {
        span.record("app", app);
    }
    let models: Vec<&str> = targets.iter().filter_map(Target::model_name).collect();
    if !models.is_empty() {
        span.record("model", display(models.join(",")));
    }
    span
}

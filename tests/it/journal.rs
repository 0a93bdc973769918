//! Writes down the spans and events of a thread.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// The fields of a span or of an event, by name.
pub(crate) type Fields = BTreeMap<&'static str, String>;

/// What was seen. A clone shows the same.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    spans: Vec<Fields>,
    events: Vec<(String, Fields)>,
}

impl Journal {
    /// Runs `body` with this journal as the thread's subscriber.
    pub(crate) fn watch<T>(&self, body: impl FnOnce() -> T) -> T {
        // While it knows of one subscriber alone, tracing asks that of the thread that comes by an event first, and where
        // that thread has none, nobody is told of the event any more.
        static ANOTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(Registry::default()));
        LazyLock::force(&ANOTHER);
        tracing::subscriber::with_default(Registry::default().with(self.clone()), body)
    }

    /// The spans that were closed, in that order.
    pub(crate) fn spans(&self) -> Vec<Fields> {
        std::mem::take(&mut self.0.lock().unwrap().spans)
    }

    /// The texts of the events of the library, in their order, with their other fields.
    pub(crate) fn events(&self) -> Vec<(String, Fields)> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Reader::default();
        attributes.record(&mut fields);
        fields.0.insert("span", attributes.metadata().name().to_owned());
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        // Who listens may ask the library.
        multidb::scope::depth();
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Reader>().unwrap());
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "multidb" {
            multidb::scope::depth();
            let mut fields = Reader::default();
            event.record(&mut fields);
            fields.0.insert("level", event.metadata().level().to_string());
            let text = fields.0.remove("message").unwrap_or_default();
            self.0.lock().unwrap().events.push((text, fields.0));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(fields) = context.span(&id).unwrap().extensions_mut().remove::<Reader>() {
            self.0.lock().unwrap().spans.push(fields.0);
        }
    }
}

#[derive(Default)]
struct Reader(Fields);

impl Visit for Reader {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

//! Log lines: text for people, JSON for machines. Builds a subscriber; only the binary installs it for the process.

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogConfig, LogFormat};

/// Libraries that say too much below `warn`. An operator's own filter for them wins, because it is added later. Consensus
/// warns of every message to a peer that is away, per group; that a peer is away is said once, by its change of state.
/// Its handle calls a stop that was asked for an error.
const QUIET: &str = "quinn=warn,quinn_proto=warn,openraft=error,openraft::raft::raft_inner=off,rustls=warn,hyper=warn,h2=warn,sled=warn,fjall=warn,lsm_tree=warn";

/// A subscriber that writes to `writer`. A filter that does not parse counts as `info`; [`crate::config`] refuses it
/// before.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match config.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    Registry::default().with(filter).with(layer)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let config = LogConfig { format, level: level.into() };
        tracing::subscriber::with_default(subscriber(&config, move || writer.clone()), events);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_fields_and_the_request_id_of_their_span() {
        let line = logged(LogFormat::Json, "info", || {
            let request = tracing::info_span!("request", request_id = "00ab");
            request.in_scope(|| tracing::info!(status = 200, "served"));
        });
        let value: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
        assert_eq!(value["message"], "served");
        assert_eq!(value["status"], 200);
        assert_eq!(value["span"]["request_id"], "00ab");
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn libraries_are_quiet_unless_the_operator_asks() {
        let events = || {
            tracing::info!(target: "quinn", "from quinn");
            tracing::info!(target: "openraft::core", "from openraft");
            tracing::info!(target: "drystone_node", "ours");
            tracing::debug!(target: "drystone_node", "too fine");
        };
        let text = logged(LogFormat::Text, "info", events);
        assert!(text.contains("ours") && !text.contains("from") && !text.contains("too fine"), "{text}");
        let text = logged(LogFormat::Text, "info,quinn=info", events);
        assert!(text.contains("from quinn") && !text.contains("from openraft"), "{text}");
    }
}

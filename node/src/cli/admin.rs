//! Calls of the admin API.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use serde::de::DeserializeOwned;

use super::CliError;
use super::connect::ConnectArgs;
use crate::bench::client::{Call, ClientError, Payload, S3Client};
use crate::config::Environment;

/// Asks the first endpoint that can be reached, so that one dead node does not matter. Only a failure to connect makes
/// it ask the next one: beyond that a request may have taken effect.
pub(super) fn ask(
    connect: &ConnectArgs,
    environment: &Environment,
    method: &Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Bytes, CliError> {
    let clients = connect.clients(environment)?;
    super::runtime()?.block_on(async {
        let mut last = None;
        for client in &clients {
            match ask_one(client, method, path, body).await {
                Err(CliError::Client(error @ ClientError::Connect { .. })) => last = Some(error),
                answered => return answered,
            }
        }
        Err(last.map_or(CliError::NotReady { reason: "no endpoint is given".into() }, CliError::Client))
    })
}

async fn ask_one(
    client: &S3Client,
    method: &Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Bytes, CliError> {
    let mut call = Call::new(method.clone(), path);
    if let Some(body) = body {
        call = call
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Payload::bytes(body.to_string()));
    }
    let mut answer = client.send(call).await?;
    let body = answer.bytes().await?;
    if answer.status.is_success() {
        return Ok(body);
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let field = |name: &str| said.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    Err(CliError::Admin {
        endpoint: client.endpoint().to_string(),
        status: answer.status.as_u16(),
        code: field("code"),
        message: field("message"),
    })
}

/// Reads an answer.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], wanted: &'static str) -> Result<T, CliError> {
    serde_json::from_slice(body).map_err(|_| CliError::Answer { endpoint: "the node".into(), wanted })
}

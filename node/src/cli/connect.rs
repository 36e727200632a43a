//! Options and variables that say which S3 service to talk to, and as whom.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use secrecy::SecretString;

use super::CliError;
use crate::bench::client::{ClientOptions, Credentials, Endpoint, Hashing, S3Client};
use crate::config::Environment;

/// Which service, and as whom.
#[derive(Debug, Args, Default)]
pub(super) struct ConnectArgs {
    /// `http://HOST:PORT`; may be given several times. Default: $S3_ENDPOINTS (separated by spaces), then
    /// $AWS_ENDPOINT_URL.
    #[arg(long = "endpoint", value_name = "URL")]
    pub(super) endpoints: Vec<Endpoint>,
    /// Access key that signs. Default: $AWS_ACCESS_KEY_ID.
    #[arg(long, value_name = "KEY")]
    pub(super) access_key: Option<String>,
    /// File with the secret of that key. Default: $AWS_SECRET_ACCESS_KEY.
    #[arg(long, value_name = "FILE")]
    pub(super) secret_key_file: Option<PathBuf>,
    /// Region to sign for. Default: $AWS_DEFAULT_REGION, then us-east-1.
    #[arg(long)]
    pub(super) region: Option<String>,
}

impl ConnectArgs {
    /// The endpoints, at least one.
    pub(super) fn endpoints(&self, environment: &Environment) -> Result<Vec<Endpoint>, CliError> {
        if !self.endpoints.is_empty() {
            return Ok(self.endpoints.clone());
        }
        let text = environment.get("S3_ENDPOINTS").or_else(|| environment.get("AWS_ENDPOINT_URL")).unwrap_or_default();
        let endpoints = text.split_whitespace().map(str::parse).collect::<Result<Vec<Endpoint>, _>>()?;
        if endpoints.is_empty() {
            let reason = "give http://HOST:PORT, or source the cluster.env of the cluster".to_owned();
            return Err(CliError::Argument { argument: "--endpoint", reason });
        }
        Ok(endpoints)
    }

    /// The credentials; required.
    pub(super) fn credentials(&self, environment: &Environment) -> Result<Credentials, CliError> {
        let missing = |argument, variable| CliError::Argument {
            argument,
            reason: format!("give it, set {variable}, or source the cluster.env of the cluster"),
        };
        let access_key = self.access_key.clone().or_else(|| environment.get("AWS_ACCESS_KEY_ID").map(str::to_owned));
        let secret_key = match &self.secret_key_file {
            Some(path) => read_secret(path)?,
            None => environment
                .get("AWS_SECRET_ACCESS_KEY")
                .map(SecretString::from)
                .ok_or_else(|| missing("--secret-key-file", "AWS_SECRET_ACCESS_KEY"))?,
        };
        let region = self.region.clone().or_else(|| environment.get("AWS_DEFAULT_REGION").map(str::to_owned));
        Ok(Credentials {
            access_key: access_key.ok_or_else(|| missing("--access-key", "AWS_ACCESS_KEY_ID"))?,
            secret_key,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        })
    }

    /// A signing client for each endpoint.
    pub(super) fn clients(&self, environment: &Environment) -> Result<Vec<S3Client>, CliError> {
        let credentials = self.credentials(environment)?;
        let options = ClientOptions { stall: Duration::from_secs(10), hashing: Hashing::Signed };
        let client = |endpoint| S3Client::new(endpoint, Some(credentials.clone()), SystemTime::now, options);
        Ok(self.endpoints(environment)?.into_iter().map(client).collect())
    }
}

/// Reads a secret from a file; white space around it does not belong to it.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_path_buf(), source })?;
    let text = zeroize::Zeroizing::new(text);
    if text.trim().is_empty() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "the file holds no secret");
        return Err(CliError::File { path: path.to_path_buf(), source });
    }
    Ok(SecretString::from(text.trim()))
}

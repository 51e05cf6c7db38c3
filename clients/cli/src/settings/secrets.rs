//! Secrets from files: they replace secrets that are given as text, so that none has to appear in a
//! command line or an environment.

use std::path::{Path, PathBuf};

use super::{Cli, Command};

/// The largest secret file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot read the secret in {path}: {problem}")]
pub(crate) struct SecretError {
    setting: &'static str,
    path: String,
    problem: String,
}

/// Reads all secret files that the settings name.
pub(super) fn read(cli: &mut Cli) -> Result<(), SecretError> {
    const JWT: &str = "jwt-secret-file";
    match &mut cli.command {
        Command::Dev(args) => {
            fill(JWT, &mut args.common.tokens.jwt_secret, &args.common.tokens.jwt_secret_file)
        }
        Command::Server(args) => {
            fill(JWT, &mut args.common.tokens.jwt_secret, &args.common.tokens.jwt_secret_file)
        }
        Command::Check(args) => {
            fill(JWT, &mut args.common.tokens.jwt_secret, &args.common.tokens.jwt_secret_file)
        }
        Command::Bridge(args) => {
            fill(JWT, &mut args.common.tokens.jwt_secret, &args.common.tokens.jwt_secret_file)?;
            fill("bridge-token-file", &mut args.bridge_token, &args.bridge_token_file)
        }
        Command::Notify(args) => {
            fill(JWT, &mut args.client.jwt_secret, &args.client.jwt_secret_file)?;
            fill("token-file", &mut args.client.token, &args.client.token_file)
        }
        Command::Subscribe(args) => {
            fill(JWT, &mut args.client.jwt_secret, &args.client.jwt_secret_file)?;
            fill("token-file", &mut args.client.token, &args.client.token_file)?;
            let database = &mut args.database;
            fill("postgres-password-file", &mut database.postgres_password, &database.postgres_password_file)
        }
        Command::Relay(args) => {
            fill(JWT, &mut args.client.jwt_secret, &args.client.jwt_secret_file)?;
            fill("token-file", &mut args.client.token, &args.client.token_file)?;
            let database = &mut args.database;
            fill("postgres-password-file", &mut database.postgres_password, &database.postgres_password_file)
        }
        Command::Token(args) => fill(JWT, &mut args.jwt_secret, &args.jwt_secret_file),
        Command::Types(_) | Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}

fn fill(
    setting: &'static str,
    secret: &mut Option<String>,
    file: &Option<PathBuf>,
) -> Result<(), SecretError> {
    if let Some(path) = file {
        *secret = Some(load(setting, path)?);
    }
    Ok(())
}

fn load(setting: &'static str, path: &Path) -> Result<String, SecretError> {
    let failed = |problem: String| SecretError { setting, path: path.display().to_string(), problem };
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!("it has {size} bytes; the limit is {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    // Editors add a line break at the end.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

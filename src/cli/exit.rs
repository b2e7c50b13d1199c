//! How a command ends: an exit status from `sysexits.h`, and a message that says what, where, and what would be right.

use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit statuses; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// The command line is wrong; clap ends with the same number.
    Usage = 2,
    /// The server cannot be reached, or says that it is busy.
    Unavailable = 69,
    /// The server does not accept the token, or its role is not enough.
    NotAllowed = 77,
    /// The settings are wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked. An empty message means that everything was said already.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let places = error.0.join("\n  ");
        Self::new(Exit::Config, format!("the settings are wrong:\n  {places}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ConfigError>() {
            Ok(config) => config.into(),
            Err(other) => Self::failed(format!("{other:#}")),
        }
    }
}

//! A secret in the settings: given as it is, or as the file that holds it.

use std::cell::Cell;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Never printed, never serialised. In YAML either `token: "…"` or `token: {file: /run/secrets/token}`; in the environment
/// `AIOPS_…_TOKEN` or `AIOPS_…_TOKEN_FILE`.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

thread_local! {
    static LEFT_UNREAD: Cell<bool> = const { Cell::new(false) };
}

/// What stands for a secret whose file was left unread.
const UNREAD: &str = "(unread)";

impl Secret {
    /// Runs `load` with the files of secrets left unread: something else stands for each.
    pub(super) fn unread<T>(load: impl FnOnce() -> T) -> T {
        LEFT_UNREAD.set(true);
        let loaded = load();
        LEFT_UNREAD.set(false);
        loaded
    }
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }
    /// The text itself; call it only where it leaves for the one place that it is for.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
    /// Compares without telling by the time taken how much matched.
    pub fn matches(&self, given: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        !self.is_empty() && bool::from(self.expose().as_bytes().ct_eq(given))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "(unset)" } else { "(secret)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a string, or {file: PATH}")]
        enum Given {
            Text(String),
            File(File),
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            file: std::path::PathBuf,
        }
        match Given::deserialize(d)? {
            Given::Text(text) => Ok(Self::new(text)),
            Given::File(_) if LEFT_UNREAD.get() => Ok(Self::new(UNREAD)),
            Given::File(File { file }) => {
                let text = std::fs::read_to_string(&file).map_err(|e| {
                    D::Error::custom(format!("reading the secret in {}: {e}", file.display()))
                })?;
                Ok(Self::new(text.trim_end_matches(['\r', '\n'])))
            }
        }
    }
}

//! `~/.sprites/sprites.json`: servers, organisations, tokens, and which of them is in use.
//!
//! Form (source: behaviour reference §3; `api_token` is where a token is when no keyring holds it):
//! ```json
//! {"version":"1","current_selection":{"url":"http://h","org":"personal"},
//!  "urls":{"http://h":{"url":"http://h","orgs":{"personal":
//!    {"name":"personal","api_token":"…","use_keyring":false,"sprites":{}}}}}}
//! ```
//! Other programs write this file too: keys that this one does not know are kept. The file is 0600, its directory
//! 0700, and changes are made under a lock, whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use sprite_client::ServerUrl;

use super::{ConfigError, durable};

/// Largest file that is read.
const SIZE_LIMIT: u64 = 4 << 20;

/// One organisation of one server that the file knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// The server as the file names it.
    pub(crate) url: String,
    pub(crate) org: String,
    /// Whether a token is in the file; another program may have put it into a keyring.
    pub(crate) has_token: bool,
    /// Whether it is the one in use.
    pub(crate) current: bool,
}

/// The file's content.
#[derive(Debug, Clone)]
pub(crate) struct SpritesFile {
    json: Map<String, Value>,
}

impl SpritesFile {
    /// Where the file is.
    pub(crate) fn path(home: Option<&Path>) -> Result<PathBuf, ConfigError> {
        Ok(home
            .ok_or(ConfigError::NoHome)?
            .join(".sprites")
            .join("sprites.json"))
    }

    /// Reads the file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let form = |reason: String| ConfigError::Form {
            path: path.to_owned(),
            reason,
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty()),
            Err(source) => return Err(read(source)),
            Ok(metadata) if metadata.len() > SIZE_LIMIT => {
                return Err(form("it is too large".to_owned()));
            }
            Ok(_) => {}
        }
        let text = fs::read(path).map_err(read)?;
        let json: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| form(error.to_string()))?;
        match json.get("version") {
            None => {}
            Some(Value::String(version)) if version == "1" => {}
            Some(other) => {
                return Err(ConfigError::Version {
                    path: path.to_owned(),
                    found: other.to_string(),
                });
            }
        }
        Ok(Self { json })
    }

    /// A file in which nothing is.
    pub(crate) fn empty() -> Self {
        Self {
            json: Map::from_iter([("version".to_owned(), "1".into())]),
        }
    }

    /// Changes the file under its lock.
    ///
    /// # Crash safety
    /// A crash leaves the file as it was or as it shall be.
    pub(crate) fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, ConfigError> {
        let write = |source: io::Error| ConfigError::Write {
            path: path.to_owned(),
            source,
        };
        let dir = path
            .parent()
            .ok_or_else(|| write(io::ErrorKind::InvalidInput.into()))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(write)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(write)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // The lock has a file of its own: `sprites.json` is replaced, not written.
        let lock = options
            .open(dir.join(".sprites.json.lock"))
            .map_err(write)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| write(error.into()))?;
        let mut file = Self::read(path)?;
        let outcome = change(&mut file);
        file.json.entry("version").or_insert_with(|| "1".into());
        let mut text = serde_json::to_vec_pretty(&file.json).expect("JSON is always writable");
        text.push(b'\n');
        durable::replace(path, &text, 0o600).map_err(write)?;
        Ok(outcome)
    }

    /// The server and organisation in use. The server's text is as in the file.
    pub(crate) fn selection(&self) -> (Option<&str>, Option<&str>) {
        let selection = self.json.get("current_selection");
        let text = |key: &str| {
            let value = selection
                .and_then(|selection| selection.get(key))
                .and_then(Value::as_str);
            value.filter(|text| !text.is_empty())
        };
        (text("url"), text("org"))
    }

    /// Puts a server and organisation into use.
    pub(crate) fn select(&mut self, server: &ServerUrl, org: &str) {
        let url = self.key_of(server);
        let selection = object(&mut self.json, "current_selection");
        selection.insert("url".to_owned(), url.into());
        selection.insert("org".to_owned(), org.into());
    }

    /// The organisations of a server with what is stored about each.
    fn orgs(&self, server: &ServerUrl) -> Option<&Map<String, Value>> {
        let urls = self.json.get("urls")?.as_object()?;
        urls.get(&self.key_of(server))?.get("orgs")?.as_object()
    }

    /// The names of a server's organisations.
    pub(crate) fn org_names(&self, server: &ServerUrl) -> Vec<&str> {
        self.orgs(server)
            .map(|orgs| orgs.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// The token that was stored for exactly this server and organisation.
    pub(crate) fn token(&self, server: &ServerUrl, org: &str) -> Option<&str> {
        let token = self.orgs(server)?.get(org)?.get("api_token")?.as_str()?;
        Some(token).filter(|token| !token.is_empty())
    }

    /// Whether another program keeps the token in a keyring, which this one does not read.
    pub(crate) fn is_in_keyring(&self, server: &ServerUrl, org: &str) -> bool {
        let entry = self.orgs(server).and_then(|orgs| orgs.get(org));
        entry
            .and_then(|entry| entry.get("use_keyring"))
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// Everything that the file knows.
    pub(crate) fn logins(&self) -> Vec<Login> {
        let (current_url, current_org) = self.selection();
        let mut logins = Vec::new();
        let urls = self.json.get("urls").and_then(Value::as_object);
        for (url, entry) in urls.into_iter().flatten() {
            let orgs = entry.get("orgs").and_then(Value::as_object);
            for (org, entry) in orgs.into_iter().flatten() {
                let token = entry
                    .get("api_token")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                logins.push(Login {
                    url: url.clone(),
                    org: org.clone(),
                    has_token: !token.is_empty(),
                    current: current_url == Some(url) && current_org == Some(org),
                });
            }
        }
        logins
    }

    /// Stores a token for a server and organisation.
    pub(crate) fn store(&mut self, server: &ServerUrl, org: &str, token: &str) {
        let url = self.key_of(server);
        let entry = object(object(&mut self.json, "urls"), &url);
        entry.entry("url").or_insert_with(|| url.clone().into());
        let login = object(object(entry, "orgs"), org);
        login.insert("name".to_owned(), org.into());
        login.insert("api_token".to_owned(), token.into());
        login.insert("use_keyring".to_owned(), false.into());
        login.entry("sprites").or_insert_with(|| json!({}));
    }

    /// Forgets one organisation of a server, or all of them. Returns which were forgotten.
    pub(crate) fn forget(&mut self, server: &ServerUrl, org: Option<&str>) -> Vec<String> {
        let url = self.key_of(server);
        let urls = object(&mut self.json, "urls");
        let Some(orgs) = urls
            .get_mut(&url)
            .and_then(|entry| entry.get_mut("orgs")?.as_object_mut())
        else {
            return Vec::new();
        };
        let going = |name: &str| org.is_none_or(|org| org == name);
        let forgotten: Vec<String> = orgs.keys().filter(|name| going(name)).cloned().collect();
        orgs.retain(|name, _| !going(name));
        if orgs.is_empty() {
            urls.remove(&url);
        }
        let (selected_url, selected_org) = self.selection();
        let selected = selected_org.is_some_and(|org| forgotten.iter().any(|name| name == org));
        if selected && selected_url == Some(url.as_str()) {
            self.json.remove("current_selection");
        }
        forgotten
    }

    /// The text under which the file knows a server: it may be spelled otherwise than by us.
    fn key_of(&self, server: &ServerUrl) -> String {
        let urls = self.json.get("urls").and_then(Value::as_object);
        let known = urls.into_iter().flatten().map(|(url, _)| url);
        let mut same =
            known.filter(|url| url.parse().is_ok_and(|parsed: ServerUrl| parsed == *server));
        same.next().cloned().unwrap_or_else(|| server.to_string())
    }
}

/// The object under a key, made if it is not there or is something else.
fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object just now")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().expect("an address")
    }

    fn file(json: Value) -> SpritesFile {
        let Value::Object(json) = json else {
            panic!("an object")
        };
        SpritesFile { json }
    }

    #[test]
    fn a_token_is_found_for_its_own_server_and_organisation_only() {
        let mut file = SpritesFile::empty();
        file.store(&url("http://h:7774"), "a", "secret");
        assert_eq!(file.token(&url("http://H:7774/"), "a"), Some("secret"));
        for other in [
            "https://h:7774",
            "http://h:7775",
            "http://h",
            "http://h.evil:7774",
            "http://h:7774/x",
        ] {
            assert_eq!(file.token(&url(other), "a"), None, "{other}");
        }
        assert_eq!(file.token(&url("http://h:7774"), "b"), None);
    }

    #[test]
    fn keys_of_other_programs_are_kept() {
        let mut file = file(json!({
            "version": "1", "theirs": 1,
            "urls": {"https://H:443/": {"alias": "prod", "orgs": {"a": {"keyring_key": "k", "use_keyring": true}}}},
        }));
        let server = url("https://h");
        assert!(file.is_in_keyring(&server, "a"));
        file.store(&server, "a", "secret");
        file.select(&server, "a");
        let text = Value::Object(file.json.clone());
        assert_eq!(text["theirs"], 1);
        let entry = &text["urls"]["https://H:443/"];
        assert_eq!(
            (&entry["alias"], &entry["orgs"]["a"]["keyring_key"]),
            (&"prod".into(), &"k".into())
        );
        assert_eq!(entry["orgs"]["a"]["use_keyring"], false);
        assert_eq!(text["urls"].as_object().expect("an object").len(), 1);
        assert!(file.logins()[0].current);
    }

    #[test]
    fn forgetting_takes_the_selection_along() {
        let mut file = SpritesFile::empty();
        let server = url("http://h");
        file.store(&server, "a", "1");
        file.store(&server, "b", "2");
        file.select(&server, "a");
        assert_eq!(file.forget(&server, Some("b")), ["b"]);
        assert_eq!(file.selection(), (Some("http://h"), Some("a")));
        assert_eq!(file.forget(&server, None), ["a"]);
        assert_eq!(file.selection(), (None, None));
        assert!(file.logins().is_empty());
        assert!(file.forget(&server, None).is_empty());
    }
}

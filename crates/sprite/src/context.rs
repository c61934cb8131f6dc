//! Which server, organisation, token and sprite a command works with.
//!
//! | what | from, first hit wins |
//! |---|---|
//! | server | `SPRITE_URL`, `SPRITES_API_URL`, the login in use, `http://127.0.0.1:7774` |
//! | organisation | `-o`, `SPRITE_ORG`, `.sprite`, the login in use, the server's only login |
//! | token | `SPRITE_TOKEN`, the one stored for exactly this server and organisation |
//! | sprite | `-s` or the argument, `.sprite` |

use std::env;
use std::path::{Path, PathBuf};

use sprite_client::{Client, ServerUrl, Sprite};

use crate::config::{ConfigError, Project, SpritesFile};
use crate::failure::{self, Failure};

/// The server when nothing names one: the one on this computer.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7774";

/// Flags that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Global {
    /// Organisation to act for
    #[arg(
        short,
        long,
        global = true,
        value_name = "ORG",
        help_heading = "Global options"
    )]
    pub(crate) org: Option<String>,
    /// Sprite to work with, instead of the one of this directory (`sprite use`)
    #[arg(
        short,
        long,
        global = true,
        value_name = "SPRITE",
        help_heading = "Global options"
    )]
    pub(crate) sprite: Option<String>,
    /// Print JSON on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// What the environment of the process says. Read once, so that everything below can be tested without it.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) home: Option<PathBuf>,
    dir: Option<PathBuf>,
    url: Option<(&'static str, String)>,
    token: Option<String>,
    org: Option<String>,
}

impl Surroundings {
    pub(crate) fn read() -> Self {
        let url = ["SPRITE_URL", "SPRITES_API_URL"]
            .into_iter()
            .find_map(|name| variable(name).map(|value| (name, value)));
        Self {
            home: env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
            // A directory that was removed under us has no sprite of its own; the rest works all the same.
            dir: env::current_dir().ok(),
            url,
            token: variable("SPRITE_TOKEN"),
            org: variable("SPRITE_ORG"),
        }
    }

    /// The directory that the command runs in.
    pub(crate) fn dir(&self) -> Result<&Path, Failure> {
        let dir = self.dir.as_deref();
        dir.ok_or_else(|| Failure::new("the directory that this runs in cannot be found"))
    }

    /// What the directory has chosen.
    fn project(&self) -> Result<Option<Project>, ConfigError> {
        self.dir.as_deref().map_or(Ok(None), Project::find)
    }

    /// Where logins are kept.
    pub(crate) fn logins_path(&self) -> Result<PathBuf, ConfigError> {
        SpritesFile::path(self.home.as_deref())
    }

    /// The logins; none where there is no home for them.
    pub(crate) fn logins(&self) -> Result<SpritesFile, Failure> {
        match self.logins_path() {
            Ok(path) => Ok(SpritesFile::read(&path)?),
            Err(_) => Ok(SpritesFile::empty()),
        }
    }

    /// The server that a command talks to.
    pub(crate) fn server(&self, file: &SpritesFile) -> Result<ServerUrl, Failure> {
        let (place, text) = match (&self.url, file.selection().0) {
            (Some((name, value)), _) => (*name, value.as_str()),
            (None, Some(url)) => ("current_selection in sprites.json", url),
            (None, None) => ("default", DEFAULT_SERVER),
        };
        text.parse()
            .map_err(|error| Failure::caused(format!("{place} is not usable"), &error))
    }
}

/// A variable of the environment; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self::caused("the configuration", &error);
        match error {
            ConfigError::NoHome => failure.hint("set HOME, or SPRITE_TOKEN to do without"),
            ConfigError::Form { .. } => {
                failure.hint("correct or remove that file; nothing was changed")
            }
            ConfigError::Version { .. } => {
                failure.hint("a newer program wrote it; nothing was changed")
            }
            ConfigError::Read { .. } | ConfigError::Write { .. } => failure,
        }
    }
}

/// Everything a command needs to talk to its server.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) server: ServerUrl,
    pub(crate) org: String,
    client: Client,
    surroundings: Surroundings,
    project: Option<Project>,
}

impl Context {
    /// Finds the server, the organisation and its token. Nothing is sent.
    pub(crate) fn open(global: Global) -> Result<Self, Failure> {
        let surroundings = Surroundings::read();
        let file = surroundings.logins()?;
        let project = surroundings.project()?;
        let server = surroundings.server(&file)?;
        let wanted = global.org.clone().or_else(|| surroundings.org.clone());
        let (org, token) = match &surroundings.token {
            Some(token) => (org_of_token(token, wanted.as_deref())?, token.clone()),
            None => {
                let named = wanted.is_some();
                let org = choose_org(&file, &server, wanted, project.as_ref())?;
                let of_project = project.as_ref().and_then(Project::organization);
                match file.token(&server, &org).map(str::to_owned) {
                    Some(token) => (org, token),
                    None if !named && of_project == Some(&org) => {
                        return Err(Failure::new(format!(
                            "the file .sprite names the organisation {org}, and there is no token for it and {server}"
                        ))
                        .hint("log in to it, name another one with -o, or choose a sprite anew: sprite use NAME -o ORG"));
                    }
                    None => return Err(not_logged_in(&file, &server, Some(&org))),
                }
            }
        };
        let client = client(&server, &token)?;
        Ok(Self {
            global,
            server,
            org,
            client,
            surroundings,
            project,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn dir(&self) -> Result<&Path, Failure> {
        self.surroundings.dir()
    }

    /// The sprite to work with: the command's own argument, `-s`, or the directory's.
    pub(crate) fn sprite(&self, argument: Option<&str>) -> Result<Sprite, Failure> {
        if let (Some(argument), Some(flag)) = (argument, self.global.sprite.as_deref())
            && argument != flag
        {
            return Err(Failure::usage(format!(
                "two sprites are named: {argument} and {flag}"
            )));
        }
        let explicit = argument.or(self.global.sprite.as_deref());
        let chosen = explicit.or_else(|| self.project.as_ref().and_then(Project::sprite));
        let name = chosen.ok_or_else(|| {
            Failure::usage("no sprite is named")
                .hint("name one with -s, or choose one for this directory: sprite use NAME")
        })?;
        Ok(self.client.sprite(name))
    }

    /// Puts an error of a call into words.
    pub(crate) fn failure(&self, error: &sprite_client::Error) -> Failure {
        failure::api(error, &self.server)
    }

    /// Puts an error of a running command into words.
    pub(crate) fn exec_failure(
        &self,
        error: &sprite_client::ExecError,
        sprite: &Sprite,
    ) -> Failure {
        failure::exec(error, &self.server, sprite.name())
    }
}

/// A client of this CLI.
pub(crate) fn client(server: &ServerUrl, token: &str) -> Result<Client, Failure> {
    Client::builder()
        .user_agent(concat!("sprite/", env!("CARGO_PKG_VERSION")))
        .build_for(server.clone(), token)
        .map_err(|error| Failure::caused("the token is not usable", &error))
}

/// The organisation that a token names (`org/org-id/token-id/value`), if it has that form.
pub(crate) fn org_in_token(token: &str) -> Option<&str> {
    let mut parts = token.split('/');
    let org = parts.next().filter(|org| !org.is_empty())?;
    (parts.count() == 3).then_some(org)
}

fn org_of_token(token: &str, wanted: Option<&str>) -> Result<String, Failure> {
    match (org_in_token(token), wanted) {
        (Some(org), Some(wanted)) if org != wanted => Err(Failure::usage(format!(
            "SPRITE_TOKEN is of the organisation {org}, not of {wanted}"
        ))
        .hint("unset SPRITE_TOKEN to use the stored logins")),
        (Some(org), _) => Ok(org.to_owned()),
        (None, wanted) => Ok(wanted.unwrap_or("personal").to_owned()),
    }
}

fn choose_org(
    file: &SpritesFile,
    server: &ServerUrl,
    wanted: Option<String>,
    project: Option<&Project>,
) -> Result<String, Failure> {
    let (selected_url, selected_org) = file.selection();
    let same = |url: &str| url.parse().is_ok_and(|url: ServerUrl| url == *server);
    let selected = selected_org
        .filter(|_| selected_url.is_some_and(same))
        .map(str::to_owned);
    let of_project = project.and_then(Project::organization).map(str::to_owned);
    if let Some(org) = wanted.or(of_project).or(selected) {
        return Ok(org);
    }
    match file.org_names(server).as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(not_logged_in(file, server, None)),
        several => Err(Failure::usage(format!(
            "{server} has several logins: {}",
            several.join(", ")
        ))
        .hint("name one with -o, or choose one: sprite org use ORG")),
    }
}

fn not_logged_in(file: &SpritesFile, server: &ServerUrl, org: Option<&str>) -> Failure {
    let org_text = org
        .map(|org| format!(" for the organisation {org}"))
        .unwrap_or_default();
    let failure = Failure::new(format!("there is no token for {server}{org_text}"));
    let setup = format!(
        "sprited token create --org {} | sprite auth setup --url {server} --token -",
        org.unwrap_or("personal")
    );
    if org.is_some_and(|org| file.is_in_keyring(server, org)) {
        return failure.hint(format!(
            "it is in a keyring, which this program does not read; log in: {setup}"
        ));
    }
    let logins = file.logins();
    let elsewhere: Vec<_> = logins
        .iter()
        .map(|login| format!("{} ({})", login.url, login.org))
        .collect();
    if elsewhere.is_empty() {
        failure.hint(format!("log in: {setup}"))
    } else {
        failure.hint(format!(
            "log in: {setup}\n      there are logins for: {}",
            elsewhere.join(", ")
        ))
    }
}

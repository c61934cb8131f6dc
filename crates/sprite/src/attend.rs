//! What goes on beside a command that is attached: its ports become ports here, and what it wants opened is opened.

use std::io::{self, IsTerminal};

use sprite_client::{Child, PortChanges, Sprite, UrlRequests, WebUrl};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::browser::{self, Asker, Browser, Consent};
use crate::forward::Forwards;
use crate::show;

/// Goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Attending(JoinHandle<()>);

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a line ends on standard error: a terminal in raw mode does not return by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    Plain,
    Raw,
}

impl Lines {
    /// Those of a command with a terminal: ours is in raw mode then, if there is one.
    pub(crate) fn of_terminal() -> Self {
        match io::stdin().is_terminal() {
            true => Self::Raw,
            false => Self::Plain,
        }
    }

    pub(crate) fn tell(self, text: &str) {
        match self {
            Self::Plain => show::note(text),
            Self::Raw => show::note(&format!("\r{text}\r")),
        }
    }
}

/// What is wanted beside a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Whether ports that open are forwarded.
    pub(crate) ports: bool,
    /// Whether URLs are opened.
    pub(crate) browser: Consent,
}

/// Begins to attend to a command. `asker` asks the person at the terminal, where there is one.
pub(crate) fn start(
    sprite: &Sprite,
    child: &mut Child,
    wanted: Wanted,
    lines: Lines,
    asker: Option<Asker>,
) -> Attending {
    let attendant = Attendant {
        changes: child.ports.take().filter(|_| wanted.ports),
        urls: child.urls.take(),
        forwards: Forwards::new(sprite.clone(), lines),
        browser: Browser::new(sprite.name(), wanted.browser, lines, asker),
    };
    Attending(tokio::spawn(attendant.run()))
}

struct Attendant {
    changes: Option<PortChanges>,
    urls: Option<UrlRequests>,
    forwards: Forwards,
    browser: Browser,
}

impl Attendant {
    async fn run(mut self) {
        loop {
            tokio::select! {
                change = next_change(&mut self.changes) => match change {
                    Some(change) => self.forwards.follow(change).await,
                    None => self.changes = None,
                },
                // One after the other: the next is asked for when this one is answered.
                url = next_url(&mut self.urls), if !self.browser.is_asking() => match url {
                    Some(url) => self.wanted(url).await,
                    None => self.urls = None,
                },
                answer = self.browser.answer() => {
                    if let Some(url) = answer {
                        self.open(&url).await;
                    }
                }
                () = self.forwards.expire() => {}
            }
        }
    }

    async fn wanted(&mut self, url: WebUrl) {
        if let Some(url) = self.browser.consider(url, Instant::now()) {
            self.open(&url).await;
        }
    }

    /// Opens a URL. The way back is there before the page is.
    async fn open(&mut self, url: &WebUrl) {
        if let Some(port) = url.callback_port() {
            self.forwards.callback(port).await;
        }
        browser::open(url, self.browser.lines());
    }
}

async fn next_change(changes: &mut Option<PortChanges>) -> Option<sprite_client::PortChange> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

async fn next_url(urls: &mut Option<UrlRequests>) -> Option<WebUrl> {
    match urls {
        Some(urls) => urls.next().await,
        None => std::future::pending().await,
    }
}

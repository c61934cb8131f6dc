//! Opening URLs here for programs in a sprite.
//!
//! A sprite may be hostile and ask for anything at any time. So nothing is opened before a person said yes once, each
//! URL is shown in full, only URLs of the web are opened, and not many.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use sprite_client::WebUrl;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::attend::Lines;
use crate::show;

/// At most one URL in this time.
const EACH: Duration = Duration::from_secs(2);
/// Variables that name the program to open URLs with, in the order in which they count.
const VARIABLES: [&str; 2] = ["SPRITE_BROWSER", "BROWSER"];
/// That program where none is named.
const USUAL: &str = if cfg!(target_os = "macos") {
    "open"
} else {
    "xdg-open"
};

/// Whether URLs are opened that programs in the sprite want opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consent {
    /// Without asking
    Always,
    /// After asking once in each session
    Ask,
    /// Not at all
    Never,
}

/// The option of commands that attach.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct BrowserArgs {
    /// Whether to open the URLs that programs in the sprite want to show, a login for instance, in the browser here.
    /// The program is that of SPRITE_BROWSER, BROWSER, or the system's own [default: ask on a terminal, else never]
    #[arg(long, value_name = "WHEN")]
    browser: Option<Consent>,
}

impl BrowserArgs {
    /// What holds for a session; only one with a terminal that is ours too has somebody to ask.
    pub(crate) fn consent(self, tty: bool) -> Consent {
        let asks = tty && io::stdin().is_terminal() && io::stdout().is_terminal();
        match self.browser.unwrap_or(Consent::Ask) {
            Consent::Ask if asks => Consent::Ask,
            Consent::Ask | Consent::Never => Consent::Never,
            Consent::Always => Consent::Always,
        }
    }
}

/// A question to the person at the terminal.
#[derive(Debug)]
pub(crate) struct Question {
    /// What is shown.
    pub(crate) text: String,
    /// Whether the answer was yes; dropped, it was no.
    pub(crate) answer: oneshot::Sender<bool>,
}

/// Asks whoever has the terminal.
pub(crate) type Asker = mpsc::Sender<Question>;

/// What is asked meanwhile; each relay of a terminal has one.
#[derive(Debug)]
pub(crate) struct Questions(mpsc::Receiver<Question>);

/// Both ends.
pub(crate) fn questions() -> (Asker, Questions) {
    let (asker, asked) = mpsc::channel(1);
    (asker, Questions(asked))
}

impl Questions {
    /// The next question.
    ///
    /// # Cancel safety
    /// Safe: no question is lost.
    pub(crate) async fn next(&mut self) -> Question {
        match self.0.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }
}

/// Decides what becomes of URLs.
#[derive(Debug)]
pub(crate) struct Browser {
    sprite: String,
    consent: Consent,
    lines: Lines,
    asker: Option<Asker>,
    asking: Option<(WebUrl, oneshot::Receiver<bool>)>,
    last: Option<Instant>,
}

impl Browser {
    pub(crate) fn new(sprite: &str, consent: Consent, lines: Lines, asker: Option<Asker>) -> Self {
        Self {
            sprite: show::plain(sprite),
            consent,
            lines,
            asker,
            asking: None,
            last: None,
        }
    }

    pub(crate) fn lines(&self) -> Lines {
        self.lines
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Gives the URL back if it is to be opened now.
    pub(crate) fn consider(&mut self, url: WebUrl, now: Instant) -> Option<WebUrl> {
        let often = self
            .last
            .is_some_and(|last| now.duration_since(last) < EACH);
        match self.consent {
            // Not told either: a sprite that asks without end would fill the screen.
            _ if often => None,
            Consent::Never => {
                self.last = Some(now);
                self.lines.tell(&format!("not opened: {url}"));
                None
            }
            Consent::Always => {
                self.last = Some(now);
                Some(url)
            }
            Consent::Ask => {
                self.last = Some(now);
                self.ask(url);
                None
            }
        }
    }

    fn ask(&mut self, url: WebUrl) {
        let (answer, answered) = oneshot::channel();
        let text = format!(
            "{} wants to open in your browser:\r\n{url}\r\nOpen it, and others in this session? [y/N] ",
            self.sprite
        );
        let asked = self
            .asker
            .as_ref()
            .is_some_and(|asker| asker.try_send(Question { text, answer }).is_ok());
        if asked {
            self.asking = Some((url, answered));
        }
    }

    /// Waits for the answer to what is asked, and gives the URL back if it was yes.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn answer(&mut self) -> Option<WebUrl> {
        let yes = match &mut self.asking {
            Some((_, answered)) => answered.await.unwrap_or(false),
            None => std::future::pending().await,
        };
        let (url, _) = self.asking.take()?;
        self.consent = if yes { Consent::Always } else { Consent::Never };
        yes.then_some(url)
    }
}

/// Opens a URL with the program of this person, and says so.
pub(crate) fn open(url: &WebUrl, lines: Lines) {
    let named = VARIABLES
        .iter()
        .filter_map(env::var_os)
        .find(|value| !value.is_empty());
    let program = named.unwrap_or_else(|| OsString::from(USUAL));
    let words = command(&program.to_string_lossy(), url.as_str());
    let Some((program, arguments)) = words.split_first() else {
        return;
    };
    lines.tell(&format!("opening {url}"));
    let started = tokio::process::Command::new(program)
        .args(arguments)
        // It is no part of the terminal's job: keys of the session must not end it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        // It may stay for as long as its window does; waited for only so that nothing is left of it.
        Ok(mut child) => drop(tokio::spawn(async move { child.wait().await })),
        Err(error) => lines.tell(&format!(
            "{program} cannot be started: {error}; open the URL yourself, or name a program in SPRITE_BROWSER"
        )),
    }
}

/// The command line of an opener: its words, and the URL where it says `%s`, else at the end.
fn command(opener: &str, url: &str) -> Vec<String> {
    let mut words: Vec<String> = opener.split_whitespace().map(str::to_owned).collect();
    let places = words.iter().filter(|word| word.contains("%s")).count();
    if places == 0 {
        words.push(url.to_owned());
    } else {
        words = words.iter().map(|word| word.replace("%s", url)).collect();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> WebUrl {
        text.parse().expect("a URL")
    }

    #[test]
    fn openers_get_the_url_as_one_word() {
        let login = "http://a/?b=$(c)&d";
        assert_eq!(command("xdg-open", login), ["xdg-open", login]);
        assert_eq!(
            command("firefox --new-tab", login),
            ["firefox", "--new-tab", login]
        );
        assert_eq!(
            command("x --url=%s y", login),
            ["x", &format!("--url={login}"), "y"]
        );
    }

    #[tokio::test]
    async fn a_person_is_asked_once_and_a_sprite_that_asks_often_is_not_heard() {
        let (asker, mut questions) = questions();
        let mut browser = Browser::new("s", Consent::Ask, Lines::Plain, Some(asker));
        let now = Instant::now();
        assert_eq!(browser.consider(url("http://a/1"), now), None);
        assert!(browser.is_asking());
        let question = questions.next().await;
        assert!(question.text.contains("http://a/1\r\n"));
        question.answer.send(true).expect("it waits");
        assert_eq!(browser.answer().await, Some(url("http://a/1")));
        assert_eq!(browser.consider(url("http://a/2"), now), None, "too often");
        let third = browser.consider(url("http://a/3"), now + EACH);
        assert_eq!(third, Some(url("http://a/3")));
    }

    #[tokio::test]
    async fn no_means_no_for_the_session() {
        for answer in [Some(false), None] {
            let (asker, mut questions) = questions();
            let mut browser = Browser::new("s", Consent::Ask, Lines::Plain, Some(asker));
            let now = Instant::now();
            browser.consider(url("http://a/1"), now);
            let question = questions.next().await;
            match answer {
                Some(no) => question.answer.send(no).expect("it waits"),
                None => drop(question),
            }
            assert_eq!(browser.answer().await, None);
            assert_eq!(browser.consider(url("http://a/2"), now + EACH), None);
            assert!(!browser.is_asking());
        }
    }
}

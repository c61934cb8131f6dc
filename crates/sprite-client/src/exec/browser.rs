//! URLs that programs in a sprite want opened.

use serde::Deserialize;
use sprite_types::WebUrl;
use tokio::sync::mpsc;

/// URLs that programs in the sprite want opened in the browser of whoever is attached.
///
/// Of all who are attached to a sprite and [take URLs](super::Command::take_urls), the one is asked that typed last.
/// Nothing is opened by this crate: a program in a sprite may ask for anything, and its user decides.
///
/// ```no_run
/// # async fn example(sprite: sprite_client::Sprite) -> Result<(), Box<dyn std::error::Error>> {
/// let login = sprite.command("gh").args(["auth", "login"]).tty(24, 80).take_urls();
/// let mut child = login.spawn().await?;
/// let mut urls = child.urls.take().expect("asked for");
/// while let Some(url) = urls.next().await {
///     println!("the sprite wants to show you {url}");
///     if let Some(port) = url.callback_port() {
///         println!("and to hear from your browser on its port {port}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UrlRequests(mpsc::Receiver<WebUrl>);

#[derive(Deserialize)]
struct Text {
    url: WebUrl,
}

/// The URL of such a text; `None` if it is none that may be opened.
///
/// The port that the text tells is not read: what counts is what a person sees in the URL.
pub(super) fn read_url(text: &str) -> Option<WebUrl> {
    let text: Text = serde_json::from_str(text).ok()?;
    Some(text.url)
}

impl UrlRequests {
    pub(super) fn new(urls: mpsc::Receiver<WebUrl>) -> Self {
        Self(urls)
    }

    /// The next URL; `None` when the command is not attached any more.
    ///
    /// # Cancel safety
    /// Safe: no URL is lost.
    pub async fn next(&mut self) -> Option<WebUrl> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_web_are_read() {
        let told = r#"{"type":"open_url","url":"https://a/?redirect_uri=http://localhost:80/","callback_port":22}"#;
        let url = read_url(told).expect("a URL");
        assert_eq!(url.callback_port(), Some(80));
        for other in [
            "{}",
            r#"{"type":"open_url","url":"file:///etc/passwd"}"#,
            r#"{"type":"open_url","url":"http://a/\u001b[2J"}"#,
            r#"{"type":"open_url","url":7}"#,
        ] {
            assert_eq!(read_url(other), None, "{other}");
        }
    }
}

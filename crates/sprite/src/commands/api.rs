//! `sprite api`: call the API directly, with the options of curl that matter.

use std::fs;
use std::io::{self, Read};

use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;
use crate::stream::Outlet;

/// Largest body that is sent.
const BODY_LIMIT: u64 = 1 << 30;

/// Call the API directly
///
/// The token is added. With -s the path is below the sprite's own. The body of the answer goes to standard
/// output; the exit code is 1 when the server answers with an error.
///
/// Options of curl that are known: -X METHOD, -d DATA (also @FILE and @-), -H 'NAME: VALUE', -i.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite api /v1/sprites
  sprite api /v1/sprites -- -X POST -d '{\"name\":\"a\"}'
  sprite api -s my-sprite /check
  sprite api -s my-sprite '/exec?cmd=cat&stdin=true' -- -d @input.txt")]
pub(crate) struct Args {
    /// Path with its query
    path: String,
    /// Options as for curl
    #[arg(last = true, value_name = "CURL OPTIONS")]
    options: Vec<String>,
}

/// What the options ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    method: Option<String>,
    headers: Vec<(String, String)>,
    data: Vec<String>,
    include: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let request = parse(&args.options)?;
    let path = path(&args.path, context)?;
    let method = request.method.as_deref();
    let method = method.unwrap_or(if request.data.is_empty() {
        "GET"
    } else {
        "POST"
    });
    let mut call = context.client().raw(method, path);
    if !request.data.is_empty() {
        let body = body(&request.data)?;
        if !request
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            let json = serde_json::from_slice::<Value>(&body).is_ok();
            let kind = if json {
                "application/json"
            } else {
                "application/octet-stream"
            };
            call = call.header("Content-Type", kind);
        }
        call = call.body(body);
    }
    for (name, value) in request.headers {
        call = call.header(name, value);
    }
    let mut answer = call.send().await.map_err(|error| context.failure(&error))?;
    if request.include {
        show::line(&format!("HTTP/1.1 {}", answer.status()))?;
        for (name, value) in answer.headers() {
            show::line(&format!("{name}: {value}"))?;
        }
        show::line("")?;
    }
    let mut outlet = Outlet::stdout();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|error| context.failure(&error))?
    {
        if outlet.send(chunk).await.is_err() {
            return Ok(141);
        }
    }
    if outlet.finish().await.is_err() {
        return Ok(141);
    }
    if answer.status() >= 400 {
        show::note(&format!(
            "error: the server answered with status {}",
            answer.status()
        ));
        return Ok(1);
    }
    Ok(0)
}

/// The path below the server, or below the sprite that -s names.
fn path(text: &str, context: &Context) -> Result<String, Failure> {
    let Some(sprite) = context.global.sprite.as_deref() else {
        if text.starts_with('/') {
            return Ok(text.to_owned());
        }
        return Err(
            Failure::usage(format!("the path {text:?} does not begin with '/'")).hint(
                "the server is the one in use; only the path is given: sprite api /v1/sprites",
            ),
        );
    };
    let legal = sprite
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if sprite.is_empty() || !legal {
        return Err(Failure::usage(format!(
            "{sprite:?} is not the name of a sprite"
        )));
    }
    let rest = text.trim_start_matches('/');
    let slash = if rest.is_empty() || rest.starts_with('?') {
        ""
    } else {
        "/"
    };
    Ok(format!("/v1/sprites/{sprite}{slash}{rest}"))
}

fn parse(options: &[String]) -> Result<Request, Failure> {
    let mut request = Request::default();
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        // `-XPOST` and `--request=POST` are `-X POST`.
        let (name, joined) = match option.strip_prefix("--") {
            Some(_) => option
                .split_once('=')
                .map_or((option, None), |(name, value)| (name, Some(value))),
            None if option.starts_with('-') && option.len() > 2 && option.is_char_boundary(2) => {
                (&option[..2], Some(&option[2..]))
            }
            None => (option, None),
        };
        let mut value = || {
            joined
                .or_else(|| options.next())
                .map(str::to_owned)
                .ok_or_else(|| Failure::usage(format!("the option {name} needs a value")))
        };
        match name {
            "-X" | "--request" => request.method = Some(value()?),
            "-d" | "--data" | "--data-raw" | "--data-binary" | "--json" => {
                request.data.push(value()?)
            }
            "-H" | "--header" => {
                let text = value()?;
                let (name, value) = text.split_once(':').ok_or_else(|| {
                    Failure::usage(format!(
                        "the header {text:?} is not of the form 'NAME: VALUE'"
                    ))
                })?;
                request
                    .headers
                    .push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "-i" | "--include" => request.include = true,
            // These ask for what is done anyway.
            "-s" | "--silent" | "-S" | "--show-error" | "-N" | "--no-buffer" | "-f" | "--fail" => {}
            other => {
                return Err(Failure::usage(format!(
                    "the option {other} of curl is not known here"
                ))
                .hint("known are -X, -d, -H and -i: sprite api --help"));
            }
        }
    }
    Ok(request)
}

/// The body, from as many -d as there are; curl joins them with '&'.
fn body(data: &[String]) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    for (index, data) in data.iter().enumerate() {
        if index > 0 {
            body.push(b'&');
        }
        match data.strip_prefix('@') {
            None => body.extend_from_slice(data.as_bytes()),
            Some("-") => {
                let read = io::stdin().lock().take(BODY_LIMIT).read_to_end(&mut body);
                read.map_err(|error| Failure::caused("cannot read standard input", &error))?;
            }
            Some(path) => {
                let read = fs::read(path);
                body.extend(
                    read.map_err(|error| Failure::caused(format!("cannot read {path}"), &error))?,
                );
            }
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Option<Request> {
        parse(
            &options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<Vec<_>>(),
        )
        .ok()
    }

    #[test]
    fn options_have_the_spellings_of_curl() {
        let wanted = Request {
            method: Some("PUT".into()),
            headers: vec![("A".into(), "b:c".into())],
            data: vec!["x".into()],
            include: true,
        };
        assert_eq!(
            read(&["-X", "PUT", "-H", "A: b:c", "-d", "x", "-i"]),
            Some(wanted)
        );
        let joined = read(&["-XPUT", "--header=A: b:c", "-dx", "--include", "-s"]).expect("known");
        assert_eq!(
            (joined.method.as_deref(), joined.data.as_slice()),
            (Some("PUT"), &["x".to_owned()][..])
        );
        for bad in [
            &["-X"][..],
            &["-o", "file"],
            &["-H", "nothing"],
            &["https://elsewhere"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}

//! From words to a request. Source: behaviour reference §4.5 (the commands), §1.9, §1.13 (the requests).

use serde_json::{Map, Value, json};

use super::http::{Method, Request, encoded};

pub(super) const HELP: &str = "\
Speaks with the API of the sprite that it runs in.

Usage: sprite-env COMMAND

  info                                       name, id, URL, organization and version of this sprite
  version                                    the version of the sprite environment
  curl [-X METHOD] [-d DATA] [-H HEADER] PATH
                                             any request; the answer's body as it is
  tasks list
  tasks get NAME
  tasks create NAME [--expire 1h]            keeps the sprite awake, at most an hour
  tasks put NAME [--expire 1h]               creates it, or gives it another end
  tasks delete NAME
  wake list
  wake at TIME                               is woken then (RFC 3339, as of date -u +%FT%TZ)
  wake in 10m
  wake clear [TIME]
  services list
  services get|start|stop|restart|delete NAME [--duration 5s] [--timeout 10s]
  services signal NAME SIGNAL
  services create NAME --cmd BIN [--args \"a,b\"] [--env \"K=v,L=w\"] [--dir DIR] [--needs \"a,b\"]
                  [--http-port N] [--duration 5s] [--no-stream]
  checkpoints list [--history]
  checkpoints get|restore ID
  checkpoints create [--comment TEXT]
";

/// How long a task lasts for which nothing was said.
const EXPIRE: &str = "1h";

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Print it, whatever it is.
    Raw,
    /// Print a success; explain a refusal.
    Answer,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Help,
    Call { request: Request, shown: Shown },
}

/// A usage error, for people.
pub(super) type Usage = String;

pub(super) fn parse(arguments: &[String]) -> Result<Parsed, Usage> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let answer = |request| {
        Ok(Parsed::Call {
            request,
            shown: Shown::Answer,
        })
    };
    match &words[..] {
        [] | ["help" | "-h" | "--help", ..] => Ok(Parsed::Help),
        ["info"] => answer(Request::new(Method::get(), "/info")),
        ["version" | "--version" | "-V"] => {
            answer(Request::new(Method::get(), "/info").with_field("version"))
        }
        ["curl", rest @ ..] => curl(rest),
        ["tasks" | "task", command, rest @ ..] => answer(tasks(command, rest)?),
        ["wake", command, rest @ ..] => answer(wake(command, rest)?),
        ["services" | "service", command, rest @ ..] => answer(services(command, rest)?),
        ["checkpoints" | "checkpoint", command, rest @ ..] => answer(checkpoints(command, rest)?),
        [group @ ("tasks" | "wake" | "services" | "checkpoints")] => {
            Err(format!("{group}: which command?"))
        }
        [other, ..] => Err(format!("no such command: {other}")),
    }
}

fn curl(words: &[&str]) -> Result<Parsed, Usage> {
    let mut words = words.iter().copied();
    let (mut method, mut data, mut headers, mut path) = (None, None, Vec::new(), None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word {
            "-X" | "--request" => method = Some(Method::named(value()?)?),
            "-d" | "--data" | "--data-raw" | "--json" => data = Some(value()?.to_owned()),
            "-H" | "--header" => headers.push(value()?.to_owned()),
            // What people type out of habit.
            "-s" | "-S" | "-sS" | "--silent" | "--show-error" => {}
            option if option.starts_with('-') => return Err(format!("no such option: {option}")),
            _ if path.is_some() => return Err("one path is wanted".to_owned()),
            word => path = Some(path_of(word)),
        }
    }
    let path = path.ok_or("a path is wanted, for instance /info")?;
    let default = if data.is_some() {
        Method::post()
    } else {
        Method::get()
    };
    let mut request = Request::new(method.unwrap_or(default), &path);
    if let Some(data) = data {
        request = request.with_json(data);
    }
    for header in headers {
        request = request.with_header(&header)?;
    }
    Ok(Parsed::Call {
        request,
        shown: Shown::Raw,
    })
}

/// The path of a URL, whose host does not matter.
fn path_of(word: &str) -> String {
    let behind = word.strip_prefix("http://").map(|rest| {
        rest.find('/')
            .map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned())
    });
    behind.unwrap_or_else(|| {
        if word.starts_with('/') {
            word.to_owned()
        } else {
            format!("/{word}")
        }
    })
}

/// Options behind a name: each is in `known` with whether it takes a value.
struct Options<'a> {
    given: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str], known: &[(&str, bool)]) -> Result<(Vec<&'a str>, Self), Usage> {
        let (mut plain, mut given) = (Vec::new(), Vec::new());
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                plain.push(word);
                continue;
            }
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let option = known.iter().find(|(known, _)| *known == name);
            match option {
                Some((_, false)) => given.push((name, None)),
                Some((_, true)) => {
                    let value = inline.or_else(|| words.next());
                    given.push((
                        name,
                        Some(value.ok_or_else(|| format!("{name} wants a value"))?),
                    ));
                }
                None => return Err(format!("no such option: {name}")),
            }
        }
        Ok((plain, Self { given }))
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let given = self.given.iter().rev().find(|(given, _)| *given == name);
        given.and_then(|(_, value)| *value)
    }

    /// A list in one value, separated by commas.
    fn list(&self, name: &str) -> Vec<&'a str> {
        let text = self.value(name).unwrap_or_default();
        text.split(',').filter(|part| !part.is_empty()).collect()
    }
}

fn one<'a>(plain: &[&'a str], what: &str) -> Result<&'a str, Usage> {
    match plain {
        [one] => Ok(one),
        [] => Err(format!("{what} is wanted")),
        [_, other, ..] => Err(format!("unexpected word: {other}")),
    }
}

fn none(plain: &[&str]) -> Result<(), Usage> {
    match plain {
        [] => Ok(()),
        [other, ..] => Err(format!("unexpected word: {other}")),
    }
}

/// A path with a name in it, encoded.
fn path(before: &str, name: &str, behind: &str) -> String {
    format!("{before}{}{behind}", encoded(name))
}

fn tasks(command: &str, words: &[&str]) -> Result<Request, Usage> {
    let (plain, options) = Options::parse(words, &[("--expire", true)])?;
    let expire = options.value("--expire").unwrap_or(EXPIRE);
    let name = || one(&plain, "the name of a task");
    Ok(match command {
        "list" | "ls" => {
            none(&plain)?;
            Request::new(Method::get(), "/v1/tasks")
        }
        "get" => Request::new(Method::get(), &path("/v1/tasks/", name()?, "")),
        "create" => {
            let body = json!({ "name": name()?, "expire": expire });
            Request::new(Method::post(), "/v1/tasks").with_json(body.to_string())
        }
        "put" | "extend" => {
            let body = json!({ "expire": expire });
            let path = path("/v1/tasks/", name()?, "");
            Request::new(Method::put(), &path).with_json(body.to_string())
        }
        "delete" | "rm" => Request::new(Method::delete(), &path("/v1/tasks/", name()?, "")),
        other => return Err(format!("tasks: no such command: {other}")),
    })
}

fn wake(command: &str, words: &[&str]) -> Result<Request, Usage> {
    let (plain, _) = Options::parse(words, &[])?;
    let set = |field: &str| {
        let when = one(&plain, "when")?;
        let body = json!({ field: when }).to_string();
        Ok::<_, Usage>(Request::new(Method::post(), "/v1/wake").with_json(body))
    };
    Ok(match command {
        "list" | "ls" => {
            none(&plain)?;
            Request::new(Method::get(), "/v1/wake")
        }
        "at" | "in" => set(command)?,
        "clear" if plain.is_empty() => Request::new(Method::delete(), "/v1/wake"),
        "clear" => {
            Request::new(Method::delete(), "/v1/wake").with_query("at", one(&plain, "when")?)
        }
        other => return Err(format!("wake: no such command: {other}")),
    })
}

const SERVICE_OPTIONS: [(&str, bool); 9] = [
    ("--cmd", true),
    ("--args", true),
    ("--env", true),
    ("--dir", true),
    ("--needs", true),
    ("--http-port", true),
    ("--duration", true),
    ("--timeout", true),
    ("--no-stream", false),
];

fn services(command: &str, words: &[&str]) -> Result<Request, Usage> {
    let (plain, options) = Options::parse(words, &SERVICE_OPTIONS)?;
    let at = |behind: &str| {
        let name = one(&plain, "the name of a service")?;
        Ok::<String, Usage>(path("/v1/services/", name, behind))
    };
    let with = |request: Request, option: &str| match options.value(option) {
        Some(value) => request.with_query(option.trim_start_matches('-'), value),
        None => request,
    };
    Ok(match command {
        "list" | "ls" => {
            none(&plain)?;
            Request::new(Method::get(), "/v1/services")
        }
        "get" => Request::new(Method::get(), &at("")?),
        "delete" | "rm" => Request::new(Method::delete(), &at("")?),
        "start" | "restart" => {
            let path = at(&format!("/{command}"))?;
            with(Request::new(Method::post(), &path), "--duration")
        }
        "stop" => with(Request::new(Method::post(), &at("/stop")?), "--timeout"),
        "signal" => {
            let [name, signal] = &plain[..] else {
                return Err("the name of a service and a signal are wanted".to_owned());
            };
            let body = json!({ "name": name, "signal": signal });
            Request::new(Method::post(), "/v1/services/signal").with_json(body.to_string())
        }
        "create" => {
            let body = service(&options)?;
            let request = Request::new(Method::put(), &at("")?).with_json(body.to_string());
            match options.has("--no-stream") {
                true => request.with_query("duration", "0s"),
                false => with(request, "--duration"),
            }
        }
        other => return Err(format!("services: no such command: {other}")),
    })
}

fn service(options: &Options<'_>) -> Result<Value, Usage> {
    let cmd = options.value("--cmd").ok_or("--cmd is wanted")?;
    let mut variables = Map::new();
    for variable in options.list("--env") {
        let wrong = || format!("--env: {variable:?} is not of the form K=v");
        let (name, value) = variable.split_once('=').ok_or_else(wrong)?;
        variables.insert(name.to_owned(), value.into());
    }
    let mut body = json!({
        "cmd": cmd,
        "args": options.list("--args"),
        "env": variables,
        "needs": options.list("--needs"),
    });
    if let Some(dir) = options.value("--dir") {
        body["dir"] = dir.into();
    }
    if let Some(port) = options.value("--http-port") {
        let port: u16 = port
            .parse()
            .map_err(|_| format!("--http-port: {port:?} is not a port"))?;
        body["http_port"] = port.into();
    }
    Ok(body)
}

fn checkpoints(command: &str, words: &[&str]) -> Result<Request, Usage> {
    let known = [("--history", false), ("--comment", true)];
    let (plain, options) = Options::parse(words, &known)?;
    let at = |behind: &str| {
        let id = one(&plain, "the id of a checkpoint")?;
        Ok::<String, Usage>(path("/v1/checkpoints/", id, behind))
    };
    Ok(match command {
        "list" | "ls" => {
            none(&plain)?;
            let request = Request::new(Method::get(), "/v1/checkpoints");
            match options.has("--history") {
                true => request.with_query("history", "true"),
                false => request,
            }
        }
        "get" => Request::new(Method::get(), &at("")?),
        "restore" => Request::new(Method::post(), &at("/restore")?),
        "create" => {
            none(&plain)?;
            let comment = options.value("--comment");
            let body = comment.map_or_else(|| json!({}), |text| json!({ "comment": text }));
            Request::new(Method::post(), "/v1/checkpoint").with_json(body.to_string())
        }
        other => return Err(format!("checkpoints: no such command: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<String, Usage> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&words)? {
            Parsed::Help => Ok("help".to_owned()),
            Parsed::Call { request, .. } => Ok(request.to_string()),
        }
    }

    #[test]
    fn the_documented_commands_become_requests() {
        for (line, wanted) in [
            ("help", "help"),
            ("info", "GET /info"),
            ("curl /v1/tasks", "GET /v1/tasks"),
            ("curl -s http://sprite/info", "GET /info"),
            ("curl -X DELETE /v1/tasks/a", "DELETE /v1/tasks/a"),
            ("curl -d {} /v1/tasks", "POST /v1/tasks {}"),
            ("tasks list", "GET /v1/tasks"),
            ("tasks get a/b", "GET /v1/tasks/a%2Fb"),
            (
                "tasks create a",
                r#"POST /v1/tasks {"expire":"1h","name":"a"}"#,
            ),
            (
                "tasks put a --expire=30m",
                r#"PUT /v1/tasks/a {"expire":"30m"}"#,
            ),
            ("tasks delete a", "DELETE /v1/tasks/a"),
            ("wake list", "GET /v1/wake"),
            ("wake in 10m", r#"POST /v1/wake {"in":"10m"}"#),
            (
                "wake at 2027-01-01T00:00:00Z",
                r#"POST /v1/wake {"at":"2027-01-01T00:00:00Z"}"#,
            ),
            ("wake clear", "DELETE /v1/wake"),
            (
                "wake clear 2027-01-01T00:00:00Z",
                "DELETE /v1/wake?at=2027-01-01T00%3A00%3A00Z",
            ),
            ("services list", "GET /v1/services"),
            (
                "services stop web --timeout 10s",
                "POST /v1/services/web/stop?timeout=10s",
            ),
            (
                "services signal web TERM",
                r#"POST /v1/services/signal {"name":"web","signal":"TERM"}"#,
            ),
            (
                "services create web --cmd python3 --args -m,http.server --env A=1 --http-port 80 --no-stream",
                r#"PUT /v1/services/web?duration=0s {"args":["-m","http.server"],"cmd":"python3","env":{"A":"1"},"http_port":80,"needs":[]}"#,
            ),
            (
                "checkpoints list --history",
                "GET /v1/checkpoints?history=true",
            ),
            (
                "checkpoints create --comment x",
                r#"POST /v1/checkpoint {"comment":"x"}"#,
            ),
            ("checkpoints restore v1", "POST /v1/checkpoints/v1/restore"),
        ] {
            assert_eq!(request(line).as_deref(), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for line in [
            "dance",
            "tasks",
            "tasks get",
            "tasks get a b",
            "tasks list a",
            "tasks create a --expire",
            "tasks create a --forever",
            "wake",
            "wake in",
            "wake up now",
            "services create web",
            "services create web --cmd a --http-port x",
            "curl",
            "curl -X",
            "curl /a /b",
            "curl -H broken /a",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}

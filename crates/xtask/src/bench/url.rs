//! Sprites' URLs: the rate of the proxy against nginx, and the first byte of a sprite that sleeps.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::{FLOOR, Namespace};
use super::samples::Samples;
use super::wire::Api;
use super::{Row, against, create_and_exec, milliseconds, succeed};
use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::program::Program;
use crate::server::{Build, Server};

const SPRITE: &str = "url";
const PORT: u16 = 7003;

/// Longer than anything that is measured.
const PATIENCE: Duration = Duration::from_secs(30);

const WARM: usize = 50;
const COLD: usize = 10;
const RUNS: usize = 3;

/// Connections at once, as of one page's visitors; and how long each run takes.
const WRK: &[&str] = &["-t1", "-c32", "-d5s", "--latency"];

/// A web server that keeps its connections: a process for each. Perl is in every base image, and so the same program
/// is behind nginx and behind us. It uses no module, so that its own start costs little beside a sprite's.
const SERVER: &str = r#"$| = 1; $SIG{CHLD} = 'IGNORE'; my ($inet, $stream, $tcp, $level, $reuse, $nodelay) = (2, 1, 6, 1, 2, 1);
socket(my $s, $inet, $stream, $tcp) or die "socket: $!"; setsockopt($s, $level, $reuse, 1);
bind($s, pack('S n x12', $inet, $ARGV[0])) or die "bind: $!"; listen($s, 500) or die "listen: $!";
print "listening\n";
my $answer = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n";
while (1) {
    accept(my $c, $s) or next; next if fork;
    setsockopt($c, $tcp, $nodelay, 1); my $b = '';
    while (sysread($c, $b, 16384, length $b)) { while ($b =~ s/^.*?\r\n\r\n//s) { syswrite($c, $answer) } }
    exit }"#;

/// What nginx is to do; its port, its directory and the server behind it are filled in.
const NGINX: &str = r"worker_processes auto; pid DIR/pid; error_log DIR/error.log; events { worker_connections 1024; }
http { access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi; keepalive_requests 1000000;
    upstream inside { server FLOOR; keepalive 32; keepalive_requests 1000000; }
    server { listen 127.0.0.1:PORT; location / { proxy_pass http://inside; proxy_http_version 1.1;
        proxy_set_header Connection ''; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host; proxy_set_header Sprite-Client-Ip $remote_addr; } } }
";

/// Whom to ask, and as whom.
struct Web<'s> {
    address: &'s str,
    token: &'s str,
}

impl Web<'_> {
    /// Asks the API; the answer's body.
    fn api(&self, method: &str, path: &str, body: &str) -> Outcome<String> {
        let (host, length) = (self.address, body.len());
        let token = self.token;
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let step = || Failure::io(format!("{method} {path}"));
        let mut tcp = self.send(&text).map_err(step())?;
        let mut said = String::new();
        tcp.read_to_string(&mut said).map_err(step())?;
        match said.starts_with("HTTP/1.1 20") {
            true => Ok(said),
            false => Err(Failure::Check(format!("{method} {path}: {said}"))),
        }
    }

    /// Asks a URL, until its first bytes are there.
    fn first_byte(&self, host: &str) -> Outcome<Duration> {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let step = || Failure::io(format!("ask {host}"));
        let begun = Instant::now();
        let mut tcp = self.send(&text).map_err(step())?;
        let mut first = [0; 12];
        tcp.read_exact(&mut first).map_err(step())?;
        let took = begun.elapsed();
        match &first {
            b"HTTP/1.1 200" => Ok(took),
            other => Err(Failure::Check(format!(
                "{host} answered {}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    fn send(&self, text: &str) -> std::io::Result<TcpStream> {
        let mut tcp = TcpStream::connect(self.address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.write_all(text.as_bytes())?;
        Ok(tcp)
    }
}

/// Measures every row of URLs, on a server of its own, whose sprites turn cold soon.
///
/// # Errors
/// Something cannot be measured.
pub(super) fn rows(host: Host, build: Build) -> Outcome<Vec<Row>> {
    let options = ["--idle-timeout", "never", "--cold-after", "1s"];
    let server = Server::start(host, build, "bench-url", &options)?;
    let token = server.token("bench")?;
    let api = Api::new(server.url(), &token);
    let address = server.url().trim_start_matches("http://");
    let web = Web {
        address: address.trim_end_matches('/'),
        token: &token,
    };
    let name = begin(&web, &api)?;
    let rows = vec![
        rate_rows(&web, &name)?,
        vec![warm_row(&web, &name)?, cold_row(&web, &api, &name)?],
    ];
    api.destroy(SPRITE)?;
    server.remove()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Makes a sprite with a web server at its URL, which is public. The URL's host.
fn begin(web: &Web<'_>, api: &Api) -> Outcome<String> {
    let body = format!(r#"{{"name":"{SPRITE}","url_settings":{{"auth":"public"}}}}"#);
    let made = web.api("POST", "/v1/sprites", &body)?;
    let write = format!("cat > web.pl <<'END'\n{SERVER}\nEND");
    succeed(api, SPRITE, &["sh", "-c", &write])?;
    let service =
        format!(r#"{{"cmd":"perl","args":["/home/sprite/web.pl","{PORT}"],"http_port":{PORT}}}"#);
    web.api("PUT", "/v1/sprites/url/services/web", &service)?;
    let url = made.split("\"url\":\"http://").nth(1);
    let host = url.and_then(|rest| rest.split('"').next());
    let host = host.ok_or_else(|| Failure::Check(format!("no URL in {made}")))?;
    web.first_byte(host)?;
    Ok(host.to_owned())
}

/// nginx; it goes with this.
struct Nginx {
    program: Child,
    port: u16,
    dir: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.program.id().to_string();
        // In order, so that its workers end with it.
        let _ = Program::new("kill").args(["-QUIT", &pid]).read();
        let _ = self.program.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Nginx {
    fn start() -> Outcome<Self> {
        let step = || Failure::io("start nginx");
        let name = format!("sprited-bench-nginx-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).map_err(step())?;
        // The workers are another user's.
        set_open(&dir)?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.map_err(step())?.port();
        let config = NGINX
            .replace("DIR", &dir.display().to_string())
            .replace("FLOOR", &format!("{FLOOR}:{PORT}"))
            .replace("PORT", &port.to_string());
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).map_err(step())?;
        let program = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(step())?;
        let started = Self { program, port, dir };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::Check("nginx does not listen".to_owned()));
            }
            // Nothing tells of the port of somebody else's program.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }
}

fn set_open(dir: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
        .map_err(Failure::io("open nginx's directory"))
}

/// What wrk measured.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Load {
    per_second: f64,
    p99: Duration,
}

/// Requests for as long as [`WRK`] says.
fn load(address: &str, host: &str) -> Outcome<Load> {
    let (url, header) = (format!("http://{address}/"), format!("Host: {host}"));
    let said = Program::new("wrk")
        .args(WRK)
        .args(["-H", &header, &url])
        .read()?;
    read_load(&said).ok_or_else(|| Failure::Check(format!("wrk said {said}")))
}

/// Reads what wrk says; `None` if there were answers other than those that were wanted.
fn read_load(said: &str) -> Option<Load> {
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return None;
    }
    let value = |mark: &str| {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(mark));
        line?.split_whitespace().nth(1)
    };
    let p99 = value("99%")?;
    let (number, unit) = p99.split_at(p99.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Load {
        per_second: value("Requests/sec:")?.parse().ok()?,
        p99: Duration::from_secs_f64(number.parse::<f64>().ok()? * unit),
    })
}

/// The one in the middle.
fn median(mut loads: Vec<Load>) -> Load {
    loads.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    loads[loads.len() / 2]
}

/// Requests per second and the slowest of them, against nginx before the same program.
fn rate_rows(web: &Web<'_>, name: &str) -> Outcome<Vec<Row>> {
    let mut namespace = Namespace::new()?;
    namespace.start(&["perl", "-e", SERVER, &PORT.to_string()])?;
    let nginx = Nginx::start()?;
    let beside = format!("127.0.0.1:{}", nginx.port);
    let (mut floors, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        floors.push(load(&beside, name)?);
        loads.push(load(web.address, name)?);
    }
    let (ours, floor) = (median(loads), median(floors));
    let share = ours.per_second / floor.per_second;
    let factor = ours.p99.as_secs_f64() / floor.p99.as_secs_f64();
    let rate = |load: Load| format!("{:.0} requests/s", load.per_second);
    let slowest = |load: Load| format!("{:.2} ms", milliseconds(load.p99));
    Ok(vec![
        Row {
            name: "url rate",
            measured: format!("{} ({:.0} %)", rate(ours), share * 100.0),
            floor: rate(floor),
            limit: "70 %".to_owned(),
            holds: share >= 0.7,
        },
        Row {
            name: "url p99",
            measured: format!("{} ({factor:.2} x)", slowest(ours)),
            floor: slowest(floor),
            limit: "1.5 x".to_owned(),
            holds: factor <= 1.5,
        },
    ])
}

/// A sprite that sleeps with its memory, against the same request right after.
fn warm_row(web: &Web<'_>, name: &str) -> Outcome<Row> {
    const MORE: Duration = Duration::from_millis(10);
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..WARM {
        web.api("POST", "/v1/sprites/url/sleep", "")?;
        times.push(web.first_byte(name)?);
        floors.push(web.first_byte(name)?);
    }
    let (times, floors) = (Samples::new(times), Samples::new(floors));
    let pair = |samples: &Samples| {
        let (p50, p99) = (milliseconds(samples.p50()), milliseconds(samples.p99()));
        format!("{p50:.1} / {p99:.1} ms")
    };
    Ok(Row {
        name: "url warm",
        measured: pair(&times),
        floor: pair(&floors),
        limit: "+ 10 ms".to_owned(),
        holds: times.p50() <= floors.p50() + MORE,
    })
}

/// A sprite whose machine has ended, against one that is made and runs a command.
fn cold_row(web: &Web<'_>, api: &Api, name: &str) -> Outcome<Row> {
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for number in 0..COLD {
        let other = format!("beside-{number}");
        floors.push(create_and_exec(api, &other)?);
        api.destroy(&other)?;
        web.api("POST", "/v1/sprites/url/sleep", "")?;
        let begun = Instant::now();
        while !web
            .api("GET", "/v1/sprites/url", "")?
            .contains("\"status\":\"cold\"")
        {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::Check("the sprite does not turn cold".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        times.push(web.first_byte(name)?);
    }
    let (times, floors) = (Samples::new(times), Samples::new(floors));
    Ok(against("url cold", &times, &floors, 1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 5s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.99ms  300.00us   9.00ms   90.00%\n  \
        Latency Distribution\n     50%    1.90ms\n     75%    2.00ms\n     90%    2.20ms\n     99%  812.00us\n  \
        80000 requests in 5.00s, 5.00MB read\nRequests/sec:  16000.50\nTransfer/sec:      1.00MB\n";

    #[test]
    fn what_wrk_says_is_read() {
        let load = Load {
            per_second: 16000.5,
            p99: Duration::from_micros(812),
        };
        assert_eq!(read_load(SAID), Some(load));
        let failed = SAID.replace(
            "Requests/sec",
            "  Non-2xx or 3xx responses: 3\nRequests/sec",
        );
        assert_eq!(read_load(&failed), None);
        assert_eq!(read_load(""), None);
    }
}

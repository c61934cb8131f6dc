use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use sprite_agent_api::launch::*;
use sprite_agent_api::link::*;
use sprite_agent_api::message::*;
use sprite_agent_api::{Frame, FrameKind, wire};
struct C(String);
#[async_trait::async_trait]
impl Connect for C {
    async fn connect(&self) -> std::io::Result<BoxedTransport> {
        Ok(Box::new(tokio::net::UnixStream::connect(&self.0).await?))
    }
}
fn op(c: &Arc<C>, r: &Request) -> Stream {
    use std::time::*;
    let id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let s = open(c.clone(), Epoch(1), StreamId(id));
    let _ = futures_util(s.sender.send(Frame::control(r)));
    s
}
fn futures_util<F: Future>(f: F) -> F::Output { tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(f)) }
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dir = "/run/sprtry"; let _ = std::fs::remove_dir_all(dir); std::fs::create_dir_all(format!("{dir}/root")).unwrap();
    let sock = format!("{dir}/s");
    let l = UnixListener::bind(&sock).unwrap();
    let lock = std::fs::File::create(format!("{dir}/lock")).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let t = std::time::Instant::now();
    let mut child = Command::new(&a[1]).arg("launch").stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).spawn().unwrap();
    let spec = LaunchSpec { disk: a[2].clone().into(), id_base: 0x7000_0000, netns: a[3].clone().into(), agent_cgroups: vec![], environment_cgroups: vec![], root: format!("{dir}/root").into(), agent: a[1].clone().into() };
    wire::send(&ours, &spec, &[l.as_fd(), lock.as_fd()]).unwrap();
    let r: Option<(LaunchReport, _)> = wire::receive(&ours).unwrap();
    let r = r.unwrap().0;
    println!("{r:?} after {:?}", t.elapsed());
    drop(ours); child.wait().unwrap();
    let LaunchReport::Started { pid } = r else { return };
    let c = Arc::new(C(sock));
    let t = std::time::Instant::now();
    let mut s = op(&c, &Request::Start(EnvironmentSpec { hostname: "tryit".into(), env: vec![], nameservers: vec!["10.0.0.2".into()] }));
    println!("{:?}", s.receiver.recv().await.unwrap().map(|f| f.message::<Reply>()));
    println!("environment after {:?}", t.elapsed());
    for line in &a[4..] {
        let t = std::time::Instant::now();
        let mut s = op(&c, &Request::Exec(ExecSpec { path: "bash".into(), argv: vec!["bash".into(), "-c".into(), line.clone()], env: vec![("A".into(), "b".into())], dir: None, tty: line.contains("#tty").then_some(TtySize { rows: 24, cols: 80 }), stdin: false, max_run_after_disconnect_ms: None }));
        let mut n = 0;
        loop {
            match s.receiver.recv().await {
                Ok(Some(f)) => match f.kind {
                    FrameKind::Control => { let m = f.message::<Reply>().unwrap(); if !matches!(m, Reply::Started(_)) { println!("{m:?}"); } }
                    k => { n += f.payload.len(); if n < 5000 { println!("{k:?}: {}", String::from_utf8_lossy(&f.payload)); } }
                },
                other => { println!("end {other:?}"); break; }
            }
        }
        println!("--- {line}: {n} bytes {:?}", t.elapsed());
    }
    let t = std::time::Instant::now();
    let mut s = op(&c, &Request::Shutdown);
    println!("{:?} {:?}", s.receiver.recv().await.unwrap().map(|f| f.message::<Reply>()), t.elapsed());
    let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
}

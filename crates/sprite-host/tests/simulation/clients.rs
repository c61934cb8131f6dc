//! Clients that do what chance tells them, and believe nothing.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::link::Stream;
use sprite_agent_api::message::{ExecSpec, Reply, Request};
use sprite_agent_api::{Frame, FrameKind};
use sprite_host::{
    Awake, Change, Connections, ForkOf, Hold, Host, IdleTimeout, IfTaken, NewSprite, Policy, Sprite,
};
use sprite_testkit::Seeded;
use sprite_types::{
    CheckpointId, NetworkPolicy, NetworkRule, Preset, Privileges, Profile, ResourceLimits,
    SpriteId, SpriteName,
};
use tokio::time::{sleep, timeout};

use crate::world::{ANSWERED, World};

/// Names that are fought for.
const NAMES: u64 = 4;

/// One client: a host, and what it decides.
pub struct Client {
    pub world: Arc<World>,
    pub host: Host,
    pub chance: Seeded,
}

impl Client {
    /// Does one thing, and says what.
    pub async fn acts(mut self) {
        let name: SpriteName = format!("s-{}", self.chance.below(NAMES))
            .parse()
            .expect("a legal name");
        let act = self.chance.below(100);
        let named = self.host.sprite(&self.world.org, &name).await;
        let Ok(sprite) = named else {
            return self.creates(name).await;
        };
        match act {
            0..5 => self.creates(name).await,
            5..23 => self.calls(sprite.id).await,
            23..27 => self.keeps(sprite.id).await,
            27..30 => self.restores(sprite.id).await,
            30..42 => self.attaches(sprite.id, Hold::Session).await,
            42..58 => self.attaches(sprite.id, Hold::Connection).await,
            58..66 => self.sleeps(sprite.id).await,
            66..73 => self.puts_task(sprite.id).await,
            73..79 => self.sets_policy(&sprite).await,
            79..85 => self.changes(sprite.id).await,
            85..89 => self.restarts(sprite.id).await,
            89..92 => self.destroys(sprite.id).await,
            92..96 => self.looks(sprite.id).await,
            _ => self.ends_machine(sprite.id),
        }
    }

    fn seconds(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.chance.below(below * 1000))
    }

    /// Waits for an answer, which comes whatever happens.
    async fn answered<T, E: std::error::Error>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let note = &self.world.weather;
        note.note(&format!("{what} …"));
        match timeout(ANSWERED, request).await {
            Ok(Ok(answer)) => {
                note.note(&format!("{what}: done"));
                Some(answer)
            }
            Ok(Err(error)) => {
                // The text of an error names ids, which are random.
                let kind = format!("{error:?}");
                let kind = kind.split([' ', '(', '{']).next().unwrap_or_default();
                note.note(&format!("{what}: {kind}"));
                None
            }
            Err(_) => {
                let broken = format!("{what}: no answer within {ANSWERED:?}");
                self.world.model.broken(broken);
                None
            }
        }
    }

    async fn creates(mut self, name: SpriteName) {
        let mut what = format!("create {name}");
        let mut new = NewSprite::named(name);
        if self.chance.below(3) == 0
            && let Some(source) = self.world.rows().first()
        {
            let checkpoint = self.any_checkpoint(source.id).await;
            let checkpoint = checkpoint.filter(|_| self.chance.below(2) == 0);
            what = format!("{what} from {}", self.world.name(source.id));
            new.from = Some(ForkOf {
                sprite: source.id,
                checkpoint,
            });
        }
        self.answered(&what, self.host.create(&self.world.org, new))
            .await;
    }

    async fn wakes(&self, sprite: SpriteId) -> Option<Held> {
        let what = format!("wake {}", self.world.name(sprite));
        let awake = self.answered(&what, self.host.awake(sprite)).await?;
        self.world.model.awake(sprite);
        let life = self.world.model.life(sprite);
        self.world.model.holds(sprite, life, Hold::Call, true);
        Some(Held {
            world: self.world.clone(),
            sprite,
            life,
            hold: Hold::Call,
            awake,
        })
    }

    /// One that ends by itself, with or without a command.
    async fn calls(mut self, sprite: SpriteId) {
        let Some(held) = self.wakes(sprite).await else {
            return;
        };
        if self.chance.below(2) == 0 {
            let stream = held.awake.open(&command("true"));
            let ended = timeout(ANSWERED, read_to_end(stream)).await;
            if ended.is_err() {
                let name = self.world.name(sprite);
                self.world.model.broken(format!("{name}: a command hangs"));
            }
        }
        sleep(self.seconds(90)).await;
    }

    /// Somebody who is attached, says something now and then, and leaves.
    async fn attaches(mut self, sprite: SpriteId, hold: Hold) {
        let Some(mut held) = self.wakes(sprite).await else {
            return;
        };
        let mut stream = held.awake.open(&command("cat"));
        match timeout(ANSWERED, stream.receiver.recv()).await {
            Ok(Ok(Some(_started))) => {}
            Ok(_ended) => return,
            Err(_) => {
                let name = self.world.name(sprite);
                return self
                    .world
                    .model
                    .broken(format!("{name}: no command starts"));
            }
        }
        held.lasts(hold);
        for _ in 0..self.chance.below(5) {
            sleep(self.seconds(120)).await;
            if !self.echoes(sprite, &mut stream).await {
                return;
            }
        }
    }

    /// Says something, and hears it; says whether the connection is still there.
    async fn echoes(&self, sprite: SpriteId, stream: &mut Stream) -> bool {
        let frame = Frame::data(FrameKind::Stdin, b"x".to_vec().into());
        let heard = async {
            if stream.sender.send(frame).await.is_err() {
                return false;
            }
            match stream.receiver.recv().await {
                Ok(Some(frame)) => frame.kind == FrameKind::Stdout,
                Ok(None) | Err(_) => false,
            }
        };
        let name = self.world.name(sprite);
        match timeout(ANSWERED, heard).await {
            Ok(heard) => {
                let how = if heard { "is heard" } else { "is cut off" };
                self.world
                    .weather
                    .note(&format!("a client of {name} {how}"));
                heard
            }
            Err(_) => {
                let broken = format!("{name} does not wake for what a client sent");
                self.world.model.broken(broken);
                false
            }
        }
    }

    async fn sleeps(mut self, sprite: SpriteId) {
        let within = self.seconds(20);
        let what = format!("sleep {}", self.world.name(sprite));
        self.world.model.nap(sprite, true);
        self.answered(&what, self.host.sleep(sprite, within)).await;
        self.world.model.nap(sprite, false);
    }

    async fn puts_task(mut self, sprite: SpriteId) {
        let name = "build".parse().expect("a legal name");
        let what = format!("task of {}", self.world.name(sprite));
        if self.chance.below(4) == 0 {
            self.answered(&what, self.host.delete_task(sprite, &name))
                .await;
            return;
        }
        let expire = Duration::from_secs(1 + self.chance.below(120));
        let put = self.host.put_task(sprite, name, expire, IfTaken::Extend);
        self.answered(&what, put).await;
    }

    async fn sets_policy(mut self, sprite: &Sprite) {
        let what = format!("policy of {}", self.world.name(sprite.id));
        let rules = vec![NetworkRule::Include {
            include: Preset::Defaults,
        }];
        let policy = match self.chance.below(4) {
            0 => Policy::Network(NetworkPolicy { rules }),
            1 => Policy::Network(NetworkPolicy::default()),
            2 => Policy::Resources(ResourceLimits::default()),
            _ => Policy::Privileges(Privileges {
                profile: Profile::Minimal,
                ..Privileges::default()
            }),
        };
        self.answered(&what, self.host.set_policy(sprite, policy))
            .await;
    }

    async fn changes(mut self, sprite: SpriteId) {
        let what = format!("settings of {}", self.world.name(sprite));
        let timeout = match self.chance.below(3) {
            0 => IdleTimeout::Never,
            1 => IdleTimeout::Server,
            _ => IdleTimeout::After(Duration::from_secs(1 + self.chance.below(60))),
        };
        let traffic = self.chance.below(2) == 0;
        let connections = if traffic {
            Connections::Traffic
        } else {
            Connections::Open
        };
        // Told before, where it lets the sprite sleep: it may at once.
        self.world.model.traffic(sprite, true);
        let change = Change {
            idle_timeout: Some(timeout),
            connections: Some(connections),
            ..Change::default()
        };
        // Whether it is `open` now is not certain if that failed, or if somebody else changed it meanwhile.
        self.answered(&what, self.host.update(sprite, change)).await;
    }

    /// Makes a checkpoint, or deletes one.
    async fn keeps(mut self, sprite: SpriteId) {
        let name = self.world.name(sprite);
        if self.chance.below(4) > 0 {
            let what = format!("checkpoint of {name}");
            let kept = self.host.checkpoint(sprite, String::new());
            if let Some(kept) = self.answered(&what, kept).await {
                self.world.model.checkpoint(sprite, kept.id, true);
            }
        } else if let Some(id) = self.any_checkpoint(sprite).await {
            // From here on it may be gone.
            self.world.model.checkpoint(sprite, id, false);
            let what = format!("delete {id} of {name}");
            self.answered(&what, self.host.delete_checkpoint(sprite, id))
                .await;
        }
    }

    async fn restores(mut self, sprite: SpriteId) {
        let Some(id) = self.any_checkpoint(sprite).await else {
            return;
        };
        let what = format!("restore {id} of {}", self.world.name(sprite));
        self.world.model.drop_asked(sprite, true);
        let begun = self.answered(&what, self.host.restore(sprite, id)).await;
        if let Some(restoring) = begun {
            self.answered(&what, restoring.done()).await;
        }
        self.world.model.drop_asked(sprite, false);
    }

    async fn any_checkpoint(&mut self, sprite: SpriteId) -> Option<CheckpointId> {
        let found = self.host.checkpoints(sprite).await.ok()?.all;
        let count = u64::try_from(found.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(self.chance.below(count)).ok()?;
        Some(found[at].id)
    }

    async fn restarts(&self, sprite: SpriteId) {
        let what = format!("restart {}", self.world.name(sprite));
        self.world.model.drop_asked(sprite, true);
        self.answered(&what, self.host.restart(sprite)).await;
        self.world.model.drop_asked(sprite, false);
    }

    async fn destroys(&self, sprite: SpriteId) {
        let what = format!("destroy {}", self.world.name(sprite));
        self.world.model.drop_asked(sprite, true);
        self.answered(&what, self.host.destroy(sprite)).await;
        // Once announced it is done, now or later.
    }

    async fn looks(&self, sprite: SpriteId) {
        let what = format!("check {}", self.world.name(sprite));
        self.answered(&what, self.host.check(sprite)).await;
    }

    fn ends_machine(&self, sprite: SpriteId) {
        if let Some(machine) = self.world.driver.machine_of(sprite) {
            let name = self.world.name(sprite);
            self.world
                .weather
                .note(&format!("the machine of {name} ends"));
            // What was in it is lost, if it ran.
            self.world.model.kept(sprite, false);
            machine.end("chance");
        }
    }
}

/// A hold that the model knows of for as long as it lasts.
struct Held {
    world: Arc<World>,
    sprite: SpriteId,
    life: u64,
    hold: Hold,
    awake: Awake,
}

impl Held {
    fn lasts(&mut self, hold: Hold) {
        let model = &self.world.model;
        model.holds(self.sprite, self.life, self.hold, false);
        self.awake.lasts(hold);
        self.hold = hold;
        model.holds(self.sprite, self.life, hold, true);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before it is let go in truth.
        self.world
            .model
            .holds(self.sprite, self.life, self.hold, false);
    }
}

fn command(program: &str) -> Request {
    Request::Exec(ExecSpec {
        path: program.to_owned(),
        argv: vec![program.to_owned()],
        env: Vec::new(),
        dir: None,
        tty: None,
        stdin: program == "cat",
        max_run_after_disconnect_ms: None,
        ports: false,
    })
}

/// The exit status; `None`: the stream broke.
async fn read_to_end(mut stream: Stream) -> Option<u8> {
    while let Ok(Some(frame)) = stream.receiver.recv().await {
        if let Ok(Reply::Exited { code }) = frame.message::<Reply>() {
            return Some(code);
        }
    }
    None
}

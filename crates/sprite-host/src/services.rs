//! Services: what a sprite is to keep running.
//!
//! The catalog holds what there is to be; the agent makes it so. It is told all of it, with a number that grows with
//! every change, whenever a machine begins or is taken over and beside everything that is asked about services. So it
//! does not matter in which order callers reach it, and what was stored right before a crash is told by the next
//! start. An agent that knows already leaves everything as it is.
//!
//! Everything but a look at the catalog wakes the sprite; nothing that services do holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::link::{LinkError, Receiver, Stream};
use sprite_agent_api::message::{Failure, FailureKind, Request};
use sprite_agent_api::services::{
    ServiceSet, ServicesCall, ServicesReply, ServicesSpec, WantedService,
};
use sprite_catalog::{CatalogError, ServiceChange, ServiceChangeError, Services, Sprite};
use sprite_machine::Machine;
use sprite_types::{ServiceName, ServiceRun, ServiceSpecError, SpriteId};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument;

use crate::agent::{self, AskError};
use crate::awake::{Awake, open_stream};
use crate::check::look;
use crate::enforce::EnforceError;
use crate::error::WakeError;
use crate::fault::FaultPoint;
use crate::host::{self, Host};
use crate::registry::Look;
use crate::shared::Shared;

/// Where a sprite's URL leads unless a service says otherwise. Source: behaviour reference §4.4.
const HTTP_PORT: u16 = 8080;

/// How long an agent may take to say that it knows.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// Why something was not done about services.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It could not be described so.
    #[error(transparent)]
    Spec(#[from] ServiceSpecError),
    /// The change was not made.
    #[error(transparent)]
    Change(#[from] ServiceChangeError),
    /// The sprite could not be woken. Nothing was changed.
    #[error("wake the sprite")]
    Wake(#[from] WakeError),
    /// The agent would not.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The agent could not be reached. A change is stored, and holds from the sprite's next start.
    #[error("reach the agent: {cause}")]
    Lost {
        /// Why.
        cause: String,
    },
    /// The host shuts down. If a change is stored, it holds from the next start on.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read.
    #[error("read the services")]
    Catalog(#[from] CatalogError),
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A client: it wakes the sprite and keeps it awake while it is answered.
    Outside,
    /// A program in the sprite, which runs then. It keeps nothing awake.
    Inside,
}

/// What the agent tells about what was asked.
pub struct ServiceTelling {
    receiver: Receiver,
    /// Dropping it tells the agent that nobody listens any more.
    _sender: sprite_agent_api::link::Sender,
    awake: Option<Awake>,
}

impl fmt::Debug for ServiceTelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTelling").finish_non_exhaustive()
    }
}

impl ServiceTelling {
    /// Holds the sprite awake no more. What is told goes on for as long as its machine runs.
    pub fn release(&mut self) {
        self.awake = None;
    }

    /// What is told next; `None` when all was.
    ///
    /// # Errors
    /// The agent would not, or cannot be reached any more.
    ///
    /// # Cancel safety
    /// Safe: cancelled, nothing was taken.
    pub async fn next(&mut self) -> Result<Option<ServicesReply>, ServiceError> {
        let Some(frame) = self.receiver.recv().await.map_err(lost)? else {
            return Ok(None);
        };
        match frame.message::<ServicesReply>() {
            Ok(ServicesReply::Failed(failure)) => Err(ServiceError::Refused(failure)),
            Ok(
                reply @ (ServicesReply::Applied
                | ServicesReply::States { .. }
                | ServicesReply::Event(_)
                | ServicesReply::Listening),
            ) => Ok(Some(reply)),
            Err(_) => Err(ServiceError::Lost {
                cause: "it said what cannot be read".to_owned(),
            }),
        }
    }
}

fn lost(error: LinkError) -> ServiceError {
    ServiceError::Lost {
        cause: error.to_string(),
    }
}

/// Where a sprite's URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// The port.
    pub port: u16,
    /// The service that has it and is to run: if nothing listens there, [`Host::demand_service`] helps.
    pub service: Option<ServiceName>,
}

impl Host {
    /// A sprite's services as they are to be. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn services(&self, sprite: SpriteId) -> Result<Arc<Services>, ServiceError> {
        Ok(self.shared().catalog.services(sprite).await?)
    }

    /// Wakes the sprite, changes its services, and asks its agent. When this returns, the change is durable and the
    /// agent knows it.
    ///
    /// # Errors
    /// See [`ServiceError`].
    ///
    /// # Cancel safety
    /// Cancelled, the change is made and told all the same, or not at all.
    ///
    /// # Crash safety
    /// After a crash either nothing has changed, or the next start tells the agent.
    pub async fn change_service(
        &self,
        sprite: SpriteId,
        change: ServiceChange,
        call: ServicesCall,
        asker: Asker,
    ) -> Result<ServiceTelling, ServiceError> {
        let shared = self.shared();
        if let ServiceChange::Put(_, spec) = &change {
            spec.check()?;
        }
        // What is wrong in any case wakes nobody.
        shared.catalog.services(sprite).await?.check(&change)?;
        let way = Way::to(shared, sprite, asker).await?;
        let (tell, told) = oneshot::channel();
        let owner = shared.clone();
        let work = async move {
            let changed = change_and_ask(&owner, sprite, &change, call, way).await;
            // Whoever does not wait any more needs no answer.
            let _ = tell.send(changed);
        };
        shared.spawn(work.in_current_span());
        told.await.unwrap_or(Err(ServiceError::Closing))
    }

    /// Wakes the sprite, and asks its agent about services.
    ///
    /// # Errors
    /// See [`ServiceError`].
    ///
    /// # Cancel safety
    /// Cancelled, nothing is held.
    pub async fn ask_services(
        &self,
        sprite: SpriteId,
        call: ServicesCall,
        asker: Asker,
    ) -> Result<ServiceTelling, ServiceError> {
        let shared = self.shared();
        let way = Way::to(shared, sprite, asker).await?;
        let services = shared.catalog.services(sprite).await?;
        ask(shared, way, Arc::unwrap_or_clone(services), call).await
    }

    /// Where the sprite's URL leads. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn http_target(&self, sprite: SpriteId) -> Result<HttpTarget, ServiceError> {
        let services = self.services(sprite).await?;
        let has_port = |service: &sprite_catalog::Service| {
            let port = service.spec.http_port?.get();
            let wanted = match service.run {
                ServiceRun::Started => Some(service.name.clone()),
                // A person's stop is not undone by a visitor.
                ServiceRun::Stopped => None,
            };
            Some(HttpTarget {
                port,
                service: wanted,
            })
        };
        let target = services.services.iter().find_map(has_port);
        Ok(target.unwrap_or(HttpTarget {
            port: HTTP_PORT,
            service: None,
        }))
    }

    /// Starts the service that has the sprite's URL unless it runs, without waiting for a restart that is due later,
    /// and waits until its port is listened on. Wakes the sprite.
    ///
    /// # Errors
    /// See [`ServiceError`]; `Refused` with the kind `NotReady`: not within that time.
    ///
    /// # Cancel safety
    /// Safe; the service is started all the same.
    pub async fn demand_service(
        &self,
        sprite: SpriteId,
        name: &ServiceName,
        within: Duration,
    ) -> Result<(), ServiceError> {
        let call = ServicesCall::Demand {
            name: name.clone(),
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        };
        let mut telling = self.ask_services(sprite, call, Asker::Outside).await?;
        let late = || {
            ServiceError::Refused(Failure {
                kind: FailureKind::NotReady,
                message: format!("service {name} does not listen yet"),
            })
        };
        let said = timeout(within + KNOWN_WITHIN, telling.next()).await;
        match said.map_err(|_| late())?? {
            Some(ServicesReply::Listening) => Ok(()),
            Some(
                ServicesReply::Applied
                | ServicesReply::States { .. }
                | ServicesReply::Event(_)
                | ServicesReply::Failed(_),
            )
            | None => Err(late()),
        }
    }
}

/// How the agent is reached.
enum Way {
    Held(Awake),
    Free(Arc<dyn Machine>),
}

impl Way {
    async fn to(shared: &Arc<Shared>, sprite: SpriteId, asker: Asker) -> Result<Self, WakeError> {
        match asker {
            Asker::Outside => Ok(Self::Held(host::awake(shared, sprite).await?)),
            Asker::Inside => match look(shared, sprite).await {
                Some(Look::Awake(machine)) => Ok(Self::Free(machine)),
                // It falls asleep in this moment, and who asked with it.
                Some(Look::Busy | Look::Asleep | Look::Failed(_)) | None => Err(WakeError::Busy),
            },
        }
    }

    fn open(&self, shared: &Shared, request: &Request) -> Stream {
        match self {
            Self::Held(awake) => awake.open(request),
            Self::Free(machine) => open_stream(machine, shared.epoch, request),
        }
    }
}

async fn change_and_ask(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    change: &ServiceChange,
    call: ServicesCall,
    way: Way,
) -> Result<ServiceTelling, ServiceError> {
    let services = shared
        .catalog
        .change_service(sprite, change, shared.time())
        .await?;
    shared.fault(FaultPoint::ServiceStored).await;
    ask(shared, way, services, call).await
}

/// Tells the agent what there is to be, asks, and waits until it knows.
async fn ask(
    shared: &Shared,
    way: Way,
    services: Services,
    call: ServicesCall,
) -> Result<ServiceTelling, ServiceError> {
    let Stream { sender, receiver } = way.open(shared, &request(services, call));
    let mut telling = ServiceTelling {
        receiver,
        _sender: sender,
        awake: match way {
            Way::Held(awake) => Some(awake),
            Way::Free(_) => None,
        },
    };
    let late = || ServiceError::Lost {
        cause: "it did not answer in time".to_owned(),
    };
    let known = timeout(KNOWN_WITHIN, telling.next()).await;
    match known.map_err(|_| late())?? {
        Some(ServicesReply::Applied) => Ok(telling),
        Some(
            ServicesReply::States { .. }
            | ServicesReply::Event(_)
            | ServicesReply::Listening
            | ServicesReply::Failed(_),
        )
        | None => Err(ServiceError::Lost {
            cause: "it answered something else".to_owned(),
        }),
    }
}

fn request(services: Services, call: ServicesCall) -> Request {
    let all = services.services.into_iter();
    let set = ServiceSet {
        revision: services.revision,
        services: all
            .map(|service| WantedService {
                name: service.name,
                spec: service.spec,
                run: service.run,
            })
            .collect(),
    };
    Request::Services(ServicesSpec {
        // An agent from before there were services is told only of some.
        set: (set.revision > 0).then_some(set),
        call,
    })
}

/// Tells a machine that begins, or is taken over, what there is to be. One that cannot have services runs without.
pub(crate) async fn tell(
    shared: &Shared,
    sprite: &Sprite,
    machine: &Arc<dyn Machine>,
) -> Result<(), EnforceError> {
    let services = shared.catalog.services(sprite.id).await?;
    if services.revision == 0 {
        return Ok(());
    }
    let request = request(Arc::unwrap_or_clone(services), ServicesCall::Apply);
    let within = shared.options.boot_within;
    match agent::tell_services(machine, shared.epoch, &request, within).await {
        Err(AskError::Refused(failure)) => {
            tracing::warn!(reason = failure.message, "agent does not take the services");
            Ok(())
        }
        // Whatever comes after it is told anew.
        Err(AskError::Exited(_)) => Ok(()),
        told => Ok(told?),
    }
}

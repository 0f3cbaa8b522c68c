//! One replica acts at a time: the one that holds a Lease.
//!
//! # Guarantees
//! A process that can no longer renew its lease ends before another one may take it, whatever their
//! clocks say: a lease has run out when it was seen unchanged for as long as it holds. A process that is
//! told to stop gives the lease back, so that the next one starts at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// The Lease's name.
pub(crate) const LEASE: &str = "anneal-operator";
/// How long a lease holds without renewal.
const HOLDS: Duration = Duration::from_secs(12);
/// How long the holder tries to renew before it gives up.
const PATIENCE: Duration = Duration::from_secs(8);
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// A claim on the lease.
#[derive(Clone)]
pub(crate) struct Election {
    leases: Api<Lease>,
    /// Who we are; no two processes have the same.
    identity: String,
    /// The last change of another one's lease, and when it was seen.
    seen: Arc<Mutex<Option<(LeaseSpec, Instant)>>>,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, identity: String) -> Self {
        let seen = Arc::new(Mutex::new(None));
        Self { leases: Api::namespaced(client, namespace), identity, seen }
    }

    /// Waits until the lease is ours.
    pub(crate) async fn win(&self) {
        loop {
            match self.claim().await {
                Ok(true) => break,
                Ok(false) => debug!("another replica leads"),
                Err(error) => warn!(%error, "cannot ask for the lease"),
            }
            sleep(EVERY).await;
        }
        info!(identity = self.identity, "this replica leads");
    }

    /// Renews the lease until that fails for too long.
    pub(crate) async fn hold(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < PATIENCE {
            sleep(EVERY).await;
            // An API server that is slow may take all the time there is.
            let (start, left) = (Instant::now(), PATIENCE.saturating_sub(renewed.elapsed()));
            match timeout(left, self.claim()).await {
                // Others count from the write, which came after this.
                Ok(Ok(true)) => renewed = start,
                Ok(Ok(false)) => break,
                Ok(Err(error)) => warn!(%error, "cannot renew the lease"),
                Err(_) => warn!("the API server does not answer in time"),
            }
        }
        warn!("the lease is lost");
    }

    /// Gives the lease back: nobody holds it.
    pub(crate) async fn release(&self) {
        let given = async {
            // The resource version lets no other holder's lease be given back.
            let found = self.leases.get(LEASE).await?;
            let spec = found.spec.unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            let spec = LeaseSpec { holder_identity: None, ..spec };
            let lease = Lease { metadata: found.metadata, spec: Some(spec) };
            self.leases.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ())
        };
        let given: Result<Result<(), kube::Error>, _> = timeout(EVERY, given).await;
        match given {
            Ok(Ok(())) => debug!("the lease is given back"),
            Ok(Err(error)) => warn!(%error, "cannot give the lease back"),
            Err(_) => warn!("cannot give the lease back: the API server does not answer in time"),
        }
    }

    /// Takes or renews the lease; `false` while another one holds it.
    async fn claim(&self) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let found = self.leases.get_opt(LEASE).await?;
        let Some(found) = found else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.spec(None, now)),
            };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = found.spec.clone().unwrap_or_default();
        let is_ours = spec.holder_identity.as_deref() == Some(&self.identity);
        if !is_ours && !self.has_run_out(&spec) {
            return Ok(false);
        }
        // The resource version in the metadata lets only one of two claims through.
        let spec = self.spec(is_ours.then_some(spec), now);
        let lease = Lease { metadata: found.metadata, spec: Some(spec) };
        won(self.leases.replace(LEASE, &PostParams::default(), &lease).await)
    }

    fn spec(&self, ours: Option<LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let since = ours.and_then(|spec| spec.acquire_time).unwrap_or(MicroTime(now));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(HOLDS.as_secs() as i32),
            acquire_time: Some(since),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }
    }

    /// Whether nobody holds the lease, or its holder has not renewed it for as long as it holds by our
    /// own clock.
    fn has_run_out(&self, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        let holds = spec.lease_duration_seconds.and_then(|time| u64::try_from(time).ok());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some((last, at)) if last == spec => {
                at.elapsed() > holds.map_or(HOLDS, Duration::from_secs)
            }
            _ => {
                *seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }
}

/// A conflict means that another one was faster.
fn won(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

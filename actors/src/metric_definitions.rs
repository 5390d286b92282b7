//! Every metric of the actors: one place, each described. `docs/metrics.md` lists them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use shoal_core::plan::Plan;

/// Figures of one of the leader's decisions.
#[derive(Clone)]
pub struct LeaderMetrics {
    decisions: Counter<u64, AtomicU64>,
    steps: Counter<u64, AtomicU64>,
    failures: Counter<u64, AtomicU64>,
    seconds: Histogram,
}

impl LeaderMetrics {
    /// Describe them, under the decision's name.
    pub fn register(registry: &mut Registry, decider: &str) -> Self {
        let metrics = Self {
            decisions: Counter::default(),
            steps: Counter::default(),
            failures: Counter::default(),
            seconds: Histogram::new([0.000_01, 0.000_1, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0]),
        };
        let name = |what: &str| format!("shoal_{decider}_{what}");
        registry.register(
            name("decisions"),
            "Decisions taken while this manager leads",
            metrics.decisions.clone(),
        );
        registry.register(name("steps"), "Steps that decisions wished for", metrics.steps.clone());
        registry.register(
            name("failed_proposals"),
            "Plans that could not be committed whole and were decided anew",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            name("decision"),
            "Time that a decision takes",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }

    pub(crate) fn decided(&self, took: Duration, plan: &Plan) {
        self.decisions.inc();
        self.steps.inc_by(plan.steps.len() as u64);
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}

/// Figures of the dispatcher.
#[derive(Clone, Default)]
pub struct DispatcherMetrics {
    pub(crate) sessions: Gauge<i64, AtomicI64>,
    pub(crate) heartbeats: Counter<u64, AtomicU64>,
    pub(crate) assignments: Counter<u64, AtomicU64>,
    pub(crate) routes: Counter<u64, AtomicU64>,
    pub(crate) reports: Counter<u64, AtomicU64>,
    pub(crate) reports_dropped: Counter<u64, AtomicU64>,
    pub(crate) declared_down: Counter<u64, AtomicU64>,
}

impl DispatcherMetrics {
    /// Describe them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "shoal_dispatcher_sessions",
            "Nodes with an open session, while this manager leads",
            metrics.sessions.clone(),
        );
        registry.register(
            "shoal_dispatcher_heartbeats",
            "Heartbeats received from nodes",
            metrics.heartbeats.clone(),
        );
        registry.register(
            "shoal_dispatcher_assignments",
            "Assignment messages sent to nodes",
            metrics.assignments.clone(),
        );
        registry.register(
            "shoal_dispatcher_routes",
            "Messages with changed routes sent to nodes",
            metrics.routes.clone(),
        );
        registry.register(
            "shoal_dispatcher_reports",
            "Task reports received from nodes",
            metrics.reports.clone(),
        );
        registry.register(
            "shoal_dispatcher_reports_dropped",
            "Task reports dropped because too many wait; the nodes send them again",
            metrics.reports_dropped.clone(),
        );
        registry.register(
            "shoal_dispatcher_nodes_silenced",
            "Nodes declared down or disconnected",
            metrics.declared_down.clone(),
        );
        metrics
    }
}

/// All figures of a node's actors, and the registry that describes them.
pub struct Metrics {
    registry: Arc<std::sync::Mutex<Registry>>,
    /// The scheduler's decisions.
    pub scheduler: LeaderMetrics,
    /// The orchestrator's decisions.
    pub orchestrator: LeaderMetrics,
    /// The dispatcher.
    pub dispatcher: DispatcherMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let scheduler = LeaderMetrics::register(&mut registry, "scheduler");
        let orchestrator = LeaderMetrics::register(&mut registry, "orchestrator");
        let dispatcher = DispatcherMetrics::register(&mut registry);
        Self { registry: Arc::new(std::sync::Mutex::new(registry)), scheduler, orchestrator, dispatcher }
    }
}

impl Metrics {
    /// Let others describe what they measure.
    pub fn with_registry(&self, describe: impl FnOnce(&mut Registry)) {
        describe(&mut self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// All figures as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

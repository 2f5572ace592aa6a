//! Starts what works on the bucket: the store and the compactor.

use anyhow::Result;
use serde_json::Value;

use crate::quickstart::demonstration::{Demonstration, addresses, create_dir};
use crate::quickstart::history;
use crate::quickstart::seeded::SeededAnswers;

impl Demonstration {
    /// Writes the blocks of the history into the bucket, and starts the store.
    pub(in crate::quickstart) async fn start_store(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        create_dir(&plan.bucket)?;
        if let Some(generate) = history::generate(&plan) {
            self.run(&generate.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        let mut store = history::store(&plan);
        store.extend(addresses(plan.store_http, plan.store_grpc));
        self.ports.release(&[plan.store_http, plan.store_grpc]);
        self.start("store", store)?;
        self.wait_ready("store", plan.store_http).await
    }

    /// Starts the compactor. What the history answers before is kept for the checks.
    pub(in crate::quickstart) async fn start_compactor(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        self.seeded = Some(SeededAnswers::ask(&self.querier(), &plan, "").await?);
        let mut compactor = history::compactor(&plan);
        compactor.extend(addresses(plan.compactor_http, plan.compactor_grpc));
        self.ports.release(&[plan.compactor_http, plan.compactor_grpc]);
        self.start("compactor", compactor)?;
        self.wait_ready("compactor", plan.compactor_http).await
    }

    /// The answers about the history before the compactor was started.
    pub(in crate::quickstart) fn seeded(&self) -> Option<&SeededAnswers> {
        self.seeded.as_ref()
    }

    /// The response of the store's `/api/v1/blocks`.
    pub(in crate::quickstart) async fn store_blocks(&self) -> Result<Value> {
        self.http.json(&format!("http://{}/api/v1/blocks", self.plan.store_http)).await
    }
}

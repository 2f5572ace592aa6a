//! Many small stores for the benchmarks of the fan-out.
//!
//! They run in a process of their own, so that the memory of the querier can be measured.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use model::{Labels, Sample, TimeRange};
use series::{AggrChunk, Series};
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, RequestLimits, SeriesFrame, SeriesRequest,
    SeriesStream, Store, StoreError, StoreInfo, StoreServer,
};
use tests::{Process, wait_for};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::RoutesBuilder;

/// The first argument with which the benchmark program runs these stores.
pub(crate) const ROLE: &str = "--serve-stores";
/// Time of the last sample in seconds since the epoch.
pub(crate) const END: i64 = 1_790_000_000;
const INTERVAL: i64 = 15;
/// The line of the log that lists the addresses.
const LISTENING: &str = "listening ";

/// How many stores there are, and what each of them has.
#[derive(Clone, Copy)]
pub(crate) struct StoresShape {
    pub(crate) stores: usize,
    /// Series `bench` of each store.
    pub(crate) series: usize,
    /// Samples of each series, 15 s apart. Their values are not compressible.
    pub(crate) samples: usize,
    /// Age at which a store ends its connections; zero for no limit.
    pub(crate) age: Duration,
}

/// The stores of a running process.
pub(crate) struct RunningStores {
    _process: Process,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl RunningStores {
    /// Starts a process with these stores.
    pub(crate) fn start(shape: StoresShape, dir: &Path) -> Self {
        let me = std::env::current_exe().expect("a running program has a file");
        let StoresShape { stores, series, samples, age } = shape;
        let args = [ROLE.to_owned(), format!("{stores},{series},{samples},{}", age.as_millis())];
        let process = Process::start(&me, &args, &dir.join("stores.log"));
        let addresses = wait_for("the stores", Duration::from_secs(30), || {
            let output = process.output();
            let line = output.lines().find_map(|line| line.strip_prefix(LISTENING));
            let addresses = line.map(|line| line.split(' ').map_while(|text| text.parse().ok()).collect());
            addresses.filter(|found: &Vec<_>| found.len() == stores).ok_or(output)
        });
        Self { _process: process, addresses }
    }
}

/// One store; its series differ from those of other stores in the label `cluster`.
struct BenchStore {
    external: Labels,
    series: usize,
    chunks: Arc<Vec<AggrChunk>>,
}

#[tonic::async_trait]
impl Store for BenchStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("sidecar", vec![self.external.clone()], TimeRange::ALL))
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let (external, chunks) = (self.external.clone(), Arc::clone(&self.chunks));
        let series = (0..self.series).map(move |n| {
            let own = [("__name__", "bench"), ("instance", &format!("host-{n:05}")), ("job", "bench")];
            let labels = Labels::from_pairs(own).expect("the names differ").extended(&external);
            let chunks = if request.skip_chunks { Vec::new() } else { chunks.to_vec() };
            Ok(SeriesFrame::Series(vec![Series { labels, chunks }]))
        });
        Ok(stream::iter(series).boxed())
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let values = ["__name__", "cluster", "instance", "job"].map(str::to_owned).to_vec();
        Ok(LabelsAnswer { values, ..LabelsAnswer::default() })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        let values = match self.external.get(&request.label) {
            Some(value) => vec![value.to_owned()],
            None => (0..self.series).map(|n| format!("host-{n:05}")).collect(),
        };
        Ok(LabelsAnswer { values, ..LabelsAnswer::default() })
    }
}

fn chunks(samples: usize) -> Vec<AggrChunk> {
    let samples: Vec<Sample> = (0..samples as i64)
        .map(|i| {
            let at = (END - (samples as i64 - 1 - i) * INTERVAL) * 1000;
            Sample::new(at, (i as f64 * 0.7).sin())
        })
        .collect();
    AggrChunk::from_floats(&samples).expect("the times ascend")
}

/// Serves until the process is killed. `shape` is what [`RunningStores::start`] gives.
pub(crate) fn serve(shape: &str) {
    let numbers: Vec<usize> = shape.split(',').map(|n| n.parse().expect("a number")).collect();
    let [stores, series, samples, age] = numbers[..] else { panic!("expected four numbers, got {shape:?}") };
    let chunks = Arc::new(chunks(samples));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut addresses = String::new();
        for n in 0..stores {
            let external = [("cluster", format!("bench-{n:04}"))];
            let external = Labels::from_pairs(external).expect("one name");
            let store = BenchStore { external, series, chunks: Arc::clone(&chunks) };
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push_str(&format!("{} ", listener.local_addr().expect("it is bound")));
            let mut routes = RoutesBuilder::default();
            StoreServer::new(Arc::new(store), RequestLimits::default()).register(&mut routes);
            let mut server = tonic::transport::Server::builder();
            if age > 0 {
                server = server.max_connection_age(Duration::from_millis(age as u64));
            }
            let server = server.add_routes(routes.routes());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        println!("{LISTENING}{addresses}");
        std::future::pending::<()>().await;
    });
}

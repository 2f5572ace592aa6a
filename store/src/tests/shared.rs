//! Shared caches on real servers: they change the number of object reads and nothing else.

use std::process::Command;
use std::time::Duration;

use bucket::fault::FaultyStore;

use super::servers::{CacheServer, Damage, Kind, Proxy};
use super::*;

const HOUR: i64 = 3_600_000;
/// Series of the world.
const SERIES: usize = 600;

/// Three blocks of two hours.
fn write_world(dir: &Path) {
    for number in 0..3_i64 {
        let series: Vec<(Labels, Vec<Sample>)> = (0..SERIES)
            .map(|n| {
                let start = number * 2 * HOUR;
                let samples =
                    (0..240).map(|at| Sample::new(start + at * 30_000, ((n as i64 * at) % 977) as f64 * 1.1));
                (labels(&[("__name__", "up"), ("pod", &format!("p-{n:04}"))]), samples.collect())
            })
            .collect();
        let id = Ulid::from_parts(number as u64 + 1, 1);
        write_block(dir, id, &labels(&[("cluster", "c")]), &series);
    }
}

/// A store of the world that counts object reads, and has almost no cache in memory.
struct World {
    served: TestStore,
    objects: Arc<FaultyStore>,
    _data_dir: TempDir,
}

impl World {
    async fn serve(bucket_dir: &Path, config: &str, more: &[&str]) -> Self {
        let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir).unwrap();
        let objects = FaultyStore::new(Arc::new(inner), 1);
        let data_dir = tempfile::tempdir().unwrap();
        let (index, chunks) =
            (format!("--index-cache.config={config}"), format!("--store.caching-bucket.config={config}"));
        let mut flags = vec!["--index-cache-size=1"];
        if !config.is_empty() {
            flags.extend([index.as_str(), chunks.as_str()]);
        }
        flags.extend(more);
        let served = serve(&Bucket::new(objects.clone()), data_dir.path(), &flags).await;
        Self { served, objects, _data_dir: data_dir }
    }

    /// The whole world, and the number of object reads that it took.
    async fn ask(&self) -> (Vec<Series>, u64) {
        let before = self.objects.requests();
        let mut request = SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up")]);
        request.partial_response = storeapi::PartialResponse::Abort;
        let (found, warnings) = ask(&self.served.store, request).await.unwrap();
        assert_eq!((found.len(), warnings.len()), (SERIES, 0), "{warnings:?}");
        (found, self.objects.requests() - before)
    }

    /// Waits until everything is written to the shared caches.
    async fn written(&self) {
        let shared = &self.served.blocks.source().shared;
        let caches: Vec<_> = shared.index.iter().chain(&shared.chunks).collect();
        assert_eq!(caches.len(), 2);
        for _ in 0..2_000 {
            if caches.iter().all(|cache| cache.waiting_bytes() == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("pages are not written within 20 s");
    }

    /// Asks until no object is read, because all pages come from the shared caches.
    async fn until_shared(&self, expected: &[Series]) {
        for _ in 0..400 {
            let (found, reads) = self.ask().await;
            assert!(found == expected);
            if reads == 0 {
                return;
            }
            self.written().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pages do not come from the shared caches again");
    }
}

/// The answer of a store without shared caches, and its number of object reads.
async fn truth(bucket_dir: &Path) -> (Vec<Series>, u64) {
    let plain = World::serve(bucket_dir, "", &[]).await;
    let (expected, first) = plain.ask().await;
    let (again, reads) = plain.ask().await;
    assert!(again == expected && reads > 0 && first > 0, "{first} and {reads} object reads");
    (expected, reads)
}

async fn answers_are_equal_whatever_the_server_does(kind: Kind) {
    let Some(mut server) = CacheServer::start(kind, &[]) else { return };
    let bucket_dir = tempfile::tempdir().unwrap();
    write_world(bucket_dir.path());
    let (expected, plain_reads) = truth(bucket_dir.path()).await;
    let config = server.config(server.port);

    let first = World::serve(bucket_dir.path(), &config, &[]).await;
    let (cold, cold_reads) = first.ask().await;
    assert!(cold == expected && cold_reads >= plain_reads, "{cold_reads} object reads");
    first.written().await;
    first.until_shared(&expected).await;

    // A second store gets what the first one wrote. It reads what it needs to open the blocks.
    let second = World::serve(bucket_dir.path(), &config, &[]).await;
    let (found, opening_reads) = second.ask().await;
    assert!(found == expected && opening_reads < cold_reads, "{opening_reads} of {cold_reads} object reads");
    let (found, reads) = second.ask().await;
    assert!(found == expected && reads == 0, "{reads} object reads");

    server.flush();
    let (found, reads) = second.ask().await;
    assert!(found == expected && reads > 0, "{reads} object reads after a flush");
    second.until_shared(&expected).await;

    server.signal("STOP");
    for _ in 0..3 {
        let (found, reads) = second.ask().await;
        assert!(found == expected && reads > 0, "{reads} object reads of a server that hangs");
    }
    server.signal("CONT");
    second.until_shared(&expected).await;

    server.kill();
    for _ in 0..3 {
        let (found, reads) = second.ask().await;
        assert!(found == expected && reads > 0, "{reads} object reads without a server");
    }
    server.restart();
    second.until_shared(&expected).await;

    let asking = async {
        for _ in 0..20 {
            assert!(first.ask().await.0 == expected);
        }
    };
    let flushing = async {
        for _ in 0..40 {
            server.flush();
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    tokio::join!(asking, flushing);
}

async fn damaged_answers_are_ignored(kind: Kind) {
    let Some(server) = CacheServer::start(kind, &[]) else { return };
    let bucket_dir = tempfile::tempdir().unwrap();
    write_world(bucket_dir.path());
    let (expected, _) = truth(bucket_dir.path()).await;
    let proxy = Proxy::start(server.port).await;
    let world = World::serve(bucket_dir.path(), &server.config(proxy.port), &[]).await;
    world.until_shared(&expected).await;
    for damage in
        [Damage::Flip(50_000), Damage::Flip(2_000), Damage::Flip(20), Damage::Cut(100_000), Damage::Cut(3)]
    {
        proxy.damage(damage);
        for _ in 0..5 {
            assert!(world.ask().await.0 == expected, "{damage:?}");
        }
    }
    proxy.damage(Damage::None);
    world.until_shared(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_changes_no_answer() {
    answers_are_equal_whatever_the_server_does(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_changes_no_answer() {
    answers_are_equal_whatever_the_server_does(Kind::Memcached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_answers_of_redis_are_ignored() {
    damaged_answers_are_ignored(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_answers_of_memcached_are_ignored() {
    damaged_answers_are_ignored(Kind::Memcached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_redis_that_are_garbage_or_of_another_page_are_ignored() {
    let Some(server) = CacheServer::start(Kind::Redis, &[]) else { return };
    let bucket_dir = tempfile::tempdir().unwrap();
    write_world(bucket_dir.path());
    let (expected, _) = truth(bucket_dir.path()).await;
    let world = World::serve(bucket_dir.path(), &server.config(server.port), &[]).await;
    for script in [
        // A byte of each value is replaced.
        "local v = redis.call('GET', k); return string.sub(v, 1, 700) .. 'x' .. string.sub(v, 702)",
        "return 'garbage'",
        "return string.rep('x', 16396)",
        "return string.rep('x', 3000000)",
        // The value of another page of the same length.
        "return redis.call('GET', keys[i % #keys + 1])",
    ] {
        server.flush();
        world.until_shared(&expected).await;
        let script = format!(
            "local keys = redis.call('KEYS', 'isthmus:1:*'); local function value(i, k) {script} end; local new = {{}}; \
             for i, k in ipairs(keys) do new[i] = value(i, k) end; \
             for i, k in ipairs(keys) do redis.call('SET', k, new[i]) end; return #keys"
        );
        let port = server.port.to_string();
        let done = Command::new("redis-cli").args(["-p", &port, "EVAL", &script, "0"]).output().unwrap();
        let changed = String::from_utf8_lossy(&done.stdout).trim().parse::<usize>();
        assert!(changed.as_ref().is_ok_and(|keys| *keys > 10), "{changed:?} {done:?}");
        let (found, reads) = world.ask().await;
        assert!(found == expected && reads > 0, "{script}: {reads} object reads");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_were_damaged_before_they_were_cached_are_read_again() {
    let Some(server) = CacheServer::start(Kind::Redis, &[]) else { return };
    let bucket_dir = tempfile::tempdir().unwrap();
    write_world(bucket_dir.path());
    let (expected, _) = truth(bucket_dir.path()).await;
    let config = server.config(server.port);
    let segment = bucket_dir.path().join(Ulid::from_parts(1, 1).to_string()).join("chunks/000001");
    let sound = std::fs::read(&segment).unwrap();
    let mut damaged = sound.clone();
    damaged[30] ^= 1;
    std::fs::write(&segment, &damaged).unwrap();
    let first = World::serve(bucket_dir.path(), &config, &[]).await;
    let request = SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up")]);
    let (_, warnings) = ask(&first.served.store, request).await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("checksum"), "{warnings:?}");
    first.written().await;
    // As if only the transfer had been damaged.
    std::fs::write(&segment, &sound).unwrap();
    let second = World::serve(bucket_dir.path(), &config, &[]).await;
    assert!(second.ask().await.0 == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_tls_a_password_a_database_and_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["cache.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (dir.path().join("cert"), dir.path().join("key"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let (cert, key) = (cert_file.to_str().unwrap(), key_file.to_str().unwrap());
    let arguments = ["--port", "0", "--tls-port", "PORT", "--tls-cert-file", cert, "--tls-key-file", key];
    let arguments = [&arguments[..], &["--tls-auth-clients", "no", "--requirepass", "secret"]].concat();
    let Some(server) = CacheServer::start(Kind::Redis, &arguments) else { return };
    let bucket_dir = tempfile::tempdir().unwrap();
    write_world(bucket_dir.path());
    let (expected, _) = truth(bucket_dir.path()).await;
    let config = |password: &str| {
        format!(
            "{{type: REDIS, config: {{addr: '127.0.0.1:{}', password: {password}, db: 3, prefix: 'eu/', tls_enabled: true, \
             tls_config: {{ca_file: '{cert}', server_name: cache.test}}}}}}",
            server.port
        )
    };
    let world = World::serve(bucket_dir.path(), &config("secret"), &[]).await;
    world.until_shared(&expected).await;
    let port = server.port.to_string();
    let arguments = [
        "-p",
        &port,
        "--tls",
        "--cacert",
        cert,
        "--sni",
        "cache.test",
        "-a",
        "secret",
        "-n",
        "3",
        "RANDOMKEY",
    ];
    let done = Command::new("redis-cli").args(arguments).output().unwrap();
    assert!(String::from_utf8_lossy(&done.stdout).starts_with("eu/isthmus:1:"), "{done:?}");
    let refused = World::serve(bucket_dir.path(), &config("wrong"), &[]).await;
    for _ in 0..2 {
        let (found, reads) = refused.ask().await;
        assert!(found == expected && reads > 0, "{reads} object reads with a wrong password");
    }
}

//! The role sends what it scrapes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use prost::Message;
use proto::prometheus::WriteRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::role::{SocketAddr, TcpStream, TempDir, ask, get, start, stop, until, write};

/// Takes messages. Returns its address, and the series and times that it has.
async fn receive() -> (SocketAddr, Arc<Mutex<BTreeSet<(String, i64)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Arc::<Mutex<BTreeSet<_>>>::default());
    let samples = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive_all(stream, Arc::clone(&samples)));
        }
    });
    (address, received)
}

async fn receive_all(mut stream: TcpStream, received: Arc<Mutex<BTreeSet<(String, i64)>>>) {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let length = head.map(|head| {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            length.trim().parse::<usize>().unwrap()
        });
        if let Some((head, length)) = head.zip(length)
            && bytes.len() >= head + length
        {
            let body = snap::raw::Decoder::new().decompress_vec(&bytes[head..head + length]).unwrap();
            for series in WriteRequest::decode(&*body).unwrap().timeseries {
                let labels = series.labels.iter().map(|label| format!("{}={}", label.name, label.value));
                let name = labels.collect::<Vec<_>>().join(",");
                let times = series.samples.iter().map(|sample| (name.clone(), sample.timestamp));
                received.lock().unwrap().extend(times);
            }
            bytes.drain(..head + length);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            continue;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn config(target: SocketAddr, receiver: Option<SocketAddr>) -> String {
    let scrapes = format!(
        "global: {{scrape_interval: 200ms, external_labels: {{cluster: eu-1}}}}\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    let to = receiver.map(|receiver| {
        format!(
            "remote_write:\n- url: http://{receiver}/write\n  queue_config: {{batch_send_deadline: 100ms}}\n  \
             write_relabel_configs: [{{source_labels: [__name__], regex: up, action: keep}}]\n"
        )
    });
    scrapes + &to.unwrap_or_default()
}

/// The times of `up` that the role has.
async fn scraped(http: SocketAddr) -> BTreeSet<i64> {
    let (_, text) = get(http, "/api/v1/query?query=up[1h]").await;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let values = answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
    values.iter().map(|pair| (pair[0].as_f64().unwrap() * 1_000.0).round() as i64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_sent_from_a_reload_on_and_over_a_restart() {
    let (dir, (receiver, received)) = (TempDir::new().unwrap(), receive().await);
    write(dir.path(), "");
    let role = start(dir.path(), &[]).await;
    let http = role.http_address();
    write(dir.path(), &config(http, Some(receiver)));
    let (status, body) = ask(http, "POST", "/-/reload").await;
    assert_eq!(status, 200, "{body}");
    until("samples were received", async || received.lock().unwrap().len() > 3).await;
    let metrics = get(http, "/metrics").await.1;
    assert!(metrics.contains("prometheus_remote_storage_samples_total{remote_name="), "{metrics}");
    stop(role).await;
    // The address of the new one is another one.
    let role = start(dir.path(), &[]).await;
    let newest = scraped(role.http_address()).await.last().copied().unwrap();
    let has = |time: i64| received.lock().unwrap().iter().any(|(_, other)| *other == time);
    until("the last sample of the first start was received", async || has(newest)).await;
    let first = received.lock().unwrap().iter().map(|(_, time)| *time).min().unwrap();
    let expected: BTreeSet<i64> = scraped(role.http_address())
        .await
        .into_iter()
        .filter(|time| (first..=newest).contains(time))
        .collect();
    let found: BTreeSet<i64> = received.lock().unwrap().iter().map(|(_, time)| *time).collect();
    assert!(expected.is_subset(&found), "{expected:?} {found:?}");
    let names: BTreeSet<String> = received.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, BTreeSet::from([format!("__name__=up,cluster=eu-1,instance={http},job=self")]));

    println!("a reload without the section ends it");
    write(dir.path(), &config(http, None));
    let (status, body) = ask(role.http_address(), "POST", "/-/reload").await;
    assert_eq!(status, 200, "{body}");
    let folder = dir.path().join("data/remote_write");
    until("the position is removed", async || std::fs::read_dir(&folder).unwrap().count() == 0).await;
    stop(role).await;
}

//! Forms of requests: paths, forms, long request lines, selectors, shards.

use super::*;

fn count_of(answer: &Value) -> &Value {
    &answer["data"]["result"][0]["value"][1]
}

#[tokio::test]
async fn slashes_and_multipart_forms_are_accepted() {
    let querier = querier(&two_replicas().await, &[]).await;
    for path in ["//api/v1/query", "/api//v1/query/", "/api/v1///query"] {
        let answer = get(&querier, &format!("{path}?query=count(up)&time={AT}")).await;
        assert_eq!((answer.status, count_of(&answer.json())), (200, &json!("2")), "{path}: {}", answer.body);
    }
    let field = |name: &str, value: &str| {
        format!("--x-Y\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    for (path, fields) in [
        ("/api/v1/query", field("query", "count(up{job=~\".+\"})")),
        (
            "/api/v1/query_range",
            field("query", "count(up)") + &field("start", &AT.to_string()) + &field("end", &AT.to_string()),
        ),
        ("/api/v1/series", field("match[]", "up{job=\"api\"}") + &field("match[]", "up{job=\"db\"}")),
    ] {
        let body = format!("{fields}--x-Y--\r\n");
        let request = format!(
            "POST {path}?time={AT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
             content-type: Multipart/form-data; boundary=x-Y\r\n\r\n{body}",
            body.len()
        );
        let answer = send(querier.http_address(), &request).await.json();
        let data = &answer["data"];
        let found = match path {
            "/api/v1/series" => json!(data.as_array().map(Vec::len).map(|sets| sets.to_string())),
            "/api/v1/query" => count_of(&answer).clone(),
            _ => data["result"][0]["values"][0][1].clone(),
        };
        assert_eq!(found, "2", "{path}: {answer}");
    }
}

/// A GET request with a query string of this many bytes or a few more.
fn long_get(path: &str, query: &str, bytes: usize, connection: &str) -> String {
    let spaces = "%20".repeat(bytes.saturating_sub(query.len()).div_ceil(3));
    format!("GET {path}?{query}{spaces} HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\n\r\n")
}

#[tokio::test]
async fn request_lines_may_have_a_mebibyte() {
    let querier = querier(&two_replicas().await, &[]).await;
    let query = format!("time={AT}&query=count(up)");
    for bytes in [60_000, 66_000, 1_048_000] {
        let answer = send(querier.http_address(), &long_get("/api/v1/query", &query, bytes, "close")).await;
        assert_eq!((answer.status, count_of(&answer.json())), (200, &json!("2")), "{bytes}: {}", answer.body);
    }
    let values = long_get("/api/v1/label/job/values", "match[]=up", 100_000, "close");
    assert_eq!(send(querier.http_address(), &values).await.json()["data"], json!(["api", "db"]));

    println!("several requests on one connection");
    let first = long_get("/api/v1/query", &query, 70_000, "keep-alive");
    let both = first.clone() + &first + &long_get("/api/v1/query", &query, 10, "close");
    let answers = send(querier.http_address(), &both).await;
    assert_eq!(format!("{}{}", answers.head, answers.body).matches("200 OK").count(), 2, "{}", answers.body);
    assert_eq!(answers.body.matches("\"2\"]}]").count(), 3, "{}", answers.body);

    println!("a line that is too long");
    for bytes in [1_049_000, 3_000_000] {
        let answer =
            send(querier.http_address(), &long_get("/api/v1/query", &query, bytes, "keep-alive")).await;
        assert_eq!(
            (answer.status, &answer.json()["errorType"]),
            (414, &json!("bad_data")),
            "{}",
            answer.body
        );
        assert!(answer.body.contains("limit of 1048576 bytes"), "{}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    }

    println!("a query that is too long");
    let text = "x".repeat((512 << 10) + 1);
    let answer = post(&querier, "/api/v1/query", &format!("query={text}")).await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("bad_data")), "{}", answer.body);
    assert!(answer.body.contains("limit of 524288 bytes"), "{}", answer.body);
}

/// Grafana sends such selectors for the value "All" of a variable.
#[tokio::test]
async fn selectors_may_match_everything_beside_an_external_label() {
    let mut endpoints = two_replicas().await;
    endpoints.push(serve(Arc::new(ThanosSidecar(memory(&[("cluster", "us-1")], &["web", "db"])))).await);
    let lower = querier(&endpoints, &["--selector-label=tier=\"edge\""]).await;
    let upper = querier(&[lower.grpc_address().to_string()], &[]).await;
    for querier in [&lower, &upper] {
        for (selector, jobs) in [
            (r#"{cluster="us-1"}"#, &["db", "web"][..]),
            (r#"{cluster="us-1",job=~".*"}"#, &["db", "web"]),
            (r#"{cluster="us-1",job!="web"}"#, &["db"]),
            (r#"{cluster="us-1",job=""}"#, &[]),
            (r#"{cluster="us-1",pod=""}"#, &["db", "web"]),
            (r#"{cluster=~".+",job!="web"}"#, &["api", "db"]),
            (r#"{tier="edge"}"#, &["api", "db", "web"]),
            (r#"{tier="edge",job=~".*"}"#, &["api", "db", "web"]),
        ] {
            let escaped = selector.replace('"', "%22").replace('+', "%2B");
            let values = get(querier, &format!("/api/v1/label/job/values?match[]={escaped}")).await.json();
            assert_eq!(
                (&values["data"], values.get("warnings")),
                (&json!(jobs), None),
                "{selector}: {values}"
            );
            let names = get(querier, &format!("/api/v1/labels?match[]={escaped}")).await.json();
            assert_eq!(names["data"].as_array().unwrap().is_empty(), jobs.is_empty(), "{selector}: {names}");
            assert!(names.get("warnings").is_none(), "{selector}: {names}");
            let sets = get(querier, &format!("/api/v1/series?match[]={escaped}")).await.json();
            let found: std::collections::BTreeSet<&str> =
                sets["data"].as_array().unwrap().iter().map(|set| set["job"].as_str().unwrap()).collect();
            assert_eq!(
                (Vec::from_iter(found), sets.get("warnings")),
                (jobs.to_vec(), None),
                "{selector}: {sets}"
            );
            let query = format!("/api/v1/query?query=count(count+by(job)({escaped}))&time={AT}");
            let answer = get(querier, &query).await.json();
            let expected = if jobs.is_empty() { Value::Null } else { json!(jobs.len().to_string()) };
            assert_eq!(
                (count_of(&answer), answer.get("warnings")),
                (&expected, None),
                "{selector}: {answer}"
            );
        }
    }
}

/// Rejects requests that a sidecar of Thanos rejects.
struct ThanosSidecar(Arc<MemoryStore>);

impl ThanosSidecar {
    async fn check(&self, matchers: &[Matcher], may_be_none: bool) -> Result<(), StoreError> {
        let external = self.0.info().await?.label_sets.remove(0);
        let rest: Vec<_> = matchers.iter().filter(|m| external.get(m.name()).is_none()).collect();
        match rest.iter().all(|matcher| matcher.matches_empty()) {
            true if rest.is_empty() && may_be_none => Ok(()),
            true => Err(StoreError::invalid("match[] must contain at least one non-empty matcher")),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Store for ThanosSidecar {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.0.info().await
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.check(&request.matchers, false).await?;
        self.0.series(request).await
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.check(&request.matchers, true).await?;
        self.0.label_names(request).await
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.check(&request.matchers, true).await?;
        self.0.label_values(request).await
    }
}

/// Announces that it supports shards, and ignores them, as a sidecar of Thanos in front of an old Prometheus.
struct IgnoresShards(Arc<MemoryStore>);

#[tonic::async_trait]
impl Store for IgnoresShards {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.0.info().await
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.0.series(SeriesRequest { shard: None, ..request }).await
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_names(request).await
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_values(request).await
    }
}

#[tokio::test]
async fn shards_of_a_query_are_disjoint_and_complete() {
    let jobs: Vec<String> = (0..40).map(|job| format!("job-{job:02}")).collect();
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let external = |replica| [("cluster", "eu-1"), ("replica", replica)];
    let endpoints = [
        serve(memory(&external("a"), &jobs)).await,
        serve(Arc::new(IgnoresShards(memory(&external("b"), &jobs)))).await,
    ];
    let lower = querier(&endpoints, &[]).await;
    let upper = querier(&[lower.grpc_address().to_string()], &[]).await;
    for querier in [&lower, &upper] {
        for (by, label) in [(true, "job"), (false, "cluster"), (false, "nothing")] {
            let (mut found, mut parts) = (Vec::new(), Vec::new());
            for index in 0..3 {
                let shard = json!({"shard_index": index, "total_shards": 3, "by": by, "labels": [label]});
                let form = format!("query=sum+by(job)(up)&start={AT}&end={AT}&step=60&shard_info={shard}");
                let answer = post(querier, "/api/v1/query_range", &form).await.json();
                assert!(answer.get("warnings").is_none(), "{answer}");
                let part: Vec<String> = answer["data"]["result"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|series| {
                        assert_eq!(series["values"][0][1], "1", "both replicas are in one shard: {answer}");
                        series["metric"]["job"].as_str().unwrap().to_owned()
                    })
                    .collect();
                parts.push(part.len());
                found.extend(part);
            }
            found.sort();
            assert_eq!(found, jobs, "by {by} {label}");
            assert!(parts.iter().all(|part| (1..40).contains(part)), "by {by} {label}: {parts:?}");
        }
    }
    let answer = get(&lower, "/api/v1/query?query=up&shard_info=%7B").await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("bad_data")), "{}", answer.body);
}

#[tokio::test]
async fn address_that_is_given_twice_is_one_store() {
    let store = Arc::new(Scripted::series(&[&[("__name__", "up"), ("cluster", "liar")]]).hanging());
    let address = serve(Arc::clone(&store) as Arc<dyn Store>).await;
    let port = address.rsplit_once(':').unwrap().1;
    let (lower, upper) = (format!("localhost:{port}"), format!("LOCALHOST:{port}"));
    let strict = format!("--endpoint-strict={lower}");
    let querier = querier(&[lower.clone(), upper, lower.clone()], &[&strict]).await;
    let stores = get(&querier, "/api/v1/stores").await.json();
    assert_eq!(stores["data"]["sidecar"].as_array().map(Vec::len), Some(1), "{stores}");
    let mut stream = TcpStream::connect(querier.http_address()).await.unwrap();
    stream.write_all(b"GET /api/v1/query?query=up HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    wait_for("the query to reach the store", || store.open.load(Ordering::SeqCst) > 0).await;
    assert_eq!(store.open.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn damaged_chunk_names_its_store_and_is_a_warning_where_partial_answers_are_allowed() {
    let series = |job: &str| Series {
        labels: labels(&[("__name__", "up"), ("job", job)]),
        chunks: series::AggrChunk::from_floats(
            &(0..240).map(|i| Sample::new(START + i * 2_000, 1.0)).collect::<Vec<_>>(),
        )
        .unwrap(),
    };
    let mut damaged = series("api");
    let chunk = damaged.chunks[1].raw.as_mut().unwrap();
    chunk.data = chunk.data.slice(..chunk.data.len() / 2);
    let store = |cluster: &str, all| MemoryStore::new(labels(&[("cluster", cluster)]), all);
    let broken = serve(Arc::new(store("eu-1", vec![damaged, series("db")]))).await;
    let whole = serve(Arc::new(store("us-1", vec![series("api")]))).await;
    let querier = querier(&[broken.clone(), whole], &[]).await;
    let path = format!("/api/v1/query?query=sum(count_over_time(up%5B1h%5D))&time={AT}");
    let answer = get(&querier, &path).await;
    let body = answer.json();
    let warnings = body["warnings"].as_array().unwrap_or_else(|| panic!("{body}"));
    let warning = warnings[0].as_str().unwrap();
    assert!(warnings.len() == 1 && warning.contains(&broken), "{body}");
    assert!(warning.contains(r#"series up{cluster="eu-1", job="api"}: chunk from 17"#), "{body}");
    assert_eq!(count_of(&body), &json!((120 + 240 + 240).to_string()), "{body}");
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let answer = get(&querier, &format!("{path}&partial_response=false")).await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (422, &json!("execution")), "{}", answer.body);
    assert!(answer.body.contains(&broken), "{}", answer.body);
    println!("a query that does not read the damaged chunk");
    let answer =
        get(&querier, &format!("/api/v1/query?query=count(up)&time={}", START / 1000 + 60)).await.json();
    assert_eq!((count_of(&answer), answer.get("warnings")), (&json!("3"), None), "{answer}");
}

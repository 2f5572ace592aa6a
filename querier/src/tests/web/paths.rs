//! Paths below which a proxy shows the querier.

use super::*;

fn location(answer: &HttpAnswer) -> Option<&str> {
    answer.head.lines().find_map(|line| line.strip_prefix("location: "))
}

#[tokio::test]
async fn api_and_start_page_are_served_below_the_route_prefix() {
    let querier = querier(&[], &["--web.external-prefix=/a//thanos/"]).await;
    let answer = post(&querier, "/a/thanos/api/v1/query", "query=1&time=4").await;
    assert_eq!(answer.body, r#"{"status":"success","data":{"resultType":"scalar","result":[4,"1"]}}"#);
    let answer = get(&querier, "/").await;
    assert_eq!((answer.status, location(&answer)), (302, Some("a/thanos")));
    for path in ["/a/thanos", "/a/thanos/", "/a/thanos/graph?g0.expr=up%3E%221%22&g0.tab=1"] {
        let page = get(&querier, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.contains("<base href=\"/a/thanos/\">"), "{}", page.body);
        assert!(page.body.contains("href=\"../../metrics\""), "{}", page.body);
    }
    let page = get(&querier, "/a/thanos/graph?g0.expr=up%3E%221%22").await.body;
    assert!(page.contains("value=\"up&gt;&quot;1&quot;\""), "{page}");
    assert_eq!(get(&querier, "/api/v1/labels").await.status, 404);
    assert_eq!(get(&querier, "/-/ready").await.status, 200);
    let flags = get(&querier, "/a/thanos/api/v1/status/flags").await.json();
    assert_eq!(flags["data"]["web.external-prefix"], "/a/thanos");
}

#[tokio::test]
async fn links_of_the_start_page_have_the_route_prefix() {
    let querier = querier(&[], &["--web.route-prefix=/thanos"]).await;
    assert!(get(&querier, "/thanos").await.body.contains("<base href=\"/thanos/\">"));
}

#[tokio::test]
async fn proxy_that_removes_its_path_needs_the_root_as_route_prefix() {
    let querier = querier(&[], &["--web.external-prefix=/thanos", "--web.route-prefix=/"]).await;
    assert_eq!(get(&querier, "/api/v1/labels").await.status, 200);
    assert!(get(&querier, "/").await.body.contains("<base href=\"/thanos/\">"));
}

#[tokio::test]
async fn header_of_a_proxy_names_the_path_of_the_links() {
    let flags = ["--web.prefix-header=X-Forwarded-Prefix", "--alert.query-url=https://query.example/?a&b"];
    let querier = querier(&[], &flags).await;
    let page = async |value: &str| {
        let request =
            format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nX-Forwarded-Prefix: {value}\r\n\r\n");
        send(querier.http_address(), &request).await.body
    };
    assert!(page("/metrics-of/eu").await.contains("<base href=\"/metrics-of/eu/\">"));
    let open = page("https://evil.example//x/../y").await;
    assert!(open.contains("<base href=\"/y/\">") && !open.contains("evil"), "{open}");
    for ignored in ["", "/", "/\"><script>"] {
        assert!(!page(ignored).await.contains("<base"), "{ignored}");
    }
    assert!(open.contains("href=\"https://query.example/?a&amp;b\""), "{open}");
}

//! Access control: hosts, sites, tokens and paths, as sent by browsers, programs and proxies.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use glowflow::model::ModelFile;
use glowflow::{GlowConfig, Model};
use glowflow_web::{Access, Demo, Limits, Token, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const TOKEN: &str = "0123456789abcdef";

fn app(access: Access) -> Router {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let config = GlowConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() };
    ModelFile::new(config, 1).unwrap().write(&model).unwrap();
    let demo = Demo::load(Model::load(&model).unwrap(), &model, None, None, Limits::default());
    router(Arc::new(demo.unwrap()), access)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(app: &Router, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    // With any answer.
    assert_eq!(head.headers["x-content-type-options"], "nosniff", "{path}: {}", head.status);
    assert!(head.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let text = String::from_utf8_lossy(&body).into_owned();
    Answer { status: head.status.as_u16(), headers: head.headers, text }
}

async fn get(app: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(app, Method::GET, path, headers, "").await
}

/// The status of a request to sample an image.
async fn draw(app: &Router, headers: &[(&str, &str)]) -> Answer {
    let sample = json!({ "count": 1, "temperature": 0.7, "seed": 1 }).to_string();
    let headers = [&[("content-type", "application/json")], headers].concat();
    ask(app, Method::POST, "/api/v1/sample", &headers, &sample).await
}

#[tokio::test]
async fn a_proxy_with_an_allowed_name_may_pass_the_host_on_or_not() {
    let app = app(Access::default().allow("Demo.Example.com").unwrap());
    for host in ["demo.example.com", "DEMO.example.com:443", "demo.example.com.", "127.0.0.1:8080"] {
        for origin in ["https://demo.example.com", "http://demo.example.com", "https://demo.example.com:8443"]
        {
            let answer = draw(&app, &[("host", host), ("origin", origin)]).await;
            assert_eq!(answer.status, 200, "{host} {origin}: {}", answer.text);
        }
        assert_eq!(draw(&app, &[("host", host)]).await.status, 200, "{host}");
    }
    for (host, origin, status) in [
        ("other.example.com", "https://other.example.com", 421),
        ("demo.example.com", "https://other.example.com", 403),
        ("demo.example.com", "https://demo.example.com.evil.example", 403),
        ("demo.example.com", "https://evil.demo.example.com", 403),
        ("demo.example.com", "ftp://demo.example.com", 403),
        ("demo.example.com", "null", 403),
        ("127.0.0.1:8080", "https://other.example.com", 403),
        ("127.0.0.1:8080", "http://localhost:8080", 403),
        ("evil.demo.example.com", "https://demo.example.com", 421),
    ] {
        let answer = draw(&app, &[("host", host), ("origin", origin)]).await;
        assert_eq!(answer.status, status, "{host} {origin}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn a_port_of_an_allowed_name_counts_for_pages_only() {
    let app = app(Access::default().allow("demo.example.com:8443").unwrap());
    for (origin, status) in [
        ("https://demo.example.com:8443", 200),
        ("https://demo.example.com", 403),
        ("http://demo.example.com:80", 403),
    ] {
        let answer = draw(&app, &[("host", "127.0.0.1:8080"), ("origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.text);
    }
    assert_eq!(draw(&app, &[("host", "demo.example.com")]).await.status, 200);
}

#[tokio::test]
async fn refusals_contain_the_advice_of_the_program() {
    let app = app(Access::default().with_advice(|host| format!("allow {host} first")));
    let by_host = draw(&app, &[("host", "demo.example.com:443")]).await;
    let by_site = draw(&app, &[("host", "localhost"), ("origin", "https://demo.example.com")]).await;
    for (answer, status) in [(by_host, 421), (by_site, 403)] {
        assert_eq!(answer.status, status);
        let problem: Value = serde_json::from_str(&answer.text).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("demo.example.com") && detail.ends_with("; allow demo.example.com first"),
            "{detail}"
        );
        assert!(!detail.contains("--"), "the library knows no command line: {detail}");
    }
}

#[tokio::test]
async fn requests_without_a_host_are_answered_and_ambiguous_ones_are_not() {
    let app = app(Access::default());
    assert_eq!(get(&app, "/", &[]).await.status, 200);
    assert_eq!(get(&app, "/", &[("origin", "https://evil.example")]).await.status, 403);
    for headers in [
        &[("host", "localhost"), ("host", "evil.example")][..],
        &[("host", "")],
        &[("host", "local host")],
        &[("host", "[::1")],
    ] {
        assert_eq!(get(&app, "/", headers).await.status, 421, "{headers:?}");
    }
    for host in
        ["localhost:1", "LOCALHOST.", "127.0.0.2", "[::1]:8080", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"]
    {
        assert_eq!(get(&app, "/", &[("host", host)]).await.status, 200, "{host}");
    }
    for host in ["10.0.0.1", "[2001:db8::1]", "::1.example", "localhost.example"] {
        assert_eq!(get(&app, "/", &[("host", host)]).await.status, 421, "{host}");
    }
}

#[test]
fn invalid_hosts_paths_and_tokens_are_refused() {
    for host in [
        "",
        " ",
        "https://demo.example.com",
        "demo.example.com/",
        "*.example.com",
        "*",
        "user@demo.example.com",
        "demo.example.com:port",
        "demo.example.com:",
        "a b",
        "bücher.example",
        "demo.example.com:99999",
    ] {
        let error = Access::default().allow(host).err().unwrap_or_else(|| panic!("{host:?}")).to_string();
        assert!(error.contains(&format!("{host:?}")) && error.contains("demo.example.com"), "{error}");
    }
    for host in
        ["demo", "demo_1.example.com", "demo.example.com:8443", "192.168.1.5", "::1", "[::1]", "[::1]:80"]
    {
        assert!(Access::default().allow(host).is_ok(), "{host}");
    }
    for path in ["", "//a//b", "/a b", "/a/../b", "/a?b", "/a#b", "/ä", "/%2e"] {
        let error = Access::default().under(path).err().unwrap_or_else(|| panic!("{path:?}")).to_string();
        assert!(error.contains(&format!("{path:?}")) && error.contains("/glow"), "{error}");
    }
    for token in ["", "short", "with space", "semi;colon!", "quote\"quote", "ünicode1"] {
        assert!(token.parse::<Token>().is_err(), "{token:?}");
    }
    let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
    assert!(one.as_str().len() >= 32 && one.as_str() != two.as_str());
    assert!(one.as_str().parse::<Token>().is_ok());
}

#[tokio::test]
async fn with_a_token_programs_send_it_as_bearer() {
    let app = app(Access::default().with_token(TOKEN.parse().unwrap()));
    for path in ["/api/v1/info", "/api/v1/openapi.json", "/app.js", "/nowhere"] {
        let wrong = format!("Bearer {TOKEN}0");
        for headers in [
            &[][..],
            &[("authorization", "Bearer wrong")],
            &[("authorization", &*wrong)],
            &[("authorization", TOKEN)],
            &[("authorization", "Basic 0123456789abcdef")],
            &[("cookie", "glowflow=wrong")],
            &[("cookie", "other=0123456789abcdef")],
        ] {
            let answer = get(&app, path, headers).await;
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
            let problem: Value = serde_json::from_str(&answer.text).unwrap();
            assert_eq!(problem["status"], 401);
            assert!(problem["detail"].as_str().unwrap().contains("Bearer"), "{problem}");
            assert!(!answer.text.contains(TOKEN));
        }
        // In a URL, only the page accepts it, because URLs end up in logs.
        assert_eq!(get(&app, &format!("{path}?token={TOKEN}"), &[]).await.status, 401);
    }
    for scheme in ["Bearer", "bearer"] {
        let right = format!("{scheme} {TOKEN}");
        assert_eq!(get(&app, "/api/v1/info", &[("authorization", &right)]).await.status, 200);
        assert_eq!(draw(&app, &[("authorization", &right)]).await.status, 200);
    }
    assert_eq!(draw(&app, &[]).await.status, 401);
    // A token does not replace the other checks.
    let right = format!("Bearer {TOKEN}");
    assert_eq!(draw(&app, &[("host", "evil.example"), ("authorization", &right)]).await.status, 421);
    let foreign = [("host", "localhost"), ("origin", "http://evil.example"), ("authorization", &*right)];
    assert_eq!(draw(&app, &foreign).await.status, 403);
}

#[tokio::test]
async fn with_a_token_the_page_exchanges_it_for_a_cookie() {
    for base in ["/", "/glow"] {
        let app = app(Access::default().under(base).unwrap().with_token(TOKEN.parse().unwrap()));
        let base = base.trim_end_matches('/');
        let host = ("host", "127.0.0.1:8080");
        for query in ["", "?token=wrong", "?token=", "?tokens=0123456789abcdef"] {
            let answer = get(&app, &format!("{base}/{query}"), &[host]).await;
            assert_eq!(answer.status, 401, "{query}");
            assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
            assert!(answer.header("set-cookie").is_empty() && answer.text.contains("token"));
        }
        // The files of the form.
        for asset in ["style.css", "icon.svg", "token.js"] {
            assert_eq!(get(&app, &format!("{base}/{asset}"), &[host]).await.status, 200, "{asset}");
        }
        let answer = get(&app, &format!("{base}/?token={TOKEN}"), &[host]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "./"));
        let cookie = answer.header("set-cookie");
        // Without a path, browsers send it to the page's folder, also below a path that a proxy strips.
        assert_eq!(cookie, format!("glowflow-8080={TOKEN}; HttpOnly; SameSite=Strict"));
        let cookie = format!("other=1; {}", cookie.split(';').next().unwrap());
        for path in ["/", "/app.js", "/api/v1/info"] {
            let answer = get(&app, &format!("{base}{path}"), &[host, ("cookie", &cookie)]).await;
            assert_eq!(answer.status, 200, "{path}");
        }
        // Another server's cookie on the same computer.
        let other = [("host", "127.0.0.1:8081"), ("cookie", &*cookie)];
        assert_eq!(get(&app, &format!("{base}/api/v1/info"), &other).await.status, 401);
        let encrypted = [host, ("x-forwarded-proto", "https")];
        let answer = get(&app, &format!("{base}/?token={TOKEN}"), &encrypted).await;
        assert!(answer.header("set-cookie").ends_with("; Secure"));
    }
}

#[tokio::test]
async fn a_name_of_the_address_admits_no_pages_of_other_ports() {
    let app = app(Access::default().named("Box.lan").unwrap());
    let host = ("host", "box.lan:8080");
    assert_eq!(draw(&app, &[host]).await.status, 200);
    for (origin, status) in
        [("http://box.lan:8080", 200), ("http://box.lan", 403), ("http://box.lan:8888", 403)]
    {
        let answer = draw(&app, &[host, ("origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.text);
    }
    assert_eq!(draw(&app, &[("host", "other.lan:8080")]).await.status, 421);
    assert!(Access::default().named("a b").is_err());
}

#[tokio::test]
async fn a_base_path_works_whether_or_not_a_proxy_strips_it() {
    for base in ["/glow", "/glow/", "glow"] {
        let app = app(Access::default().under(base).unwrap());
        for path in ["/glow/", "/glow/app.js", "/glow/api/v1/info", "/glow/api/v1/openapi.json"] {
            assert_eq!(get(&app, path, &[]).await.status, 200, "{path}");
        }
        for path in ["/", "/?token=x", "/app.js", "/api/v1/info", "/api/v1/openapi.json"] {
            assert_eq!(get(&app, path, &[]).await.status, 200, "{path}");
        }
        for (path, page) in [("/glow", "/glow/"), ("/glow?token=x", "/glow/?token=x")] {
            let answer = get(&app, path, &[]).await;
            assert_eq!((answer.status, answer.header("location")), (307, page), "{path}");
        }
        for path in ["/glowing", "/glow//", "/glow/glow/"] {
            assert_eq!(get(&app, path, &[]).await.status, 404, "{path}");
        }
        let sample = json!({ "count": 1, "temperature": 0.7, "seed": 1 }).to_string();
        let json = [("content-type", "application/json")];
        for path in ["/glow/api/v1/sample", "/api/v1/sample"] {
            let drawn = ask(&app, Method::POST, path, &json, &sample).await;
            assert_eq!(drawn.status, StatusCode::OK, "{}", drawn.text);
        }
    }
}

/// A proxy may also strip the path: then no request of the page may begin with a slash.
#[tokio::test]
async fn the_page_requests_no_absolute_path() {
    let app = app(Access::default());
    for page in [
        "/",
        "/token.js",
        "/app.js",
        "/api.js",
        "/manipulate.js",
        "/mix.js",
        "/sample.js",
        "/source.js",
        "/style.css",
    ] {
        let text = get(&app, page, &[]).await.text;
        for absolute in ["=\"/", "(\"/", "('/", "(`/", "url(/", "from \"/"] {
            assert!(!text.contains(absolute), "{page} has {absolute}");
        }
    }
    let described: Value = serde_json::from_str(&get(&app, "/api/v1/openapi.json", &[]).await.text).unwrap();
    assert_eq!(described["servers"][0]["url"], "../..");
    assert_eq!(described["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

//! The server as clients meet it whose connections are slow, many, long, or from elsewhere.

use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use glowflow::model::ModelFile;
use glowflow::{Glow, ModelConfig};
use glowflow_web::{Demo, Eyes, Limits};
use image::{ImageFormat, RgbImage};

/// Longer than anything here should take on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A server of a small model, which runs as long as the tests do.
fn serve(limits: Limits) -> SocketAddr {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let config = ModelConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, ..ModelConfig::default() };
    ModelFile::new(config, 1).unwrap().write(&model).unwrap();
    let demo = Demo::load(Glow::load(&model).unwrap(), &model, None, Eyes::default(), limits).unwrap();
    let (ready, address) = mpsc::channel();
    std::thread::spawn(move || {
        glowflow_web::run(demo, ([127, 0, 0, 1], 0).into(), |address| ready.send(address).unwrap()).unwrap();
    });
    address.recv_timeout(LONG).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LONG)).unwrap();
    connection.set_write_timeout(Some(LONG)).unwrap();
    connection
}

/// All that comes until the server closes the connection.
#[track_caller]
fn rest(connection: &mut TcpStream) -> String {
    let mut text = vec![];
    if let Err(error) = connection.read_to_end(&mut text) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection stays open");
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}

/// The answer to one request, which is sent to its end before the answer is read. Panics where the connection breaks.
fn ask(address: SocketAddr, method: &str, path: &str, more: &str, body: &[u8]) -> (u16, String) {
    let mut connection = connect(address);
    let more = format!("Connection: close\r\nContent-Length: {}\r\n{more}", body.len());
    connection.write_all(head(method, path, &more).as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let mut answer = vec![];
    connection.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    RgbImage::from_pixel(16, 16, image::Rgb([8, 16, 32])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn connections_without_a_request_are_closed() {
    let address = serve(Limits { header: Duration::from_millis(500), ..Limits::default() });
    let mut silent = connect(address);
    let mut half = connect(address);
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut idle = connect(address);
    idle.write_all(head("GET", "/icon.svg", "").as_bytes()).unwrap();
    assert_eq!(rest(&mut silent), "");
    rest(&mut half);
    assert!(rest(&mut idle).starts_with("HTTP/1.1 200"));
    // A byte now and then does not help.
    let (mut trickling, started) = (connect(address), Instant::now());
    while trickling.write_all(b"G").is_ok() {
        assert!(started.elapsed() < LONG, "the connection stays open");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let limits = Limits { connections: 2, header: Duration::from_secs(2), ..Limits::default() };
    let address = serve(limits);
    let (_first, second) = (connect(address), connect(address));
    std::thread::sleep(Duration::from_millis(200));
    let mut third = connect(address);
    third.write_all(head("GET", "/icon.svg", "Connection: close\r\n").as_bytes()).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let early = third.read(&mut [0]).unwrap_err();
    assert!(matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early}");
    // One that ends makes place at once, and those that never say anything do when their time is up.
    third.set_read_timeout(Some(LONG)).unwrap();
    second.shutdown(Shutdown::Both).unwrap();
    assert!(rest(&mut third).starts_with("HTTP/1.1 200"));
    let _silent = [connect(address), connect(address), connect(address)];
    assert_eq!(ask(address, "GET", "/icon.svg", "", b"").0, 200);
}

#[test]
fn no_connection_lasts_for_ever() {
    let limits = Limits { connections: 1, connection: Duration::from_millis(500), ..Limits::default() };
    let address = serve(limits);
    // One that asks again and again is told when its time is up.
    let (mut busy, started) = (connect(address), Instant::now());
    while busy.write_all(head("GET", "/icon.svg", "").as_bytes()).is_ok() {
        assert!(started.elapsed() < LONG, "the connection stays open");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that asks for much and reads nothing holds its place no longer.
    let mut deaf = connect(address);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let questions = head("GET", "/", "").repeat(1000);
    while deaf.write_all(questions.as_bytes()).is_ok() {
        assert!(started.elapsed() < LONG, "the server reads questions without end");
    }
    assert_eq!(ask(address, "GET", "/icon.svg", "", b"").0, 200);
}

#[test]
fn refusals_arrive_although_the_client_is_still_sending() {
    const BYTES: usize = 8 << 20;
    let address = serve(Limits { upload_bytes: BYTES, uploading_bytes: BYTES, ..Limits::default() });
    let upload = vec![0x89; BYTES];
    let (together, clients) = (Barrier::new(12), 0..12);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked = clients.map(|_| {
            scope.spawn(|| {
                together.wait();
                ask(address, "POST", "/api/v1/encode", "", &upload).0
            })
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|client| client.join().unwrap()).collect()
    });
    println!("{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 422 | 503)), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
    // All other refusals as well, with room for uploads again.
    let long = vec![b' '; 3 * BYTES];
    for (method, path, more, status) in [
        ("POST", "/api/v1/encode", "", 413),
        ("POST", "/api/v1/encode?class=one", "", 400),
        ("POST", "/api/v1/encode", "Origin: http://evil.example\r\n", 403),
        ("POST", "/api/v1/mix", "Content-Type: application/json\r\n", 413),
        ("POST", "/api/v1/mix", "", 415),
        ("POST", "/api/v1/info", "", 405),
        ("POST", "/nowhere", "", 404),
    ] {
        let answer = ask(address, method, path, more, &long);
        assert_eq!(answer.0, status, "{path}: {}", answer.1);
    }
    assert_eq!(ask(address, "POST", "/api/v1/encode", "", &png()).0, 200);
}

#[test]
fn uploads_that_trickle_in_keep_nobody_out() {
    let address = serve(Limits { upload_bytes: 1 << 20, uploading_bytes: 1 << 20, ..Limits::default() });
    let trickling = (0..40).map(|_| {
        let mut connection = connect(address);
        let begin = head("POST", "/api/v1/encode", "Content-Length: 1000000\r\n") + "some";
        connection.write_all(begin.as_bytes()).unwrap();
        connection
    });
    let trickling: Vec<_> = trickling.collect();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(ask(address, "POST", "/api/v1/encode", "", &png()).0, 200);
    assert!(started.elapsed() < Limits::default().request / 2, "{:?}", started.elapsed());
    drop(trickling);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let address = serve(Limits::default());
    let port = address.port();
    let ask = |path: &str, kind: &str, host: &str, origin: &str, body: &[u8]| {
        let mut connection = connect(address);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(body).unwrap();
        let answer = rest(&mut connection);
        (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer)
    };
    let sample = br#"{"count":1,"temperature":0.7,"seed":1}"#;
    let (here, local) = (format!("127.0.0.1:{port}"), format!("localhost:{port}"));
    for origin in
        ["http://evil.example", "null", "", "http://127.0.0.1:1", &format!("http://{local}"), "http://"]
    {
        let line = format!("Origin: {origin}\r\n");
        for (path, kind, body) in
            [("/api/v1/encode", "text/plain", &png()[..]), ("/api/v1/sample", "application/json", sample)]
        {
            let (status, answer) = ask(path, kind, &here, &line, body);
            assert_eq!(status, "403", "{origin}: {answer}");
            assert!(answer.contains("application/problem+json") && answer.contains(&here), "{answer}");
            assert!(answer.contains("content-security-policy"), "{answer}");
        }
    }
    for (host, origin) in [
        (&here, String::new()),
        (&here, format!("Origin: http://{here}\r\n")),
        (&local, format!("Origin: http://{local}\r\n")),
        (&local, format!("Origin: http://LOCALHOST:{port}\r\n")),
    ] {
        let (status, answer) = ask("/api/v1/encode", "text/plain", host, &origin, &png());
        assert_eq!(status, "200", "{origin}: {answer}");
    }
}

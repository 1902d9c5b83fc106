//! The server with clients whose connections are slow, many, long, or from other computers.

use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use glowflow::model::ModelFile;
use glowflow::{GlowConfig, Model};
use glowflow_web::{Access, Demo, Limits};
use image::{ImageFormat, RgbImage};

/// Longer than any step here should take on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Starts a server with a small model, which runs as long as the tests.
fn serve(limits: Limits) -> SocketAddr {
    serve_at(([127, 0, 0, 1], 0).into(), limits)
}

/// Starts such a server at an address.
fn serve_at(listen: SocketAddr, limits: Limits) -> SocketAddr {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let config = GlowConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() };
    ModelFile::new(config, 1).unwrap().write(&model).unwrap();
    let demo = Demo::load(Model::load(&model).unwrap(), &model, None, None, limits).unwrap();
    let (ready, address) = mpsc::channel();
    std::thread::spawn(move || {
        let ready =
            |urls: &[String]| ready.send(urls[0].trim_start_matches("http://").parse().unwrap()).unwrap();
        glowflow_web::run(demo, listen, Access::default(), ready).unwrap();
    });
    address.recv_timeout(LONG).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LONG)).unwrap();
    connection.set_write_timeout(Some(LONG)).unwrap();
    connection
}

/// Everything received until the server closes the connection.
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

/// Sends one request completely, then reads the answer. Panics if the connection breaks.
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
    // An occasional byte does not help.
    let (mut trickling, started) = (connect(address), Instant::now());
    while trickling.write_all(b"G").is_ok() {
        assert!(started.elapsed() < LONG, "the connection stays open");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An open connection that has received an answer.
fn idle(address: SocketAddr) -> TcpStream {
    let mut connection = connect(address);
    connection.write_all(head("GET", "/icon.svg", "").as_bytes()).unwrap();
    assert!(read_answer(&mut connection).starts_with("HTTP/1.1 200"));
    connection
}

/// Reads one answer from a connection that stays open.
fn read_answer(connection: &mut TcpStream) -> String {
    let (mut text, mut byte) = (vec![], [0]);
    while !text.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    connection.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    text
}

fn is_open(connection: &mut TcpStream) -> bool {
    connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let read = connection.read(&mut [0]);
    matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[test]
fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let address = serve(Limits { connections: 3, header: LONG, ..Limits::default() });
    let (mut first, mut second) = (idle(address), idle(address));
    std::thread::sleep(Duration::from_millis(300));
    let _silent = connect(address);
    // It is now the second longest idle connection.
    first.write_all(head("GET", "/icon.svg", "").as_bytes()).unwrap();
    read_answer(&mut first);
    let started = Instant::now();
    assert_eq!(ask(address, "GET", "/icon.svg", "", b"").0, 200);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(!is_open(&mut second) && is_open(&mut first));
}

/// Ways in which clients can hold on to slots.
fn hoard(address: SocketAddr, kind: usize) -> TcpStream {
    let mut connection = connect(address);
    let upload = head("POST", "/api/v1/encode", "Content-Length: 1000000\r\n") + "some";
    let much = head("GET", "/", "").repeat(40);
    let begin = match kind {
        0 => "",
        1 => "GET / HTTP/1.1\r\nHost: loc",
        2 => &upload,
        _ => &much,
    };
    connection.write_all(begin.as_bytes()).unwrap();
    connection
}

#[test]
fn four_hundred_connections_of_one_client_block_no_other() {
    let address = serve(Limits::default());
    for kind in 0..4 {
        let hoarded: Vec<_> = (0..400).map(|_| hoard(address, kind)).collect();
        let started = Instant::now();
        assert_eq!(ask(address, "POST", "/api/v1/encode", "", &png()).0, 200, "{kind}");
        println!("kind {kind}: {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(8), "{kind}: {:?}", started.elapsed());
        drop(hoarded);
    }
}

#[test]
fn two_hundred_clients_with_open_connections_are_all_served() {
    let address = serve(Limits::default());
    let started = Instant::now();
    let clients: Vec<_> = (0..200).map(|_| idle(address)).collect();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    drop(clients);
}

/// An address of this computer other than loopback. For connections to it, each address is one client.
fn own_address() -> Option<IpAddr> {
    let here = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // No packet is sent; the system only selects the source address.
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    });
    here.inspect_err(|_| println!("skipped: this computer has no network")).ok()
}

#[test]
fn three_browsers_behind_one_address_all_get_the_page() {
    let Some(here) = own_address() else { return };
    let address = serve_at((here, 0).into(), Limits { header: LONG, ..Limits::default() });
    let open = Barrier::new(18);
    std::thread::scope(|scope| {
        for _ in 0..18 {
            scope.spawn(|| {
                let mut connection = connect(address);
                open.wait();
                let request = head("GET", "/", "").replace("localhost", &here.to_string());
                connection.write_all(request.as_bytes()).unwrap();
                let answer = read_answer(&mut connection);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                // Browsers keep connections open.
                std::thread::sleep(Duration::from_secs(3));
            });
        }
    });
}

#[test]
fn a_client_without_a_slot_delays_no_other() {
    let Some(here) = own_address() else { return };
    let limits = Limits { connections_per_client: 2, header: LONG, ..Limits::default() };
    let address = serve_at(([0, 0, 0, 0], 0).into(), limits);
    let from_here = SocketAddr::new(here, address.port());
    let upload = head("POST", "/api/v1/encode", "Content-Length: 1000000\r\n") + "some";
    let hoarded = (0..60).map(|_| {
        let mut connection = connect(from_here);
        connection.write_all(upload.as_bytes()).unwrap();
        connection
    });
    let hoarded: Vec<_> = hoarded.collect();
    let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let started = Instant::now();
    assert_eq!(ask(local, "GET", "/icon.svg", "", b"").0, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(hoarded);
}

#[test]
fn slots_are_limited_per_client() {
    let Some(here) = own_address() else { return };
    let limits = Limits { connections_per_client: 4, header: LONG, ..Limits::default() };
    let address = serve_at((here, 0).into(), limits);
    let upload = head("POST", "/api/v1/encode", "Content-Length: 1000000\r\n") + "some";
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = connect(address);
            connection.write_all(upload.replace("localhost", &here.to_string()).as_bytes()).unwrap();
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let (status, answer) = ask(address, "GET", "/icon.svg", "", b"");
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("more than 4 connections") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("content-security-policy"), "{answer}");
    drop(busy);
    std::thread::sleep(Duration::from_millis(200));
    // Idle ones are closed for the same client's next one.
    let host = format!("Host: {here}\r\nConnection: keep-alive\r\n\r\n");
    let mut open = vec![];
    for _ in 0..6 {
        let mut connection = connect(address);
        connection.write_all(format!("GET /icon.svg HTTP/1.1\r\n{host}").as_bytes()).unwrap();
        assert!(read_answer(&mut connection).starts_with("HTTP/1.1 200"));
        open.push(connection);
        std::thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn connections_end_with_notice_and_lose_no_request() {
    let limits = Limits { connection: Duration::from_millis(600), header: LONG, ..Limits::default() };
    let address = serve(limits);
    let sample = r#"{"count":1,"temperature":0.7,"seed":1}"#;
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", sample.len());
    let request = head("POST", "/api/v1/sample", &more) + sample;
    let counted = std::thread::scope(|scope| {
        let clients = (0..4).map(|client| {
            let request = &request;
            scope.spawn(move || {
                let (mut connection, mut closed) = (connect(address), 0);
                for _ in 0..8 {
                    connection.write_all(request.as_bytes()).unwrap();
                    let answer = read_answer(&mut connection);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    if answer.contains("connection: close") {
                        closed += 1;
                        assert_eq!(rest(&mut connection), "");
                        connection = connect(address);
                    }
                    // Also idle when its time is up.
                    std::thread::sleep(Duration::from_millis(150 + 50 * client));
                }
                closed
            })
        });
        clients.collect::<Vec<_>>().into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert!(counted >= 4, "{counted} were told");
}

#[test]
fn no_connection_lasts_forever() {
    let limits = Limits { connections: 1, connection: Duration::from_millis(500), ..Limits::default() };
    let address = serve(limits);
    // A client that keeps sending requests is notified when its time is up.
    let (mut busy, started) = (connect(address), Instant::now());
    while busy.write_all(head("GET", "/icon.svg", "").as_bytes()).is_ok() {
        assert!(started.elapsed() < LONG, "the connection stays open");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A client that requests much and reads nothing loses its slot.
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
    // All other refusals arrive too, once there is room for uploads again.
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
fn slow_uploads_block_no_other() {
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

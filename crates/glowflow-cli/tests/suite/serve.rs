//! The demo server as a process: hostile uploads, more clients than it can serve, and shutdown.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{self, Random, command, run};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

/// Upper bound on the server's memory for any clients: the cache (256 MiB), 16 uploads of 12 MiB, and the two
/// largest pictures that are decoded concurrently.
const MOST_BYTES: u64 = 800 << 20;

/// A folder with a model of 64×64 images, `run`, and its directions.
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("serve");
        run(&folder, "train --preset faces64 --data portraits --steps 2 --set train.batch=2 --out run").ok();
        run(&folder, "attributes --model run --data portraits --images 200").ok();
        folder
    })
}

/// A server, stopped at the end of the test. Only one runs at a time, because measurements must not depend on
/// the load of another.
struct Server {
    process: Child,
    address: SocketAddr,
    /// The line that reports that it is ready.
    line: String,
    agent: ureq::Agent,
    _alone: MutexGuard<'static, ()>,
}

/// Starts a server process; returns it with the line that reports that it is ready.
fn serve(folder: &Path, options: &str, variables: &[(&str, &str)]) -> (Child, String) {
    let mut process = command(folder, &format!("serve --port 0 {options}"))
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (process, line)
}

static ALONE: Mutex<()> = Mutex::new(());

impl Server {
    fn start() -> Self {
        Self::with("", &[])
    }

    /// With additional options and environment variables.
    fn with(options: &str, variables: &[(&str, &str)]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (process, line) = serve(world(), &format!("--model run {options}"), variables);
        let address = line.split(['/', ' ', '\n']).find_map(|word| word.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { process, address, line, agent, _alone: alone }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1/{path}", self.address)
    }

    /// Status and body; an error if the connection failed.
    fn post(&self, path: &str, kind: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut answer = self.agent.post(self.url(path)).header("content-type", kind).send(body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?))
    }

    fn get(&self, path: &str) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut answer = self.agent.get(self.url(path)).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?))
    }

    /// The id of an uploaded image.
    fn encode(&self, image: &RgbImage) -> String {
        let (status, body) = self.post("encode", "image/png", &encoded(image, ImageFormat::Png)).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Asserts that the server still gives correct answers.
    #[track_caller]
    fn check_alive(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "the server ended");
        let image = picture(64, 64, 1);
        let (status, png) = self.get(&format!("decode/{}", self.encode(&image))).unwrap();
        assert_eq!(status, 200);
        assert!(image::load_from_memory(&png).unwrap().to_rgb8() == image);
    }

    /// Its peak memory, if the system reports it.
    fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
    }

    fn stop(&mut self) -> Option<i32> {
        let kill = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(kill.success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A distinct image per seed, in colours that a 5-bit model can represent.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 3 + seed * 40) as u8, (y * 3) as u8, (x * y + seed) as u8].map(|value| value & 0xf8))
    })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG of one colour, whose file is small for any image size.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    encoded(&RgbImage::new(width, height), ImageFormat::Png)
}

#[test]
fn hostile_uploads_get_a_4xx_and_the_server_lives() {
    let mut server = Server::start();
    let (png, jpeg) =
        (encoded(&picture(300, 200, 2), ImageFormat::Png), encoded(&picture(300, 200, 2), ImageFormat::Jpeg));
    let claims = |width: u32, height: u32| {
        // A header with large dimensions, over the data of a small picture.
        let mut bytes = png.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let mut noise = vec![0; 100_000];
    let mut random = Random(7);
    noise.iter_mut().for_each(|x| *x = random.next() as u8);
    let mut cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("nothing", vec![], 422),
        ("text", b"<html>".to_vec(), 422),
        ("noise", noise.clone(), 422),
        ("a GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), 422),
        ("an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>".to_vec(), 422),
        ("noise after a PNG's signature", [&png[..8], &noise].concat(), 422),
        ("noise after a JPEG's signature", [&[0xff, 0xd8, 0xff, 0xe0], &noise[..]].concat(), 422),
        ("half a PNG", png[..png.len() / 2].to_vec(), 422),
        ("half a JPEG", jpeg[..jpeg.len() / 2].to_vec(), 422),
        ("a PNG of 0 pixels", claims(0, 200), 422),
        ("a PNG that claims 2³¹ × 2³¹", claims(0x7fff_ffff, 0x7fff_ffff), 422),
        ("a PNG that claims 4800 × 4800", claims(4800, 4800), 422),
        ("a bomb: 30,000 × 3,000 pixels", bomb(30_000, 3_000), 422),
        ("a bomb: 5,000 × 5,000 pixels", bomb(5_000, 5_000), 422),
        ("13 MiB", vec![0x89; 13 << 20], 413),
        ("60 MiB", vec![0x89; 60 << 20], 413),
    ];
    // Random bytes of a picture are changed: whether or not it remains valid, the answer is well defined.
    let spoilt = (0..60).map(|i| {
        let mut bytes = if i % 2 == 0 { png.clone() } else { jpeg.clone() };
        for _ in 0..=i / 6 {
            let at = random.next() as usize % bytes.len();
            bytes[at] = random.next() as u8;
        }
        ("a spoilt picture", bytes, 0)
    });
    cases.extend(spoilt.collect::<Vec<_>>());
    for (what, bytes, expected) in cases {
        let (status, body) =
            server.post("encode", "image/png", &bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
        let text = String::from_utf8_lossy(&body);
        if expected == 0 {
            assert!(matches!(status, 200 | 422), "{what}: {status} {text}");
        } else {
            println!("{what}: {status} {text}");
            assert_eq!(status, expected, "{what}: {text}");
        }
        if status != 200 {
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert!(problem["status"] == status && !problem["detail"].as_str().unwrap().is_empty(), "{text}");
        }
    }
    server.check_alive();

    // The largest allowed picture, connections that break, and malformed requests.
    let (status, _) = server.post("encode", "image/png", &bomb(6_000, 4_000)).unwrap();
    assert_eq!(status, 200);
    let raw = |text: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(text);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let broken = [
        &b"POST /api/v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"[..],
        &png[..500],
    ]
    .concat();
    let answer = raw(&broken);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    for nonsense in [
        &b"\0\0\0\0"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/encode HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let answer = raw(nonsense);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    server.check_alive();
    if let Some(peak) = server.peak_bytes() {
        println!("peak memory {} MiB", peak >> 20);
        assert!(peak < MOST_BYTES, "{peak} bytes");
    }
    assert_eq!(server.stop(), Some(0));
}

/// A client's request, and the only correct answer.
struct Question {
    path: &'static str,
    request: String,
    answer: Vec<u8>,
}

/// 200 clients, each of which sends its next request after an answer, for three seconds and until more than
/// `ENOUGH` answers were correct, which takes a slow machine longer. `GLOWFLOW_LOAD_SECONDS=30` sets a longer
/// time.
#[test]
fn two_hundred_clients_get_correct_answers_or_retry() {
    const ENOUGH: usize = 200;
    const MOST_SECONDS: u64 = 30;
    let seconds = std::env::var("GLOWFLOW_LOAD_SECONDS").ok().map_or(3, |seconds| seconds.parse().unwrap());
    let mut server = Server::start();
    let ids: Vec<String> = (0..10).map(|seed| server.encode(&picture(64, 64, seed))).collect();
    let mut questions = vec![];
    for (i, id) in ids.iter().enumerate() {
        let other = &ids[(i + 3) % 10];
        for (path, request) in [
            ("manipulate", json!({ "id": id, "amounts": { "Smiling": 0.1 * i as f64 - 0.5 } })),
            (
                "manipulate",
                json!({ "id": id, "amounts": { "Blond_Hair": 0.5, "Eyeglasses": 0.05 * i as f64 } }),
            ),
            ("mix", json!({ "a": id, "b": other, "at": [0.1 * i as f64] })),
            ("mix", json!({ "a": id, "b": other, "at": [0, 0.5, 1], "format": "gif" })),
        ] {
            let request = request.to_string();
            let (status, answer) = server.post(path, "application/json", request.as_bytes()).unwrap();
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
            questions.push(Question { path, request, answer });
        }
    }
    let upload = encoded(&picture(640, 480, 5), ImageFormat::Jpeg);

    let [right, busy, wrong, failed] = std::array::from_fn(|_| AtomicUsize::new(0));
    let began = Instant::now();
    let [until, latest] =
        [seconds, seconds + MOST_SECONDS].map(|seconds| began + Duration::from_secs(seconds));
    let latencies: Vec<Duration> = std::thread::scope(|scope| {
        let clients = (0..200).map(|client| {
            let (server, questions, upload) = (&server, &questions, &upload);
            let (right, busy, wrong, failed) = (&right, &busy, &wrong, &failed);
            scope.spawn(move || {
                let mut random = Random(client + 1);
                let mut latencies = vec![];
                let goes_on = |now| now < until || now < latest && right.load(Ordering::Relaxed) <= ENOUGH;
                while goes_on(Instant::now()) {
                    let started = Instant::now();
                    let question = &questions[random.next() as usize % questions.len()];
                    let draws =
                        json!({ "count": 2, "temperature": 0.7, "seed": random.next() >> 12 }).to_string();
                    // The path, the body, and the correct answer or its beginning.
                    let (path, kind, body, right_answer) = match random.next() % 10 {
                        0 => ("encode", "image/jpeg", &upload[..], &b"{\"id\":"[..]),
                        1 => ("sample", "application/json", draws.as_bytes(), &b"{\"ids\":["[..]),
                        _ => (
                            question.path,
                            "application/json",
                            question.request.as_bytes(),
                            &question.answer[..],
                        ),
                    };
                    let answer = server.post(path, kind, body);
                    match answer {
                        Ok((200, answer)) if answer.starts_with(right_answer) => {
                            latencies.push(started.elapsed());
                            right.fetch_add(1, Ordering::Relaxed)
                        }
                        Ok((503, _)) => {
                            // As the answer requests: retry later.
                            std::thread::sleep(Duration::from_millis(100));
                            busy.fetch_add(1, Ordering::Relaxed)
                        }
                        Ok((status, answer)) => {
                            eprintln!("{status}: {}", String::from_utf8_lossy(&answer));
                            wrong.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => {
                            eprintln!("{error}");
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
                latencies
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });

    let [right, busy, wrong, failed] = [right, busy, wrong, failed].map(AtomicUsize::into_inner);
    let seconds = began.elapsed().as_secs_f64();
    let mut latencies = latencies;
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_millis();
    println!(
        "{seconds:.1} s: {right} right answers ({:.0} a second; median {} ms, 95 % within {} ms), {busy} asked to wait, {wrong} \
         wrong, {failed} failed; peak memory {} MiB",
        right as f64 / seconds,
        at(0.5),
        at(0.95),
        server.peak_bytes().unwrap_or(0) >> 20
    );
    assert_eq!((wrong, failed), (0, 0));
    assert!(right > ENOUGH && busy > 0, "{right} right answers, {busy} asked to wait");
    assert!(server.peak_bytes().unwrap_or(0) < MOST_BYTES);
    server.check_alive();
}

#[test]
fn a_signal_lets_requests_finish_and_ends_the_server() {
    let mut server = Server::start();
    let id = server.encode(&picture(64, 64, 1));
    let request = json!({ "a": id, "b": id, "at": vec![0.5; 64], "format": "gif" }).to_string();
    let (agent, url) = (server.agent.clone(), server.url("mix"));
    let asked = std::thread::spawn(move || {
        let mut answer = agent.post(url).header("content-type", "application/json").send(request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    });
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let (status, gif) = asked.join().unwrap();
    assert_eq!(status, 200);
    assert!(gif.starts_with(b"GIF89a"));
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn other_host_names_are_rejected() {
    let server = Server::start();
    let status = |host: &str| {
        let mut connection = TcpStream::connect(server.address).unwrap();
        let request =
            format!("GET /api/v1/openapi.json HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let port = server.address.port();
    for host in
        [&format!("127.0.0.1:{port}"), &format!("localhost:{port}"), "LocalHost", "[::1]:8080", "127.0.0.2"]
    {
        assert_eq!(status(host), "200", "{host}");
    }
    for host in
        ["attacker.example", "localhost.attacker.example:80", "127.0.0.1.attacker.example", "10.0.0.1", ""]
    {
        assert_eq!(status(host), "421", "{host}");
    }
}

/// The server's answer to a raw request whose header is `head`.
fn answer(address: SocketAddr, head: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![];
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn behind_a_proxy_its_name_can_be_allowed() {
    let ask = |server: &Server, host: &str| {
        let head = format!(
            "POST /api/v1/sample HTTP/1.1\r\n{host}Origin: https://demo.example.com\r\n\
             Content-Type: application/json\r\n"
        );
        answer(server.address, &head, r#"{"count":1,"temperature":0.7,"seed":1}"#)
    };
    let server = Server::with("", &[]);
    let (passed, local) = ("Host: demo.example.com\r\n", format!("Host: {}\r\n", server.address));
    for (host, expected) in [(passed, "421"), (&local, "403")] {
        let refused = ask(&server, host);
        assert_eq!(status(&refused), expected, "{refused}");
        // The message contains the option that allows it.
        assert!(refused.contains("proxy") && refused.contains("--allow-host demo.example.com"), "{refused}");
    }
    drop(server);
    let server = Server::with("--allow-host other.example --allow-host demo.example.com", &[]);
    for host in [passed, &format!("Host: {}\r\n", server.address)] {
        assert_eq!(status(&ask(&server, host)), "200");
    }
    assert_eq!(status(&answer(server.address, "GET / HTTP/1.0\r\n", "")), "200", "a health check");
    drop(server);
    let help = run(world(), "serve --help").ok().stdout;
    assert!(help.contains("proxy") && help.contains("--allow-host"), "{help}");
    for (option, word) in [
        ("--allow-host https://demo.example.com", "https://demo.example.com"),
        ("--allow-host *.example.com", "*.example.com"),
        ("--base-path /a/../b", "/a/../b"),
        ("--token short", "at least 8"),
        ("--host no.such.host.invalid", "no.such.host.invalid"),
        ("--host http://localhost", "http://localhost"),
    ] {
        let refused = run(world(), &format!("serve --model run --port 0 {option}"));
        let flag = option.split(' ').next().unwrap();
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(flag) && refused.stderr.contains(word), "{refused:?}");
    }
}

#[test]
fn names_of_this_computer_can_be_listened_on() {
    for host in ["localhost", "LOCALHOST", "[::1]", "::ffff:127.0.0.1"] {
        if host == "[::1]" && TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: this computer has no IPv6");
            continue;
        }
        let (mut process, line) = serve(world(), &format!("--model run --host {host}"), &[]);
        assert!(
            line.starts_with("open http://127.0.0.1:") || line.starts_with("open http://[::1]:"),
            "{line}"
        );
        process.kill().unwrap();
        let mut stderr = String::new();
        process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        process.wait().unwrap();
        assert!(!stderr.contains("other computers"), "{stderr}");
    }
}

#[test]
fn other_computers_need_the_token_of_the_printed_address() {
    let token_of = |line: &str| Some(line.split_once("/?token=")?.1.split(' ').next()?.trim().to_owned());
    let ask = |address: SocketAddr, more: &str| {
        let head = format!("GET /api/v1/info HTTP/1.1\r\nHost: {address}\r\n{more}");
        status(&answer(address, &head, "")).to_owned()
    };
    let server = Server::with("--host 0.0.0.0", &[]);
    let token = token_of(&server.line).unwrap();
    assert!(token.len() >= 32 && !server.line.contains("0.0.0.0"), "{}", server.line);
    let here = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(ask(here, ""), "401");
    assert_eq!(ask(here, "Authorization: Bearer wrong\r\n"), "401");
    let right = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask(here, &right), "200");
    // Host names that anyone could point here are rejected, as for any address.
    let name = |host: &str| {
        let head = format!("GET /api/v1/info HTTP/1.1\r\nHost: {host}\r\n{right}");
        status(&answer(here, &head, "")).to_owned()
    };
    for (host, expected) in [("evil.example", "421"), ("192.168.1.5:8080", "200"), ("localhost", "200")] {
        assert_eq!(name(host), expected, "{host}");
    }
    drop(server);
    let server = Server::with("--host 0.0.0.0 --no-token", &[]);
    assert_eq!(token_of(&server.line), None);
    let here = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(ask(here, ""), "200");
    drop(server);
    // An empty variable counts as unset.
    let server = Server::with("", &[("GLOWFLOW_TOKEN", "")]);
    assert_eq!(ask(server.address, ""), "200");
    drop(server);
    for (options, variables) in
        [("--token 0123456789abcdef", &[][..]), ("", &[("GLOWFLOW_TOKEN", "0123456789abcdef")])]
    {
        let server = Server::with(options, variables);
        assert_eq!(token_of(&server.line).as_deref(), Some("0123456789abcdef"));
        assert_eq!(ask(server.address, ""), "401");
        assert_eq!(ask(server.address, "Authorization: Bearer 0123456789abcdef\r\n"), "200");
    }
}

#[test]
fn the_page_can_be_below_a_path() {
    let server = Server::with("--base-path /glow", &[]);
    assert!(server.line.contains(&format!("{}/glow/ ", server.address)), "{}", server.line);
    let get = |path: &str| {
        status(&answer(server.address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"), "")).to_owned()
    };
    for (path, expected) in
        [("/glow/", "200"), ("/glow/api/v1/info", "200"), ("/glow", "307"), ("/", "200"), ("/glowing", "404")]
    {
        assert_eq!(get(path), expected, "{path}");
    }
}

/// Sends a signal; returns whether it could be sent.
fn signal(process: &Child, name: &str) -> bool {
    Command::new("kill").args([&format!("-{name}"), &process.id().to_string()]).status().unwrap().success()
}

/// Returns whether the tests were started with a signal ignored, which the server inherits.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0)
}

/// Waits for the end of a process, with a timeout.
fn end_of(process: &mut Child, within: Duration) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < within {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the server still runs");
}

#[test]
fn signals_end_the_server_with_active_clients() {
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        if is_ignored(number) {
            println!("skipped: SIG{name} is ignored here, as by nohup");
            continue;
        }
        let mut server = Server::start();
        let ids = [1, 2].map(|seed| server.encode(&picture(64, 64, seed)));
        let film = json!({ "a": ids[0], "b": ids[1], "at": vec![0.5; 64], "format": "gif" }).to_string();
        let head = format!(
            "POST /api/v1/mix HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            film.len()
        );
        let mut deaf = TcpStream::connect(server.address).unwrap();
        for _ in 0..8 {
            deaf.write_all(format!("{head}{film}").as_bytes()).unwrap();
        }
        let mut slow = TcpStream::connect(server.address).unwrap();
        slow.write_all(
            b"POST /api/v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome",
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(signal(&server.process, name));
        assert_eq!(end_of(&mut server.process, Duration::from_secs(8)), Some(0), "{name}");
    }
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let program = env!("CARGO_BIN_EXE_glowflow");
    let script = format!("trap '' HUP INT; exec {program} serve --model run --port 0");
    let mut process = Command::new("sh")
        .args(["-c", &script])
        .current_dir(world())
        .env("GLOWFLOW_DEVICE", "cpu")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("open "), "{line}");
    for name in ["HUP", "INT"] {
        assert!(signal(&process, name));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(process.try_wait().unwrap(), None, "{name} ended it");
    }
    assert!(signal(&process, "TERM"));
    assert_eq!(end_of(&mut process, Duration::from_secs(8)), Some(0));
}

#[test]
fn eye_positions_are_those_given() {
    for options in ["--eyes 0.3,0.45,0.7,0.5", "--eyes 0.3 0.45 0.7 0.5", "--eyes=0.3,0.45,0.7,0.5"] {
        let server = Server::with(options, &[]);
        let info: Value = serde_json::from_slice(&server.get("info").unwrap().1).unwrap();
        assert_eq!(info["eyes"], json!([[0.3, 0.45], [0.7, 0.5]]), "{options}");
    }
    for (eyes, word) in [
        ("0.1,0.2", "0.1,0.2"),
        ("0.1,0.2,0.3,0.4,0.5", "0.5"),
        ("0.39,0.51,NaN,0.51", "NaN"),
        ("0.39,0.51,1.61,0.51", "1.61"),
        ("0.39,0.51,0.39,0.51", "0.39"),
        ("0.39,left,0.61,0.51", "left"),
    ] {
        let refused = run(world(), &format!("serve --model run --port 0 --eyes {eyes}"));
        assert!(matches!(refused.code, Some(1 | 2)), "{eyes}: {refused:?}");
        assert!(refused.stderr.contains("--eyes") && refused.stderr.contains(word), "{refused:?}");
    }
}

#[test]
fn an_address_in_use_is_explained() {
    let server = Server::start();
    let line = format!("serve --model run --port {}", server.address.port());
    let refused = run(world(), &line);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("serving at {}", server.address)), "{refused:?}");
    assert!(server.address.ip().is_loopback());
}

#[test]
fn a_model_without_directions_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(world().join("run/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let (mut process, line) = serve(folder.path(), "--model model.safetensors", &[]);
    assert!(line.starts_with("open http://127.0.0.1:"), "{line}");
    process.kill().unwrap();
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    process.wait().unwrap();
    assert!(stderr.contains("glowflow attributes"), "{stderr}");
}

/// Stops a server started by `serve`; returns its messages.
fn messages(mut process: Child) -> String {
    process.kill().unwrap();
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    process.wait().unwrap();
    stderr
}

#[test]
fn positions_of_the_eyes_are_stored_only_by_a_server_for_its_own_computer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(world().join("run/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let eyes = folder.path().join("eyes.toml");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (options, token, stored) in [
        ("--allow-host demo.example.com", "", false),
        ("--base-path /glow", "", false),
        ("--token 0123456789abcdef", "Bearer 0123456789abcdef", false),
        ("--host 0.0.0.0 --token 0123456789abcdef", "Bearer 0123456789abcdef", false),
        ("", "", true),
    ] {
        let (process, line) = serve(folder.path(), &format!("--model . {options}"), &[]);
        let port = line.split([':', '/', ' ', '?']).find_map(|word| word.parse::<u16>().ok()).unwrap();
        let url = |path: &str| format!("http://127.0.0.1:{port}/api/v1/{path}");
        let info = agent.get(url("info")).header("authorization", token).call();
        let info: Value = serde_json::from_slice(&info.unwrap().body_mut().read_to_vec().unwrap()).unwrap();
        assert_eq!((&info["stores_eyes"], &info["faces"]), (&json!(stored), &Value::Null), "{options}");
        let body = r#"{"faces":true,"eyes":[[0.25,0.5],[0.75,0.5]]}"#;
        let put = agent.put(url("eyes")).header("authorization", token);
        let answer = put.header("content-type", "application/json").send(body).unwrap();
        assert_eq!(answer.status().as_u16(), if stored { 200 } else { 403 }, "{options}");
        assert_eq!(eyes.exists(), stored, "{options}");
        let stderr = messages(process);
        let asks = if stored { "the page asks for them, once" } else { "in each browser" };
        assert!(stderr.contains(asks), "{options}: {stderr}");
    }
    // The next server reads them and prints no request.
    let (process, _) = serve(folder.path(), "--model .", &[]);
    let stderr = messages(process);
    assert!(!stderr.contains("the page asks"), "{stderr}");
}

#[test]
fn weak_directions_are_counted() {
    run(world(), "attributes --model run --data portraits --images 80 --out few.safetensors").ok();
    let (process, line) = serve(world(), "--model run --directions few.safetensors", &[]);
    let url = line.split_whitespace().find(|word| word.starts_with("http")).unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let info = agent.get(format!("{url}/api/v1/info")).call().unwrap().body_mut().read_to_vec().unwrap();
    let info: Value = serde_json::from_slice(&info).unwrap();
    let attributes = info["attributes"].as_array().unwrap();
    let weak = attributes.iter().filter(|attribute| attribute["weak"].is_string()).count();
    let stderr = messages(process);
    // A fifth of the 80 images is held out, so one of the two sides has fewer than 50.
    assert!(weak > 0, "{info}");
    assert!(stderr.contains(&format!("{weak} of {} directions are weak", attributes.len())), "{stderr}");
}

/// A GPU with little free memory: requests that do not fit are rejected, and those that fit are still
/// answered.
#[test]
fn a_gpu_out_of_memory_error_does_not_affect_the_next_request() {
    let Some(libraries) = cuda_emulator::libraries() else { return };
    let libraries = libraries.to_str().unwrap().to_owned();
    let kernels = concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels");
    let variables = [
        ("GLOWFLOW_CUDA_LIBRARIES", &*libraries),
        ("XDG_CACHE_HOME", kernels),
        ("CUDA_EMULATOR_MEMORY", "80000000"),
    ];
    let server = Server::with("--device cuda:0", &variables);
    let sample = |count: usize| {
        let request = json!({ "count": count, "temperature": 0.7, "seed": 1 });
        let (status, body) =
            server.post("sample", "application/json", request.to_string().as_bytes()).unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    for _ in 0..2 {
        let (status, body) = sample(64);
        assert!(status == 500 && body.contains("MiB more were needed"), "{status} {body}");
        let (status, body) = sample(1);
        assert!(status == 200 && body.contains("ids"), "{status} {body}");
    }
}

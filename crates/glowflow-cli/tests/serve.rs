//! The demo's server as a process: hostile uploads, more clients than it can serve, and its end.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use common::{Random, command, run};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

/// More memory than the server takes whatever clients do: what is kept (256 MiB), 16 uploads of 12 MiB, and the two
/// largest pictures that may be decoded at a time.
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

/// A server, stopped at the end of the test. One at a time: what is measured of one must not depend on the load of another.
struct Server {
    process: Child,
    address: SocketAddr,
    agent: ureq::Agent,
    _alone: MutexGuard<'static, ()>,
}

/// A server's process, and the line by which it says that it is ready.
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

    /// One with further options, and in another environment.
    fn with(options: &str, variables: &[(&str, &str)]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (process, line) = serve(world(), &format!("--model run {options}"), variables);
        let address = line.split(['/', ' ']).find_map(|word| word.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { process, address, agent, _alone: alone }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1/{path}", self.address)
    }

    /// Status and body; an error where the connection failed.
    fn post(&self, path: &str, kind: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut answer = self.agent.post(self.url(path)).header("content-type", kind).send(body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?))
    }

    fn get(&self, path: &str) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut answer = self.agent.get(self.url(path)).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?))
    }

    /// The id of an image that has been uploaded.
    fn encode(&self, image: &RgbImage) -> String {
        let (status, body) = self.post("encode", "image/png", &encoded(image, ImageFormat::Png)).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Checks that it still answers, and rightly.
    #[track_caller]
    fn check_alive(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "the server ended");
        let image = picture(64, 64, 1);
        let (status, png) = self.get(&format!("decode/{}", self.encode(&image))).unwrap();
        assert_eq!(status, 200);
        assert!(image::load_from_memory(&png).unwrap().to_rgb8() == image);
    }

    /// The most memory that it ever had, where the system says.
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

/// An image of its own for each seed, in colours that a model of 5 bits can give back.
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

/// A PNG of one colour that is a small file however large the picture.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    encoded(&RgbImage::new(width, height), ImageFormat::Png)
}

#[test]
fn hostile_uploads_get_a_4xx_and_the_server_lives() {
    let mut server = Server::start();
    let (png, jpeg) =
        (encoded(&picture(300, 200, 2), ImageFormat::Png), encoded(&picture(300, 200, 2), ImageFormat::Jpeg));
    let claims = |width: u32, height: u32| {
        // A header that promises much, over the data of a small picture.
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
    // A byte of a picture here and there is another: whether it is one still or not, the answer is clear.
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

    // The largest picture that is allowed, and connections that break or say nonsense.
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

/// What a client can ask, and the only right answer.
struct Question {
    path: &'static str,
    request: String,
    answer: Vec<u8>,
}

/// 200 clients at a time, each with its next question as soon as the last is answered, for three seconds and until more than
/// `ENOUGH` answers were right, which takes a slow machine longer. `GLOWFLOW_LOAD_SECONDS=30` asks for longer.
#[test]
fn two_hundred_clients_get_right_answers_or_are_asked_to_wait() {
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
                    // The path, what is sent, and what the right answer begins with, or is.
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
                            // As it says: try again in a while.
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
fn a_site_that_points_its_name_here_gets_nothing() {
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

#[test]
fn eyes_are_where_the_user_says() {
    for options in ["--eyes 0.3,0.45,0.7,0.5", "--eyes 0.3 0.45 0.7 0.5", "--eyes=0.3,0.45,0.7,0.5"] {
        let server = Server::with(options, &[]);
        let info: Value = serde_json::from_slice(&server.get("info").unwrap().1).unwrap();
        assert_eq!(info["eyes"], json!([[0.3, 0.45], [0.7, 0.5]]), "{options}");
    }
    for (eyes, word) in [
        ("0.1,0.2", "0.1, 0.2"),
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
fn a_model_without_directions_is_served_all_the_same() {
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

/// A GPU of which other programs leave little: what does not fit is refused, and what does is answered all the same.
#[test]
fn a_gpu_without_the_memory_for_one_request_answers_the_next() {
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

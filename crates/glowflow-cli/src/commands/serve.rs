//! `serve`.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::Context;
use glowflow::faces::{self, Faces};
use glowflow::pretrained;
use glowflow_web::{Access, Demo, Face, Limits, Token};

use super::finder::{self, Detector};
use super::tell;
use crate::{ExitCode, advice, args};

/// Environment variable with the token; ignored if empty.
const TOKEN: &str = "GLOWFLOW_TOKEN";

pub fn serve(args: &args::Serve, common: &args::Common) -> anyhow::Result<ExitCode> {
    let faces = if args.eyes.is_empty() {
        faces::read(&args.model)?
    } else {
        Some(Faces::Aligned(args.eyes.join(" ").parse().context("--eyes")?))
    };
    let address = address(&args.host, args.port)?;
    let local = address.ip().to_canonical().is_loopback();
    let token = token(args, local)?;
    let open = token.is_none();
    let access = access(args, token)?;
    let limits = Limits {
        connections_per_client: usize::try_from(args.client_connections).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let model = common.load_exact(&args.model)?;
    let demo = Demo::load(model, &args.model, args.directions.as_deref(), faces, limits)?;
    let (common, model) = (common.clone(), args.model.clone());
    let demo = demo.reloading(move || common.load_exact(&model).map_err(|error| advice::describe(&error)));
    let private = local && open && args.allow_host.is_empty() && args.base_path.trim_matches('/').is_empty();
    let mut demo = demo.storing_eyes(private && !pretrained::is_pretrained(&args.model));
    if finder::AVAILABLE {
        demo = finding_faces(demo)?;
    }
    if faces.is_none() {
        tell(&format!(
            "positions of the eyes in the model's images are unknown: the page asks for them, {}",
            if private { "once" } else { "in each browser; --eyes sets them for all" }
        ));
    }
    if let Some(weak) = weak_directions(&demo) {
        tell(&weak);
    }
    if demo.attributes().next().is_none() {
        match demo.unread() {
            Some(error) => {
                let remedy = advice::remedy(error).map_or(String::new(), |remedy| format!("; {remedy}"));
                tell(&format!("no attributes can be changed: {error}{remedy}"));
            }
            None => tell("no attributes can be changed: `glowflow attributes` computes a model's directions"),
        }
    }
    let ready = |urls: &[String]| {
        if !local {
            let who = if open { "anyone who can reach this computer" } else { "those who have the token" };
            tell(&format!(
                "{address} can be used from other computers by {who}; connections are not encrypted"
            ));
        } else if let Some(notice) = only_local(&args.host, address.ip()) {
            tell(&notice);
        }
        if local
            && open
            && let Some(host) = args.allow_host.first()
        {
            tell(&format!(
                "anyone who can reach {host} can use the demo; give --token, or require a password in the proxy"
            ));
        }
        // A closed standard output does not need the address.
        let mut out = std::io::stdout();
        let (first, others) = urls.split_first().map_or(("", urls), |(first, others)| (&**first, others));
        let _ = writeln!(out, "open {first} in a browser; press Ctrl-C to stop");
        others.iter().for_each(|url| _ = writeln!(out, "  or {url}"));
    };
    glowflow_web::run(demo, address, access, ready).map_err(|error| {
        let other = match error.kind() {
            ErrorKind::AddrInUse => " (--port chooses another port, and --port 0 a free one)",
            ErrorKind::AddrNotAvailable => {
                " (--host must be an address of this computer; 127.0.0.1 and 0.0.0.0 always work)"
            }
            _ => "",
        };
        anyhow::Error::from(error).context(format!("serving at {address}{other}"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Adds face detection to a demo.
fn finding_faces(demo: Demo) -> anyhow::Result<Demo> {
    let detector = Detector::new()?;
    Ok(demo.finding_faces(move |pixels, shape| {
        let found = detector.detect(pixels, shape).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|face| face_of(&face)).collect())
    }))
}

fn face_of(face: &finder::Face) -> Face {
    Face { eyes: face.eyes, bounds: face.box_, score: face.score }
}

/// The notice about unreliable directions.
fn weak_directions(demo: &Demo) -> Option<String> {
    /// Maximum number of names in the notice.
    const MAX_NAMES: usize = 3;
    let weak: Vec<String> =
        demo.weak_attributes().map(|(name, reason)| format!("{name} ({reason})")).collect();
    let (count, all) = (weak.len(), demo.attributes().count());
    let named = weak[..count.min(MAX_NAMES)].join(", ");
    let others = count.saturating_sub(MAX_NAMES);
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    (count > 0).then(|| format!("{count} of {all} directions are weak: {named}{more}"))
}

/// Resolves the address to listen on. `localhost` is the loopback address even without a hosts file.
fn address(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let advice = || {
        format!(
            "--host {host:?} is not an address or name of this computer; 127.0.0.1 and 0.0.0.0 always work"
        )
    };
    let found = (host, port).to_socket_addrs().with_context(advice)?;
    // If a name has both, browsers try IPv4.
    found.min_by_key(SocketAddr::is_ipv6).with_context(advice)
}

/// The notice for a host name that other computers may resolve but that is a loopback address here, as the
/// computer's own name is in Debian's /etc/hosts.
fn only_local(host: &str, ip: IpAddr) -> Option<String> {
    let bare = host.trim_end_matches('.').trim_matches(['[', ']']);
    let names_loopback = bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok();
    (ip.to_canonical().is_loopback() && !names_loopback).then(|| {
        format!("{host} resolves to {ip} here, so only this computer can reach the page; use --host 0.0.0.0 to admit others")
    })
}

/// The token that requests must present.
fn token(args: &args::Serve, local: bool) -> anyhow::Result<Option<Token>> {
    if args.no_token {
        return Ok(None);
    }
    if let Some(token) = &args.token {
        return Ok(Some(token.parse().context("--token")?));
    }
    match std::env::var_os(TOKEN) {
        Some(token) if !token.is_empty() => Ok(Some(token.to_string_lossy().parse().context(TOKEN)?)),
        _ if local => Ok(None),
        _ => Ok(Some(Token::random()?)),
    }
}

fn access(args: &args::Serve, token: Option<Token>) -> anyhow::Result<Access> {
    let mut access = Access::default().under(&args.base_path).context("--base-path")?.with_advice(|host| {
        format!("if a proxy of that name forwards requests here, add --allow-host {host}")
    });
    for host in &args.allow_host {
        access = access.allow(host).context("--allow-host")?;
    }
    if args.host.parse::<IpAddr>().is_err() {
        access = access.named(&args.host).context("--host")?;
    }
    if let Some(token) = token {
        access = access.with_token(token);
    }
    Ok(access)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn names_that_stand_for_a_loopback_address_are_reported() {
        let debian = IpAddr::from([127, 0, 1, 1]);
        let notice = only_local("box", debian).unwrap();
        for word in ["box", "127.0.1.1", "only this computer", "--host 0.0.0.0"] {
            assert!(notice.contains(word), "{notice}");
        }
        for (host, ip) in [
            ("box", IpAddr::from([192, 168, 1, 5])),
            ("127.0.1.1", debian),
            ("[::1]", Ipv6Addr::LOCALHOST.into()),
            ("localhost", Ipv4Addr::LOCALHOST.into()),
            ("LOCALHOST.", Ipv4Addr::LOCALHOST.into()),
        ] {
            assert_eq!(only_local(host, ip), None, "{host}");
        }
    }
}

//! `serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use glowflow_web::{Demo, Eyes, Limits};

use super::tell;
use crate::args;

pub fn serve(args: &args::Serve, common: &args::Common) -> anyhow::Result<ExitCode> {
    let eyes = eyes(&args.eyes)?;
    let demo = Demo::load(
        common.load_exact(&args.model)?,
        &args.model,
        args.directions.as_deref(),
        eyes,
        Limits::default(),
    )?;
    let (common, model) = (common.clone(), args.model.clone());
    let demo = demo.reloading(move || common.load_exact(&model).map_err(|error| format!("{error:#}")));
    if demo.attributes().next().is_none() {
        match demo.unread() {
            Some(error) => tell(&format!("no attributes can be changed: {error}")),
            None => {
                tell("no attributes can be changed: `glowflow attributes` finds the directions of a model")
            }
        }
    }
    let address = SocketAddr::new(args.host, args.port);
    if !args.host.is_loopback() {
        tell(&format!("{address} can be reached from other computers, by anyone who can reach this one"));
    }
    let ready = |address: SocketAddr| {
        // A reader that went away does not need the address.
        let _ = writeln!(std::io::stdout(), "open http://{address} in a browser; Ctrl-C stops");
    };
    glowflow_web::run(demo, address, ready).with_context(|| format!("serving at {address}"))?;
    Ok(ExitCode::SUCCESS)
}

fn eyes(places: &[f64]) -> anyhow::Result<Eyes> {
    match *places {
        [left_x, left_y, right_x, right_y]
            if places.iter().all(|place| (0.0..=1.0).contains(place)) && left_x < right_x =>
        {
            Ok(Eyes { left: [left_x, left_y], right: [right_x, right_y] })
        }
        _ => anyhow::bail!(
            "--eyes {places:?} should be four numbers from 0 to 1, the left eye before the right, such as 0.39,0.51,0.61,0.51"
        ),
    }
}

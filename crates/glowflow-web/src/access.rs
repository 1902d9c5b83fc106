//! Access control: checks the host that a request addresses, the site that sends it, and its token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::host::{Host, own_names};
use crate::{Problem, Token, page, token};

/// Errors of setting up an [`Access`].
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// An invalid host name.
    #[error(
        "{0:?} is not a valid host name; give the name alone and in full, such as demo.example.com or \
         demo.example.com:8443"
    )]
    Host(String),
    /// An invalid base path.
    #[error("{0:?} is not a valid path; use one such as /glow, of letters, digits and - . _ ~")]
    BasePath(String),
    /// An invalid token.
    #[error("the token is not valid; use at least 8 letters, digits and - . _ ~")]
    Token,
    /// The system has no source of random numbers.
    #[error("the system has no source of random numbers for a token: {0}")]
    Random(String),
}

/// Advice for a refusal: how to make the server accept a host.
type Advice = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Rules for access to the server. By default, it answers requests that address this computer, without a
/// token.
pub struct Access {
    /// True if only programs on this computer can connect.
    local: bool,
    /// Names of this computer in the Host header. Unlike allowed names, they do not admit pages of other
    /// ports.
    own: Vec<String>,
    allowed: Vec<Host>,
    token: Option<Token>,
    /// Empty, or with a leading and without a trailing slash.
    base_path: String,
    advice: Option<Advice>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            local: true,
            own: vec![],
            allowed: vec![],
            token: None,
            base_path: String::new(),
            advice: None,
        }
    }
}

impl Access {
    /// Also accepts a host name, such as that of a proxy, and pages loaded from there. With a port, only
    /// pages of that port.
    ///
    /// # Errors
    /// [`AccessError::Host`].
    pub fn allow(mut self, host: &str) -> Result<Self, AccessError> {
        self.allowed.push(host.parse()?);
        Ok(self)
    }

    /// Also accepts the name of the address that the server listens on. Pages of other ports of that name are
    /// refused.
    ///
    /// # Errors
    /// [`AccessError::Host`].
    pub fn named(mut self, host: &str) -> Result<Self, AccessError> {
        self.own.push(host.parse::<Host>()?.name);
        Ok(self)
    }

    /// Puts page and API under a path, for proxies that pass paths on unchanged. Paths without this prefix
    /// are answered too, for proxies that strip it.
    ///
    /// # Errors
    /// [`AccessError::BasePath`].
    pub fn under(mut self, path: &str) -> Result<Self, AccessError> {
        let inner = path.trim_matches('/');
        let segment = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        if path.is_empty() || !inner.is_empty() && !inner.split('/').all(segment) {
            return Err(AccessError::BasePath(path.to_owned()));
        }
        self.base_path = if inner.is_empty() { String::new() } else { format!("/{inner}") };
        Ok(self)
    }

    /// Requires a token from every request.
    pub fn with_token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Adds advice on the refused host to refusals.
    pub fn with_advice(self, advice: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self { advice: Some(Box::new(advice)), ..self }
    }

    /// Adapts the rules to the address that the server listens on.
    pub(crate) fn listening_on(mut self, address: SocketAddr) -> Self {
        self.local = address.ip().to_canonical().is_loopback();
        if !self.local {
            self.own.extend(own_names());
        }
        self
    }

    /// The page's address on a host, with the token.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        let page = match (&*self.base_path, &self.token) {
            ("", None) => String::new(),
            (base, None) => format!("{base}/"),
            (base, Some(token)) => format!("{base}/?token={}", token.as_str()),
        };
        format!("http://{address}{page}")
    }

    /// A page of a foreign name that resolves to this computer (DNS rebinding) must not get an answer. An IP
    /// address cannot be rebound.
    fn answers_to(&self, host: &Host) -> bool {
        let known = match host.name.parse::<IpAddr>() {
            Ok(address) => !self.local || address.to_canonical().is_loopback(),
            Err(_) => host.name == "localhost" || self.own.contains(&host.name),
        };
        known || self.allowed.iter().any(|allowed| allowed.name == host.name)
    }

    fn allows_site(&self, scheme: &str, site: &Host) -> bool {
        let port = site.port.unwrap_or(if scheme == "https" { 443 } else { 80 });
        let same =
            |allowed: &Host| allowed.name == site.name && allowed.port.is_none_or(|allowed| port == allowed);
        self.allowed.iter().any(same)
    }

    fn advice(&self, host: &Host) -> String {
        self.advice.as_ref().map_or_else(String::new, |advice| format!("; {}", advice(&host.name)))
    }
}

/// The host that a request is sent to: none, one, or an error if it is invalid or ambiguous.
fn named(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, String> {
    let mut given = headers.get_all(header::HOST).into_iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err("several hosts".to_owned());
    }
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(first) = first else { return Ok(None) };
    let text = String::from_utf8_lossy(first.as_bytes());
    text.parse().map(Some).map_err(|_| format!("{text:?}"))
}

/// Refuses requests that address other hosts. Requests without a host, such as health checks in HTTP/1.0, do
/// not come from browsers.
pub(crate) async fn to_this_server(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let refused = |host: &str, advice: String| {
        let detail = format!("{host} is not a name of this server{advice}");
        Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
    };
    match named(request.uri(), request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(authority)) => {
            let host = Host::from(&authority);
            if access.answers_to(&host) {
                return next.run(request).await;
            }
            refused(&format!("{:?}", authority.as_str()), access.advice(&host))
        }
        Err(host) => refused(&host, String::new()),
    }
}

/// Refuses requests that a browser sends for a page of another site: the browser would withhold the answer
/// from the page, but the server would still compute it and could evict images of other clients. Programs
/// other than browsers send no origin.
pub(crate) async fn from_no_other_site(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let host = named(request.uri(), request.headers()).ok().flatten();
    for origin in request.headers().get_all(header::ORIGIN) {
        let text = String::from_utf8_lossy(origin.as_bytes());
        let site = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.parse().ok()?)));
        let site: Option<(&str, Authority)> = site;
        let welcome = site.as_ref().is_some_and(|(scheme, site)| {
            let web = matches!(*scheme, "http" | "https");
            web && (host.as_ref() == Some(site) || access.allows_site(scheme, &Host::from(site)))
        });
        if !welcome {
            let advice = site.map_or_else(String::new, |(_, site)| access.advice(&Host::from(&site)));
            let host = host.as_ref().map_or("", Authority::as_str);
            let detail = format!("a page from {text:?} may not use {host:?}{advice}");
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
    }
    next.run(request).await
}

/// Requires the token, if one is set.
pub(crate) async fn with_token(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let Some(token) = &access.token else { return next.run(request).await };
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    if path == "/" && method == Method::GET && token.is_in_query(request.uri().query()) {
        return token.exchange(headers);
    }
    if page::PUBLIC.contains(&path) || token.is_in(headers) {
        return next.run(request).await;
    }
    token::missing(method, path)
}

/// Removes the base path from a request's path. A path without it comes from a proxy that strips it.
pub(crate) async fn below_base_path(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let base = &access.base_path;
    let uri = request.uri();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match uri.path().strip_prefix(base.as_str()) {
        Some(rest) if !base.is_empty() && rest.starts_with('/') => {
            let mut parts = uri.clone().into_parts();
            parts.path_and_query = format!("{rest}{query}").parse::<PathAndQuery>().ok();
            match Uri::from_parts(parts) {
                Ok(uri) => *request.uri_mut() = uri,
                Err(error) => return bad_request(&error),
            }
        }
        // The page's links need the slash.
        Some("") if request.method() == Method::GET => {
            return match HeaderValue::from_str(&format!("{base}/{query}")) {
                Ok(page) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, page)]).into_response(),
                Err(error) => bad_request(&error),
            };
        }
        _ => {}
    }
    next.run(request).await
}

fn bad_request(error: &dyn std::error::Error) -> Response {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

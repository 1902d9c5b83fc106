//! Access tokens: the server answers only requests that carry its token.

use std::str::FromStr;

use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use constant_time_eq::constant_time_eq;

use crate::{AccessError, Problem, page};

/// Number of random bytes in a generated token.
const RANDOM_BYTES: usize = 24;

/// Minimum length of an accepted token.
const MIN_LENGTH: usize = 8;

/// A secret that requests must carry.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new token of 192 random bits.
    ///
    /// # Errors
    /// [`AccessError::Random`] if the system has no source of random numbers.
    pub fn random() -> Result<Self, AccessError> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| AccessError::Random(error.to_string()))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The token as text, for the address that opens the page.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in constant time, so that response times reveal nothing.
    fn matches(&self, given: &str) -> bool {
        constant_time_eq(self.0.as_bytes(), given.as_bytes())
    }

    /// Returns whether a request carries this token, in a cookie or as `Authorization: Bearer`.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let texts = |name| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        let bearer = texts(AUTHORIZATION).filter_map(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let name = cookie_name(headers);
        let cookies = texts(COOKIE).flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
            let (key, value) = cookie.trim().split_once('=')?;
            (key == name).then_some(value)
        });
        bearer.chain(cookies).any(|given| self.matches(given))
    }

    /// Returns whether the query of a URL contains this token.
    pub(crate) fn is_in_query(&self, query: Option<&str>) -> bool {
        let parts = query.unwrap_or_default().split('&');
        parts.filter_map(|part| part.strip_prefix("token=")).any(|given| self.matches(given))
    }

    /// Exchanges the token in the page's URL for a cookie, and removes it from the URL.
    pub(crate) fn exchange(&self, headers: &HeaderMap) -> Response {
        // Without a path, browsers use the folder of the page from their own view. The server does not see a
        // path that a proxy strips.
        let mut cookie = format!("{}={}; HttpOnly; SameSite=Strict", cookie_name(headers), self.0);
        if headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https") {
            cookie += "; Secure";
        }
        let here = HeaderValue::from_static("./");
        match HeaderValue::from_str(&cookie) {
            Ok(cookie) => {
                (StatusCode::SEE_OTHER, [(header::LOCATION, here), (SET_COOKIE, cookie)]).into_response()
            }
            Err(error) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the cookie is invalid: {error}"))
                    .into_response()
            }
        }
    }
}

impl FromStr for Token {
    type Err = AccessError;

    /// Accepts a token chosen by the user. It must be valid in URLs and cookies without escaping.
    fn from_str(text: &str) -> Result<Self, AccessError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if text.len() < MIN_LENGTH || !text.chars().all(fits) {
            return Err(AccessError::Token);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Cookies do not distinguish ports, so the name does: several servers on one computer have separate cookies.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match host.and_then(|host| host.rsplit_once(':')?.1.parse::<u16>().ok()) {
        Some(port) => format!("glowflow-{port}"),
        None => "glowflow".to_owned(),
    }
}

/// The answer to a request without the token: a form for people, a problem document for programs.
pub(crate) fn missing(method: &Method, path: &str) -> Response {
    let mut response = if path == "/" && matches!(*method, Method::GET | Method::HEAD) {
        page::token_form()
    } else {
        let detail = "the token of this server is missing or wrong; send it as Authorization: Bearer, or open the \
                      page with the address that the server printed";
        Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
    };
    let scheme = HeaderValue::from_static("Bearer realm=\"glowflow\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

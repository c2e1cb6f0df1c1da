//! Introspects a token with oauth2: ORIGIN SECRET TOKEN. Prints what it is told, or exits with 1.

use oauth2::basic::BasicClient;
use oauth2::curl::http_client;
use oauth2::{AccessToken, AuthUrl, ClientId, ClientSecret, IntrospectionUrl, TokenIntrospectionResponse};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: rust-introspect ORIGIN SECRET TOKEN");
    let (origin, secret, token) = (next()?, next()?, next()?);

    // No browser is sent to the AuthUrl, but the client cannot be without one.
    let client = BasicClient::new(
        ClientId::new("items-service".to_string()),
        Some(ClientSecret::new(secret)),
        AuthUrl::new(origin.clone())?,
        None,
    )
    .set_introspection_uri(IntrospectionUrl::new(origin + "/introspect")?);
    let answer = client.introspect(&AccessToken::new(token))?.request(http_client)?;
    println!("{}", serde_json::json!({"active": answer.active(), "username": answer.username()}));
    Ok(())
}
